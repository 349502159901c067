//! The running programs of the demo: the edge's controller and two backends.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Args;
use super::account::Account;
use super::curl::Curl;
use super::interrupt::Interrupt;
use super::place::{BACKENDS, Host, Place};
use super::process::Process;
use super::topology::CLIENT_INTERFACES;
use crate::paths::{Profile, Workspace};

/// Attaching, the first self-signed certificate and the first health checks, with a debug build on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) account: Account,
    /// Configuration, state and logs.
    pub(crate) home: PathBuf,
    pub(crate) interrupt: Interrupt,
    controller_program: PathBuf,
    peer_program: PathBuf,
    log_level: String,
    /// Whoever asked for a level wants to see the log; otherwise it goes to a file.
    log_to_terminal: bool,
    controller: Option<Process>,
    backends: [Option<Process>; BACKENDS],
    /// Keep the clients' interfaces taking what XDP sends back.
    receivers: Vec<Process>,
}

impl Scene {
    pub(crate) fn new(workspace: &Workspace, place: Place, args: &Args, interrupt: Interrupt) -> Result<Scene> {
        let profile = Profile::from_flag(args.release);
        let scene = Scene {
            place,
            account: Account::new()?,
            home: place.home(workspace),
            interrupt,
            controller_program: workspace.binary("lb-controller", profile),
            peer_program: workspace.binary("lb-peer", profile),
            log_level: args.log_level.clone().unwrap_or_else(|| if args.check { "debug" } else { "info" }.into()),
            log_to_terminal: args.log_level.is_some(),
            controller: None,
            backends: [const { None }; BACKENDS],
            receivers: Vec::new(),
        };
        let template = workspace.root.join("examples/demo.yaml");
        let text = fs::read_to_string(&template).with_context(|| format!("reading {}", template.display()))?;
        fs::write(scene.config_file(), scene.fill_in(&text)?).context("writing the demo's configuration")?;
        Ok(scene)
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        for index in 0..BACKENDS {
            self.start_backend(index)?;
        }
        if self.place == Place::Namespaces {
            self.start_receivers()?;
        }
        self.start_controller()
    }

    /// Stops everything in the order in which requests would least notice.
    pub(crate) fn stop(mut self) -> Result<()> {
        if let Some(controller) = self.controller.take() {
            controller.stop()?;
        }
        if self.place == Place::Namespaces {
            self.controller_says(&["unload"])?;
        }
        for backend in self.backends.iter_mut().filter_map(Option::take) {
            backend.kill()?;
        }
        Ok(())
    }

    pub(crate) fn still_runs(&mut self) -> Result<()> {
        let backends = self.backends.iter_mut().flatten();
        self.controller.iter_mut().chain(backends).chain(&mut self.receivers).try_for_each(Process::still_runs)
    }

    /// Starts the controller and waits until it answers requests.
    pub(crate) fn start_controller(&mut self) -> Result<()> {
        let mut command = self.controller_command();
        command.args(["run", "--config"]).arg(self.config_file());
        command.args(["--log-level", &self.log_level]);
        if self.place == Place::Loopback {
            command.args(["--listen", &self.place.edge().to_string()]);
        }
        self.controller = Some(Process::start("the controller", &command, self.controllers_log())?);
        self.eventually("the controller to answer", STARTS_WITHIN, |scene| {
            let answer = scene.curl(Host::Machine).get("/open/ready")?;
            ensure!(answer.status == 200, "the edge answered {}", answer.status);
            Ok(())
        })
    }

    /// `None`: it goes to the terminal.
    pub(crate) fn controllers_log(&self) -> Option<PathBuf> {
        (!self.log_to_terminal).then(|| self.log("controller"))
    }

    /// `kill -9` of the controller.
    pub(crate) fn kill_controller(&mut self) -> Result<()> {
        self.controller.take().context("the controller was not running")?.kill()
    }

    pub(crate) fn start_backend(&mut self, index: usize) -> Result<()> {
        let name = format!("backend-{}", index + 1);
        let mut command = self.place.command(Host::Backend(index), &self.peer_program);
        command.args(["origin", "--name", &name, "--listen", &self.place.backend(index).to_string()]);
        self.backends[index] = Some(Process::start(&name, &command, Some(self.log(&name)))?);
        Ok(())
    }

