//! `cargo xtask fuzz`: random bytes for every parser of outside bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Workspace;
use crate::{run, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One of the files in fuzz/fuzz_targets; all of them unless given
    target: Option<String>,
    /// How long to run each target
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
}

/// A single input that takes longer is an attack by itself; libFuzzer would wait 20 minutes.
const INPUT_SECONDS_AT_MOST: u32 = 5;

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let targets = chosen(targets(&workspace.root)?, args.target.as_deref())?;
    let cargo_fuzz = setup::ensure_fuzzer(&workspace)?;
    run::timed("Building the fuzz targets", "about 5 minutes the first time", || {
        run::run(&mut fuzz(&workspace, &cargo_fuzz, "build"), "see the compiler's message above")
    })?;
    for target in &targets {
        let what = format!("Fuzzing {target}");
        let inputs = run::timed(&what, &format!("{} s", args.seconds), || {
            attack(&mut attacker(&workspace, &cargo_fuzz, target, args.seconds)?, target)
        })?;
        eprintln!("    {inputs} inputs");
    }
    eprintln!("{} fuzz targets ran {} s each and nothing fell", targets.len(), args.seconds);
    Ok(())
}

/// The names of all targets, in order.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let names = entries.flatten().filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

fn chosen(all: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>> {
    let Some(wanted) = wanted else { return Ok(all) };
    if !all.iter().any(|name| name == wanted) {
        bail!("there is no fuzz target {wanted}; there are {}", all.join(", "));
    }
    Ok(vec![wanted.to_owned()])
}

/// The pinned stable compiler is enough: coverage comes from `-C passes`, a stable flag, and only sanitizers would need
/// a nightly one. Those would find little: no crate of ours that is fuzzed may use `unsafe`.
fn fuzz(workspace: &Workspace, cargo_fuzz: &Path, command: &str) -> Command {
    let mut fuzz = Command::new(cargo_fuzz);
    fuzz.current_dir(&workspace.root).args([command, "--sanitizer", "none", "--target-dir"]);
    fuzz.arg(workspace.target.join("fuzz"));
    fuzz
}

/// Returns how many inputs were tried. What libFuzzer says is shown only if one of them broke something: otherwise it is
/// pages of mutations that it found useful.
fn attack(attacker: &mut Command, target: &str) -> Result<u64> {
    let output = attacker.output().with_context(|| format!("`{}` could not be started", run::words(attacker)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{said}");
        bail!("{target} fell; the input is in fuzz/artifacts/{target}: make it a row of a test");
    }
    let counted = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    counted.and_then(|number| number.trim().parse().ok()).with_context(|| format!("{target} tried no input:\n{said}"))
}

/// Starts from the seeds in the repository and from what earlier runs found, which stays below the target folder.
fn attacker(workspace: &Workspace, cargo_fuzz: &Path, target: &str, seconds: u32) -> Result<Command> {
    let found = workspace.target.join("fuzz/corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let mut fuzz = fuzz(workspace, cargo_fuzz, "run");
    fuzz.arg(target).arg(found).arg(workspace.root.join("fuzz/seeds").join(target)).arg("--");
    fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS_AT_MOST}"));
    fuzz.args(["-verbosity=0", "-print_final_stats=1"]);
    Ok(fuzz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds_and_is_named_in_the_manifest() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let targets = targets(&root).unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
            assert!(fs::read_dir(root.join("fuzz/seeds").join(&target)).unwrap().next().is_some(), "{target}");
        }
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_names_there_are() {
        let all = || vec!["body".to_owned(), "path".to_owned()];
        assert_eq!(chosen(all(), None).unwrap(), all());
        assert_eq!(chosen(all(), Some("path")).unwrap(), ["path"]);
        assert_eq!(
            chosen(all(), Some("x")).unwrap_err().to_string(),
            "there is no fuzz target x; there are body, path"
        );
    }
}
