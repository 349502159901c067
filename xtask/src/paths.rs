//! Where things are: the workspace, its target folder, and what the builds leave in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// The folders of this workspace.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where cargo builds: `target` unless `CARGO_TARGET_DIR` or a cargo configuration file says otherwise.
    pub(crate) target: PathBuf,
    /// Tools built for this project alone; nothing is put into the user's `~/.cargo/bin`.
    tools: PathBuf,
}

impl Workspace {
    /// Asks cargo, because only cargo knows all the places that can move the target folder.
    pub(crate) fn find() -> Result<Workspace> {
        let metadata = run::output(cargo_in(manifest_dir()).args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("`cargo metadata` printed no JSON")?;
        let folder = |key: &str| -> Result<PathBuf> {
            Ok(metadata[key].as_str().with_context(|| format!("`cargo metadata` names no {key}"))?.into())
        };
        let target = folder("target_directory")?;
        Ok(Workspace { root: folder("workspace_root")?, tools: target.join("tools"), target })
    }

    /// The same with another target folder, for builds with other flags, which would rebuild everything at each turn.
    pub(crate) fn with_target(&self, name: &str) -> Workspace {
        Workspace { target: self.target.join(name), ..self.clone() }
    }

    /// Where a controller under load spends its time; see `cargo xtask train`.
    pub(crate) fn trained_profile(&self) -> PathBuf {
        self.root.join("lb-controller/trained.profdata")
    }

    /// A `cargo` that runs at the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        cargo_in(&self.root)
    }

    pub(crate) fn tools(&self) -> PathBuf {
        self.tools.clone()
    }

    /// The eBPF object that the controller's build picks up.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/bpfel-unknown-none/ebpf/lb-ebpf")
    }

    /// Where the eBPF objects are built: a target folder of their own, because other flags in the shared one would
    /// rebuild everything at each turn.
    pub(crate) fn ebpf_build(&self) -> PathBuf {
        self.target.join("ebpf-build")
    }

    /// An eBPF object as built, such as `lb-bench-ebpf`.
    pub(crate) fn ebpf_built(&self, name: &str) -> PathBuf {
        self.ebpf_build().join("bpfel-unknown-none/ebpf").join(name)
    }

    /// A binary of this workspace, such as `lb-controller`.
    pub(crate) fn binary(&self, name: &str, profile: Profile) -> PathBuf {
        self.target.join(profile.folder()).join(name)
    }
}

/// How the user-space binaries are built. The eBPF object has a profile of its own, always optimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn from_flag(release: bool) -> Profile {
        if release { Profile::Release } else { Profile::Dev }
    }

    fn folder(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }
}

fn cargo_in(folder: impl AsRef<Path>) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder);
    // What cargo tells `cargo xtask` about the xtask package must not reach the builds it starts: build scripts that
    // watch these variables would run again and again.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        cargo.env_remove(name);
    }
    cargo
}

fn manifest_dir() -> PathBuf {
    // cargo sets the variable; the compiled-in place serves when the binary is started by hand.
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}
