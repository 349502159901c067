//! Other people's proxies, for `cargo xtask bench l7`: Debian's nginx and HAProxy, Envoy from PyPI.
//!
//! Debian's packages are unpacked below the target folder, not installed: installing them would start their services.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::packages;
use super::python;
use crate::paths::Workspace;
use crate::run;

const PACKAGES: [&str; 2] = ["nginx", "haproxy"];
/// What their programs are linked with, beyond what every Debian has.
const LIBRARIES: [&str; 2] = ["liblua5.3-0", "libopentracing-c-wrapper0"];

pub(super) fn ensure(workspace: &Workspace) -> Result<()> {
    python::ENVOY.ensure(workspace)?;
    let all = [nginx(workspace), haproxy(workspace)];
    if all.iter().all(|program| runs(program)) {
        return Ok(());
    }
    packages::ensure_libraries(&LIBRARIES)?;
    run::timed("Unpacking nginx and HAProxy", "some seconds, once", || packages::unpack(&PACKAGES, &home(workspace)))?;
    for program in &all {
        ensure!(runs(program), "{} was unpacked and does not run; see `ldd {0}`", program.display());
    }
    Ok(())
}

pub(crate) fn nginx(workspace: &Workspace) -> PathBuf {
    home(workspace).join("usr/sbin/nginx")
}

pub(crate) fn haproxy(workspace: &Workspace) -> PathBuf {
    home(workspace).join("usr/sbin/haproxy")
}

pub(crate) fn envoy(workspace: &Workspace) -> PathBuf {
    // The package's own `envoy` is a script that starts this.
    let library = python::ENVOY.home(workspace).join("lib");
    let versions = fs::read_dir(&library).into_iter().flatten().flatten();
    let program = |version: fs::DirEntry| version.path().join("site-packages/envoy/_bin/envoy");
    versions.map(program).find(|path| path.is_file()).unwrap_or(library)
}

fn home(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("peers")
}

fn runs(program: &Path) -> bool {
    run::output(Command::new(program).arg("-v")).is_ok()
}
