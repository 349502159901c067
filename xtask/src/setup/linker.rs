//! bpf-linker, built against the very LLVM that the pinned rustc carries.
//!
//! bpf-linker reads the bitcode that rustc writes, so the two must share one LLVM. The published default wants a newer
//! LLVM than stable rustc has, and distributions carry older ones; the toolchain's own library is always right.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::toolchain::Compiler;
use crate::paths::Workspace;
use crate::run;

const VERSION: &str = "0.13.0";

/// Builds bpf-linker unless one for this very compiler is there; returns its path.
pub(super) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let compiler = Compiler::probe(workspace)?;
    let home = workspace.tools().join(format!("bpf-linker-{VERSION}-llvm{}", compiler.llvm));
    let linker = home.join("bin/bpf-linker");
    let stamp = home.join("built-for-rustc.txt");
    let built_for = fs::read_to_string(&stamp).unwrap_or_default();
    if built_for == compiler.version_text && starts(&linker) {
        return Ok(linker);
    }
    run::timed(&format!("Building bpf-linker {VERSION} for LLVM {}", compiler.llvm), "about a minute, once", || {
        install(workspace, &compiler, &home)
    })?;
    if !starts(&linker) {
        bail!("{} was built but does not start; remove {} and try again", linker.display(), home.display());
    }
    // Last, so that an interrupted build is never taken for a finished one.
    fs::write(&stamp, &compiler.version_text).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(linker)
}

/// Starting proves that the LLVM library it was linked with is still where it was: it is found by its absolute path.
fn starts(linker: &Path) -> bool {
    linker.is_file() && run::output(Command::new(linker).arg("--version")).is_ok()
}

fn install(workspace: &Workspace, compiler: &Compiler, home: &Path) -> Result<()> {
    let llvm = home.join("llvm");
    link_llvm(&compiler.sysroot.join("lib"), &llvm.join("lib"))?;
    let feature = format!("llvm-{}", compiler.llvm.split('.').next().unwrap_or_default());
    let mut cargo = workspace.cargo();
    cargo.args(["install", "bpf-linker", "--quiet", "--force", "--locked", "--no-default-features"]);
    cargo.args(["--version", VERSION, "--features", &feature]).arg("--root").arg(home);
    // A build folder of its own, or it would wait for every other cargo that holds the workspace's.
    cargo.arg("--target-dir").arg(home.join("build"));
    cargo.env("LLVM_PREFIX", &llvm);
    let remedy = "it needs crates.io and a C compiler; bpf-linker must know rustc's LLVM version as a feature";
    run::run(&mut cargo, remedy)?;
    fs::remove_dir_all(home.join("build")).context("removing bpf-linker's build folder")
}

/// Makes a folder that looks like an LLVM installation: the toolchain's library under the name the build looks for and
/// under its full name, which is the one the finished program asks the dynamic linker for.
fn link_llvm(toolchain: &Path, folder: &Path) -> Result<()> {
    let library = llvm_library(toolchain)?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let full_name = library.file_name().unwrap_or_default();
    for name in ["libLLVM.so".as_ref(), full_name] {
        let link = folder.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("removing the old {}", link.display()))?;
        }
        symlink(&library, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

fn llvm_library(toolchain: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(toolchain).with_context(|| format!("reading {}", toolchain.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so.")))
        .with_context(|| {
            format!("no libLLVM.so.* in {}; use a rustup toolchain, whose rustc carries its LLVM", toolchain.display())
        })
}
