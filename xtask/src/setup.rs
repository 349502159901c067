//! `cargo xtask setup`: provides what is lacking and touches nothing that is there. Quick when nothing lacks.

mod bpffs;
pub(crate) mod idp;
mod linker;
mod packages;
pub(crate) mod peers;
pub(crate) mod promtool;
pub(crate) mod python;
pub(crate) mod tool;
mod toolchain;

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::paths::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the machine is to be made ready for
    #[arg(long = "for", value_name = "PURPOSE", default_value = "test")]
    purpose: Purpose,
}

/// What the machine is to be made ready for; each needs what the ones before it need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Building the eBPF object and the controller
    Build,
    /// The demo: network namespaces and a client
    Demo,
    /// All test levels, a headless browser included
    Test,
    /// `cargo xtask ci` with the check of dependencies, whose tool takes minutes to install
    Ci,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let linker = ensure(&Workspace::find()?, args.purpose)?;
    eprintln!("Ready for {:?}; bpf-linker is {}", args.purpose, linker.display());
    Ok(())
}

/// Makes the machine ready and returns the path of the matching bpf-linker.
pub(crate) fn ensure(workspace: &Workspace, purpose: Purpose) -> Result<PathBuf> {
    let _alone = alone(workspace)?;
    // Packages first: the linker below is compiled, and a machine without a C compiler cannot link it.
    packages::ensure(purpose)?;
    toolchain::ensure(workspace, &["rust-src"])?;
    if purpose >= Purpose::Demo {
        bpffs::ensure()?;
    }
    if purpose >= Purpose::Test {
        python::SCAPY.ensure(workspace)?;
        python::AIOSMTPD.ensure(workspace)?;
        python::GRPC_HEALTH.ensure(workspace)?;
        python::WEBSOCKETS.ensure(workspace)?;
        idp::ensure(workspace)?;
        promtool::provide(workspace)?;
    }
    if purpose >= Purpose::Ci {
        tool::CARGO_DENY.ensure(workspace)?;
    }
    linker::ensure(workspace)
}

/// Two at once would build into one folder, and the one that is done first would take it from under the other. Ends with
/// the file.
fn alone(workspace: &Workspace) -> Result<File> {
    let path = workspace.tools().join("setup.lock");
    fs::create_dir_all(workspace.tools()).with_context(|| format!("creating {}", workspace.tools().display()))?;
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("==> Waiting for another setup of this checkout to end"),
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("locking {}", path.display())),
    }
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Provides what fuzzing needs and returns the path of cargo-fuzz.
pub(crate) fn ensure_fuzzer(workspace: &Workspace) -> Result<PathBuf> {
    let _alone = alone(workspace)?;
    packages::ensure_for_fuzzing()?;
    tool::CARGO_FUZZ.ensure(workspace)
}

/// Provides the proxies and the load of `cargo xtask bench l7`.
pub(crate) fn ensure_for_l7_bench(workspace: &Workspace) -> Result<()> {
    let _alone = alone(workspace)?;
    packages::ensure_for_l7_bench()?;
    peers::ensure(workspace)
}

/// What loads a controller that counts, and what reads its counts.
pub(crate) fn ensure_for_training(workspace: &Workspace) -> Result<()> {
    ensure_for_l7_bench(workspace)?;
    toolchain::ensure(workspace, &["llvm-tools"])
}

/// Merges what programs have counted.
pub(crate) fn profile_tool(workspace: &Workspace) -> Result<PathBuf> {
    toolchain::Compiler::probe(workspace)?.tool("llvm-profdata")
}

/// Adds the toolchain's own tools that `cargo xtask ci` calls.
pub(crate) fn ensure_checkers(workspace: &Workspace) -> Result<()> {
    toolchain::ensure(workspace, &["clippy", "rustfmt"])
}
