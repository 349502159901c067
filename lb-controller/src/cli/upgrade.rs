//! `lb-controller upgrade`: this program takes the running controller's place.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::failure::{ExitKind, Failure};
use crate::handover::{self, HandoverError, Running};
use crate::instance::Instance;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Give up after this many seconds; the running controller then goes on.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// What a controller that was itself put in another's place has among its arguments.
const OF_THIS_KIND: [&str; 2] = ["--takeover", "--adopt-output"];

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let (running, [_, errors]) = handover::running(&instance.handover_socket()).map_err(refused)?;
    under_the_same_manager(&running)?;
    let mut child = start(instance, &running, &errors)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    // Until it has taken over, its log comes here; then it goes where the old one's went, and this ends.
    let log = child.stderr.take().context("a pipe was asked for")?;
    let (passed, has_passed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            let _ = std::io::stderr().write_all(&[&line[..], b"\n"].concat());
        }
        let _ = passed.send(());
    });
    while has_passed.recv_timeout(Duration::from_millis(50)).is_err() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let why = anyhow!(
                "the new controller had not taken over after {} s and was ended; controller {} goes on",
                arguments.timeout,
                running.pid
            );
            return Err(why.into());
        }
    }
    outcome(instance, &running, child)
}

/// One whose log has ended has taken over, or failed.
fn outcome(instance: &Instance, running: &Running, mut child: Child) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the new controller")? {
            let kind = status.code().and_then(ExitKind::of_code).unwrap_or(ExitKind::Other);
            let why = anyhow!("the new controller did not take over ({status}); controller {} goes on", running.pid);
            return Err(Failure::new(kind, why));
        }
        match handover::running(&instance.handover_socket()) {
            Ok((now, _)) if now.pid == child.id() => {
                say!("controller {} has taken over from {}, which drains", now.pid, running.pid);
                return Ok(());
            }
            _ if Instant::now() > deadline => {
                return Err(anyhow!("the new controller {} does not answer", child.id()).into());
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// With the arguments of the running one, in its folder.
fn start(instance: &Instance, running: &Running, errors: &OwnedFd) -> Result<Child, Failure> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let is_kept = |text: &&String| !OF_THIS_KIND.contains(&text.as_str());
    let mut command = Command::new(&program);
    command.args(running.arguments.iter().filter(is_kept)).args(OF_THIS_KIND);
    if errors.is_terminal() && !running.arguments.iter().any(|text| text.starts_with("--log-format")) {
        command.args(["--log-format", "text"]);
    }
    command.current_dir(&running.folder).env("LB_INSTANCE", instance.to_string());
    if let Some(socket) = &running.notify_socket {
        command.env("NOTIFY_SOCKET", socket);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(child)
}

/// systemd would take the new process for a stranger, and the old one's end for the service's.
fn under_the_same_manager(running: &Running) -> Result<(), Failure> {
    if running.notify_socket.is_none() {
        return Ok(());
    }
    let group_of = |process: &str| std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    if group_of(&running.pid.to_string()) == group_of("self") {
        return Ok(());
    }
    let why = anyhow!("the running controller is a service of systemd; upgrade it with `systemctl reload`");
    Err(Failure::new(ExitKind::Other, why))
}

fn refused(error: HandoverError) -> Failure {
    match error {
        HandoverError::NotRunning { .. } => Failure::new(ExitKind::NotRunning, error),
        error => Failure::new(ExitKind::Other, error),
    }
}
