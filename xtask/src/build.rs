//! `cargo xtask build`: the eBPF object, then the controller that carries it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths::{Profile, Workspace};
use crate::run;
use crate::setup::{self, Purpose};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimise the controller (slow to build; the eBPF object is optimised either way)
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let profile = Profile::from_flag(args.release);
    all(&workspace, Purpose::Build, profile)?;
    eprintln!("Built {}", workspace.binary("lb-controller", profile).display());
    Ok(())
}

/// Everything from a fresh clone to runnable binaries: setup, eBPF object, controller, and lb-peer for the demo.
pub(crate) fn all(workspace: &Workspace, purpose: Purpose, profile: Profile) -> Result<()> {
    build(workspace, purpose, profile, &["--bins"])
}

/// The same with the tests. Tests turn on features of shared dependencies: the binaries that they start are built with
/// those too, or most of the workspace would be compiled twice.
pub(crate) fn with_tests(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    build(workspace, purpose, Profile::Dev, &["--bins", "--tests"])
}

fn build(workspace: &Workspace, purpose: Purpose, profile: Profile, targets: &[&str]) -> Result<()> {
    let linker = setup::ensure(workspace, purpose)?;
    ebpf_object(workspace, &linker)?;
    binaries(workspace, profile, targets)
}

/// Compiles lb-ebpf for the kernel with the workspace's own stable toolchain.
fn ebpf_object(workspace: &Workspace, linker: &Path) -> Result<()> {
    // Flags separated by 0x1f survive spaces in the linker's path. `--btf` keeps type information for the verifier's
    // messages and for the map definitions.
    // Without misaligned access the headers, which begin two bytes off, would be read a byte at a time; x86-64 and
    // arm64 kernels allow it. Version 3 has 32-bit arithmetic and jumps (Linux 5.1).
    let code = "-Ctarget-cpu=v3\x1f-Clink-arg=--cpu-features=+allows-misaligned-mem-access";
    let flags = format!("-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f{code}\x1f-Clinker={}", linker.display());
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", "lb-ebpf", "--profile", "ebpf", "--target", "bpfel-unknown-none"]);
    // The kernel's target has no prebuilt `core`. Building it is an unstable cargo feature, opened here for this one
    // invocation only; the compiler is still the stable one.
    cargo.args(["-Z", "build-std=core"]).env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags);
    cargo.arg("--target-dir").arg(workspace.ebpf_build());
    run::timed("Building the eBPF object", "about 25 s the first time, then 1 s", || {
        run::run(&mut cargo, "see the compiler's message above")
    })?;
    publish(&workspace.ebpf_built("lb-ebpf"), &workspace.ebpf_object())
}

/// Copies the object to where lb-datapath's build looks for it, if it is another one. That build watches the folder, and
/// cargo touches its own output folder at every run: watching that would build the controller anew each time.
fn publish(built: &Path, published: &Path) -> Result<()> {
    let object = fs::read(built).with_context(|| format!("cargo succeeded, yet {} cannot be read", built.display()))?;
    if fs::read(published).is_ok_and(|present| present == object) {
        return Ok(());
    }
    let folder = published.parent().context("the object has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // Renamed into place, so that a build that runs beside this one never reads half an object.
    let draft = published.with_extension("new");
    fs::write(&draft, object).with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, published).with_context(|| format!("writing {}", published.display()))
}

/// Always the whole workspace: another selection of packages would mean other features of shared dependencies, and
/// compiling them anew at every turn. Not xtask, which is running.
fn binaries(workspace: &Workspace, profile: Profile, targets: &[&str]) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--workspace", "--exclude", "xtask"]).args(targets);
    let about = match profile {
        Profile::Dev => "about 4 minutes the first time, then seconds",
        Profile::Release => "about 8 minutes the first time",
    };
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    run::timed("Building the controller", about, || run::run(&mut cargo, "see the compiler's message above"))
}
