//! Components of the pinned Rust toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::paths::Workspace;
use crate::run;

/// What `rustc -vV` says of the compiler that builds this workspace.
pub(crate) struct Compiler {
    /// The whole text: two compilers with the same text are the same compiler.
    pub(crate) version_text: String,
    /// Such as `22.1.2`.
    pub(crate) llvm: String,
    pub(crate) sysroot: PathBuf,
}

impl Compiler {
    pub(crate) fn probe(workspace: &Workspace) -> Result<Compiler> {
        let version_text = rustc(workspace, &["-vV"])?;
        let llvm = version_text
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .context("`rustc -vV` names no LLVM version; use the toolchain that rust-toolchain.toml pins")?
            .to_owned();
        let sysroot = rustc(workspace, &["--print", "sysroot"])?.trim().into();
        Ok(Compiler { version_text, llvm, sysroot })
    }

    /// A program of the component llvm-tools.
    pub(crate) fn tool(&self, name: &str) -> Result<PathBuf> {
        tool(&self.sysroot, name).with_context(|| format!("the Rust toolchain has no {name}"))
    }
}

/// Adds the components of the pinned toolchain that are missing. A toolchain that was installed before
/// rust-toolchain.toml named a component does not get it by itself.
pub(super) fn ensure(workspace: &Workspace, components: &[&str]) -> Result<()> {
    let sysroot = PathBuf::from(rustc(workspace, &["--print", "sysroot"])?.trim());
    let missing: Vec<_> = components.iter().copied().filter(|name| !is_installed(&sysroot, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run::timed(&format!("Adding {} to the Rust toolchain", missing.join(", ")), "a few seconds", || {
        let remedy = "needs rustup (https://rustup.rs) and the network; by hand: `rustup component add` in this folder";
        run::run(Command::new("rustup").args(["component", "add"]).args(missing).current_dir(&workspace.root), remedy)
    })
}

fn is_installed(sysroot: &Path, component: &str) -> bool {
    let evidence = match component {
        "rust-src" => "lib/rustlib/src/rust/library/core/src/lib.rs",
        "clippy" => "bin/cargo-clippy",
        "rustfmt" => "bin/rustfmt",
        "llvm-tools" => return tool(sysroot, "llvm-profdata").is_some(),
        _ => return false,
    };
    sysroot.join(evidence).is_file()
}

/// In a folder that is named after the machine.
fn tool(sysroot: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
    let mut programs = folders.filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)));
    programs.find(|program| program.is_file())
}

fn rustc(workspace: &Workspace, args: &[&str]) -> Result<String> {
    run::output(Command::new("rustc").args(args).current_dir(&workspace.root))
}
