//! One proxy as it runs: where it listens, what CPU it has used, and what memory it has.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A proxy, how to start it, and its process while it runs.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) port: u16,
    command: Box<dyn Fn() -> Command>,
    log: PathBuf,
    running: std::cell::RefCell<Option<Running>>,
}

/// Stopped when dropped.
pub(super) struct Running {
    child: Child,
}

impl Subject {
    pub(super) fn new(
        name: &'static str,
        port: u16,
        log: PathBuf,
        command: impl Fn() -> Command + 'static,
    ) -> Result<Subject> {
        let subject = Subject { name, port, command: Box::new(command), log, running: None.into() };
        subject.restart()?;
        Ok(subject)
    }

    /// With fresh memory.
    pub(super) fn restart(&self) -> Result<()> {
        *self.running.borrow_mut() = None;
        let running = Running::start((self.command)(), self.port, &self.log)?;
        *self.running.borrow_mut() = Some(running);
        Ok(())
    }

    /// Of all its processes, since they began.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let ticks_per_second = 100.0;
        let ticks = self.processes()?.into_iter().map(cpu_ticks).sum::<Result<u64>>()?;
        Ok(ticks as f64 / ticks_per_second)
    }

    pub(super) fn resident_kib(&self) -> Result<u64> {
        self.processes()?.into_iter().map(resident_kib).sum()
    }

    /// Open file descriptors.
    pub(super) fn descriptors(&self) -> Result<u64> {
        let count = |pid| Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64);
        self.processes()?.into_iter().map(count).sum()
    }

    fn processes(&self) -> Result<Vec<u32>> {
        let running = self.running.borrow();
        let running = running.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let mut all = vec![running.child.id()];
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        Ok(all)
    }
}

impl Running {
    /// Waits until it takes connections at `port` of 127.0.0.1.
    pub(super) fn start(mut command: Command, port: u16, log: &PathBuf) -> Result<Running> {
        let output = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting `{}`", crate::run::words(&command)))?;
        let mut running = Running { child };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("`{}` ended ({status}); see {}", crate::run::words(&command), log.display());
            }
            if Instant::now() > deadline {
                bail!("`{}` does not listen; see {}", crate::run::words(&command), log.display());
            }
            thread::sleep(POLL);
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id() as i32);
        // Gently first: their children go with them then.
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time in clock ticks: fields 14 and 15 of proc_pid_stat(5), counted behind the name in brackets.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    field(14).zip(field(15)).map(|(user, system)| user + system).context("a stat file without times")
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).context("a status file without VmRSS")
}

/// Whether something answers on a port that the benchmark needs: then it would be measured instead.
pub(super) fn ensure_free(port: u16) -> Result<()> {
    match TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => bail!("something listens on 127.0.0.1:{port} already; the benchmark needs that port"),
    }
}
