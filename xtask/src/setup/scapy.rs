//! Scapy, a second opinion about packets: in a Python environment of its own below the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::packages;
use crate::paths::Workspace;
use crate::run;

const VERSION: &str = "2.6.1";

/// The Python that has scapy; `None` if it was not provided yet.
pub(crate) fn find(workspace: &Workspace) -> Option<PathBuf> {
    let home = home(workspace);
    stamp(&home).is_file().then(|| python(&home))
}

/// Provides it unless it is there.
pub(super) fn ensure(workspace: &Workspace) -> Result<()> {
    if find(workspace).is_some() {
        return Ok(());
    }
    packages::ensure_python()?;
    run::timed(&format!("Installing scapy {VERSION}"), "some seconds, once", || install(&home(workspace)))
}

fn install(home: &Path) -> Result<()> {
    if home.exists() {
        // Of an installation that was interrupted.
        fs::remove_dir_all(home).with_context(|| format!("removing {}", home.display()))?;
    }
    run::run(Command::new("python3").args(["-m", "venv"]).arg(home), "on Debian: apt-get install python3-venv")?;
    let mut pip = Command::new(python(home));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "20", "--retries", "2"]);
    pip.args(["--only-binary", ":all:", &format!("scapy=={VERSION}")]);
    run::run(&mut pip, "it needs pypi.org, or a mirror that pip is configured for")?;
    // Last, so that half an installation is never taken for a whole one.
    let stamp = stamp(home);
    fs::write(&stamp, VERSION).with_context(|| format!("writing {}", stamp.display()))
}

fn home(workspace: &Workspace) -> PathBuf {
    workspace.tools().join(format!("scapy-{VERSION}"))
}

fn python(home: &Path) -> PathBuf {
    home.join("bin/python3")
}

fn stamp(home: &Path) -> PathBuf {
    home.join("installed.txt")
}
