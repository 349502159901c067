//! `cargo xtask build`: the eBPF object, then the controller that carries it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

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
    let mut cargo = binaries(workspace, profile, targets);
    let about = match profile {
        Profile::Dev => "about 4 minutes the first time, then seconds",
        Profile::Release => "about 8 minutes the first time",
    };
    if profile == Profile::Release && workspace.trained_profile().is_file() {
        // Code that has changed since it was made is no mistake to be told of.
        let profile = format!("-Cprofile-use={}", profile_by_content(workspace)?.display());
        add_flags(&mut cargo, &[&profile, "-Cllvm-args=-no-pgo-warn-mismatch"]);
    }
    run::timed("Building the controller", about, || run::run(&mut cargo, "see the compiler's message above"))
}

/// A copy of the trained profile that is named by what is in it. Of crates from the registry, cargo compares flags, not the
/// files that they name: it would go on with what it has built by an older one. Of ours it compares the files' times as well,
/// so a copy that is there stays as it is.
fn profile_by_content(workspace: &Workspace) -> Result<PathBuf> {
    let trained = workspace.trained_profile();
    let content = fs::read(&trained).with_context(|| format!("reading {}", trained.display()))?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let copy = workspace.target.join(format!("trained-{:016x}.profdata", hasher.finish()));
    if !copy.is_file() {
        let aside = copy.with_extension("part");
        fs::create_dir_all(&workspace.target)
            .and_then(|()| fs::write(&aside, content))
            .and_then(|()| fs::rename(&aside, &copy))
            .with_context(|| format!("writing {}", copy.display()))?;
    }
    Ok(copy)
}

/// A release build that counts how often each of its branches is taken, in a target folder of its own. Returns the workspace
/// with that.
pub(crate) fn counting(workspace: &Workspace) -> Result<Workspace> {
    let linker = setup::ensure(workspace, Purpose::Build)?;
    ebpf_object(workspace, &linker)?;
    let training = workspace.with_target("training");
    let mut cargo = binaries(workspace, Profile::Release, &["--bins"]);
    cargo.arg("--target-dir").arg(&training.target);
    add_flags(&mut cargo, &["-Cprofile-generate"]);
    // Macros and build scripts count as well, to nobody's use.
    cargo.env("LLVM_PROFILE_FILE", "/dev/null");
    run::timed("Building a controller that counts", "about 10 minutes the first time", || {
        run::run(&mut cargo, "see the compiler's message above")
    })?;
    Ok(training)
}

/// Beside those that the user wants for every build. They are divided by 0x1f, which survives spaces in paths.
fn add_flags(cargo: &mut Command, flags: &[&str]) {
    let present = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_else(|_| {
        env::var("RUSTFLAGS").unwrap_or_default().split_whitespace().collect::<Vec<_>>().join("\x1f")
    });
    let all: Vec<&str> = present.split('\x1f').filter(|flag| !flag.is_empty()).chain(flags.iter().copied()).collect();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", all.join("\x1f"));
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
fn binaries(workspace: &Workspace, profile: Profile, targets: &[&str]) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--workspace", "--exclude", "xtask"]).args(targets);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo
}
