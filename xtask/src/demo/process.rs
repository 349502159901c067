//! A program of the scene that goes on running: its log, its end.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run;

/// After this a program that was asked to stop is killed. The controller gives open requests ten seconds.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// Dropping it kills the program.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Its output; `None` when that goes to the terminal.
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command`; its output goes to `log`, or to the terminal when there is none.
    pub(crate) fn start(name: &str, command: &Command, log: Option<PathBuf>) -> Result<Process> {
        // When this process dies without a chance to clean up, the kernel stops its children. `setpriv` is exec'd away,
        // so the child's id is the program's own.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        // A group of its own: the terminal's Ctrl-C must reach this process alone, which then stops things in order.
        guarded.process_group(0).stdin(Stdio::null());
        if let Some(log) = &log {
            let file = File::options().create(true).append(true).open(log);
            let file = file.with_context(|| format!("opening the log {}", log.display()))?;
            guarded.stdout(file.try_clone()?).stderr(file);
        }
        let child = guarded.spawn().with_context(|| format!("starting {name} (`{}`)", run::words(command)))?;
        Ok(Process { name: name.into(), child, log })
    }

    /// An error with the end of its log when the program has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended ({status}){}", self.name, self.last_words()),
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + STOPS_WITHIN;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("{} did not stop within {STOPS_WITHIN:?} and was killed{}", self.name, self.last_words())
    }

    /// `kill -9`: it gets no chance to clean up.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    fn last_words(&self) -> String {
        self.log.as_deref().map_or_else(String::new, |log| format!("; the end of {}:\n{}", log.display(), tail(log)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
