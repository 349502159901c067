//! systemd as the first process of namespaces of its own, with the unit of `examples/`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const SYSTEMD: &str = "/lib/systemd/systemd";
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Everything in it ends when this is dropped.
#[derive(Debug)]
pub struct ServiceManager {
    /// Of the namespaces; the first process is its child, and is killed with it.
    outside: Child,
    first_process: String,
}

impl ServiceManager {
    /// What is lacking to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        (!Path::new(SYSTEMD).exists()).then_some("needs systemd; run `cargo xtask setup`")
    }

    /// Returns when it runs, whatever became of the unit. Needs root.
    pub fn start(controller: &Path) -> Result<ServiceManager> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let outside = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--cgroup", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", include_str!("service_manager.sh"), "first"])
            .args([controller, &here.join("../examples/lb.service")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting unshare")?;
        let mut manager = ServiceManager { first_process: String::new(), outside };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let id = manager.outside.id();
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            manager.first_process = children.trim().to_owned();
            if !manager.first_process.is_empty() && manager.run(&["systemctl", "is-system-running"]).is_ok() {
                return Ok(manager);
            }
            let ended = manager.outside.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < deadline, "systemd does not run; ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a command in there writes. Errors: it failed; with what it wrote about that.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("nsenter")
            .args(["--target", &self.first_process, "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"])
            .args(command)
            .stdin(Stdio::null())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}: {errors}", command.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A property of the unit, such as `MainPID`.
    pub fn property(&self, name: &str) -> Result<String> {
        self.run(&["systemctl", "show", "lb", "--value", "--property", name])
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}
