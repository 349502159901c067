//! `cargo xtask train`: tells the optimiser of release builds where this controller spends its time.
//!
//! A controller that counts its own branches is built, beside the others, and loaded as `cargo xtask bench l7` loads it and
//! with ten thousand routes; what it counted is kept in the repository and read by every release build (decision 76).
//! Functions that have changed since are compiled as ever, so an old profile is worth less, and never wrong.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bench;
use crate::paths::Workspace;
use crate::{build, run, setup};

pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    setup::ensure_for_training(&workspace)?;
    let training = build::counting(&workspace)?;
    let counts = training.target.join("counts");
    if counts.is_dir() {
        fs::remove_dir_all(&counts).with_context(|| format!("removing {}", counts.display()))?;
    }
    bench::train(&training, &counts)?;
    merge(&workspace, &counts)
}

fn merge(workspace: &Workspace, counts: &Path) -> Result<()> {
    let profile = workspace.trained_profile();
    let mut files = Vec::new();
    for entry in fs::read_dir(counts).with_context(|| format!("reading {}", counts.display()))? {
        files.push(entry?.path());
    }
    ensure!(!files.is_empty(), "the controller has counted nothing; see its logs in {}", counts.display());
    let mut merge = Command::new(setup::profile_tool(workspace)?);
    merge.args(["merge", "--sparse", "--output"]).arg(&profile).args(files);
    run::run(&mut merge, "the component llvm-tools of another compiler cannot read what this one's programs write")?;
    eprintln!("Wrote {}; the next release build reads it", profile.display());
    Ok(())
}
