//! Prometheus' own checker of alert rules, of Debian's package; unpacked, since installing it would start a server.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use super::packages;
use crate::paths::Workspace;
use crate::run;

const PACKAGE: &str = "prometheus";

pub(super) fn provide(workspace: &Workspace) -> Result<()> {
    if find(workspace).is_some() {
        return Ok(());
    }
    let home = home(workspace);
    run::timed("Unpacking promtool", "some seconds, once", || packages::unpack(&[PACKAGE], &home))?;
    let program = home.join("usr/bin/promtool");
    ensure!(
        run::output(Command::new(&program).arg("--version")).is_ok(),
        "{} was unpacked and does not run",
        program.display()
    );
    Ok(())
}

/// The one unpacked for this project, or else the one of this machine.
pub(crate) fn find(workspace: &Workspace) -> Option<PathBuf> {
    let ours = home(workspace).join("usr/bin/promtool");
    if ours.is_file() { Some(ours) } else { run::find_program("promtool") }
}

fn home(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("prometheus")
}