    fn start_receivers(&mut self) -> Result<()> {
        for (host, interface) in CLIENT_INTERFACES {
            let mut command = self.peer(host);
            command.args(["take-from-xdp", interface]);
            let name = format!("receiver-{interface}");
            self.receivers.push(Process::start(&name, &command, Some(self.log(&name)))?);
        }
        Ok(())
    }

    pub(crate) fn kill_backend(&mut self, index: usize) -> Result<()> {
        self.backends[index].take().with_context(|| format!("backend {} was not running", index + 1))?.kill()
    }

    /// Runs `lb-controller` on the edge with `arguments` and returns what it printed; its errors become ours.
    pub(crate) fn controller_says(&self, arguments: &[&str]) -> Result<String> {
        crate::run::output(self.asking_command().args(arguments))
    }

    /// The command that runs this scene's controller, on the edge.
    pub(crate) fn controller_command(&self) -> Command {
        let mut command = self.place.command(Host::Edge, &self.controller_program);
        command.args(["--instance", self.place.instance()]);
        command
    }

    /// The command that asks this scene's controller, as a user would type it: its socket and the pins are seen from
    /// every network namespace.
    pub(crate) fn asking_command(&self) -> Command {
        let mut command = Command::new(&self.controller_program);
        command.args(["--instance", self.place.instance()]);
        command
    }

    /// One of lb-peer's clients, seen from `host`.
    pub(crate) fn peer(&self, host: Host) -> Command {
        self.place.command(host, &self.peer_program)
    }

    pub(crate) fn curl(&self, host: Host) -> Curl<'_> {
        Curl::new(self, host)
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.home.join("demo.yaml")
    }

    /// Tries until it succeeds; fails with the last error, or as soon as a program has ended that should run.
    pub(crate) fn eventually<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut attempt: impl FnMut(&mut Scene) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            self.interrupt.check()?;
            self.still_runs()?;
            match attempt(self) {
                Ok(done) => return Ok(done),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("waited {} s in vain for {what}", within.as_secs())));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Where a program's output goes.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.home.join(format!("{name}.log"))
    }

    /// The example configuration with this run's secrets, folders and addresses.
    fn fill_in(&self, template: &str) -> Result<String> {
        let backends: Vec<_> = (0..BACKENDS).map(|index| format!("\"{}\"", self.place.backend(index))).collect();
        let mut text = template.to_owned();
        for (key, value) in [
            ("state_dir", self.home.join("state").display().to_string()),
            ("password_hash", format!("'{}'", self.hash_password()?)),
            ("totp_secret", self.account.secret_base32().to_owned()),
            ("backends", format!("[{}]", backends.join(", "))),
        ] {
            text = set(&text, key, &value)?;
        }
        if self.place == Place::Loopback {
            text = set(&text, "interfaces", "[]")?;
            text = set(&text, "vips", "[127.0.0.1]")?;
            // Another address than the VIP's, or the metrics would be within reach of clients.
            text = set(&text, "metrics", "127.0.0.2:9090")?;
            text = set(&text, "port", &self.place.edge().port().to_string())?;
        }
        Ok(text)
    }

    fn hash_password(&self) -> Result<String> {
        let mut child = Command::new(&self.controller_program)
            .arg("hash-password")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.controller_program.display()))?;
        child.stdin.take().context("a pipe was asked for")?.write_all(self.account.password.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "`lb-controller hash-password` failed ({})", output.status);
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Gives the one line `key: …` of a YAML text another value.
pub(crate) fn set(text: &str, key: &str, value: &str) -> Result<String> {
    let start = format!("{key}: ");
    let matching = |line: &str| line.trim_start().trim_start_matches("- ").starts_with(&start);
    if text.lines().filter(|line| matching(line)).count() != 1 {
        bail!("the example configuration has not exactly one line `{key}: …`");
    }
    let lines = text.lines().map(|line| match line.find(&start) {
        Some(at) if matching(line) => format!("{}{value}\n", &line[..at + start.len()]),
        _ => format!("{line}\n"),
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_replaced_where_its_key_stands_and_nowhere_else() {
        let text = "a: 1\nlist:\n  - key: old\n    other: key\n";
        assert_eq!(set(text, "key", "[new]").unwrap(), "a: 1\nlist:\n  - key: [new]\n    other: key\n");
        assert!(set(text, "absent", "x").is_err());
        assert!(set("key: 1\nkey: 2\n", "key", "3").is_err());
    }
}
