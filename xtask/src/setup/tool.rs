//! Cargo's helpers that only some commands need, built below the target folder and found again there.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::paths::Workspace;
use crate::run;

/// A program on crates.io that brings a cargo subcommand.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    /// How long building it takes on two cores.
    about: &'static str,
}

pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", about: "about 5 minutes, once" };
pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.1", about: "about a minute, once" };

impl Tool {
    /// The one built for this project, or else the one the user has.
    pub(crate) fn find(&self, workspace: &Workspace) -> Option<PathBuf> {
        let ours = self.home(workspace).join("bin").join(self.name);
        if ours.is_file() { Some(ours) } else { run::find_program(self.name) }
    }

    /// Builds it unless it is there; returns its path.
    pub(super) fn ensure(&self, workspace: &Workspace) -> Result<PathBuf> {
        if let Some(program) = self.find(workspace) {
            return Ok(program);
        }
        run::timed(&format!("Building {} {}", self.name, self.version), self.about, || self.install(workspace))?;
        self.find(workspace).with_context(|| format!("{} was built, yet it is not there", self.name))
    }

    fn install(&self, workspace: &Workspace) -> Result<()> {
        let home = self.home(workspace);
        let mut cargo = workspace.cargo();
        cargo.args(["install", self.name, "--quiet", "--locked", "--version", self.version]).arg("--root").arg(&home);
        // A build folder of its own, or it would wait for every other cargo that holds the workspace's.
        cargo.arg("--target-dir").arg(home.join("build"));
        run::run(&mut cargo, "it needs crates.io and a C compiler")?;
        fs::remove_dir_all(home.join("build")).with_context(|| format!("removing the build folder of {}", self.name))
    }

    fn home(&self, workspace: &Workspace) -> PathBuf {
        workspace.tools().join(format!("{}-{}", self.name, self.version))
    }
}
