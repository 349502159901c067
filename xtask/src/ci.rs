//! `cargo xtask ci`: every check that a change must pass.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Workspace;
use crate::setup::{self, tool};
use crate::{run, test, tidy};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out `cargo xtask test`, for a caller that runs it next
    #[arg(long)]
    except_tests: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    setup::ensure_checkers(&workspace)?;
    check("Formatting", workspace.cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")?;
    // A workspace of its own, which `--all` does not see.
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    check("Formatting of fuzz targets", workspace.cargo().args(fuzz), "leave out `--check` to mend it")?;
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    check("Lints", workspace.cargo().args(lints), "mend what clippy names above")?;
    tidy::run()?;
    banned_crates(&workspace)?;
    dependencies(&workspace)?;
    if args.except_tests {
        return Ok(());
    }
    test::run(&test::Args::default())
}

/// Crates that deny.toml bans everywhere, looked for in what cargo would build: the one part of it that must hold where
/// cargo-deny is not installed. Cargo.lock would not do: it also names crates behind features that nobody turns on.
fn banned_crates(workspace: &Workspace) -> Result<()> {
    let deny = fs::read_to_string(workspace.root.join("deny.toml")).context("reading deny.toml")?;
    // The targets of deny.toml: for others, which nothing is built for, crates name other crates.
    let targets = ["--target", "x86_64-unknown-linux-gnu", "--target", "aarch64-unknown-linux-gnu"];
    let tree = ["tree", "--workspace", "--edges", "all", "--prefix", "none", "--format", "{p}"];
    let found = banned_among(&deny, &run::output(workspace.cargo().args(tree).args(targets))?);
    if !found.is_empty() {
        bail!("{} is banned; deny.toml says why, and `cargo tree -i NAME` who depends on it", found.join(", "));
    }
    Ok(())
}

/// Those of `tree`, a crate and its version a line, that `deny` bans without naming anybody who may use them.
fn banned_among<'d>(deny: &'d str, tree: &str) -> Vec<&'d str> {
    let entries = deny.lines().filter(|line| !line.contains("wrappers ="));
    let names = entries.filter_map(|line| line.trim_start().strip_prefix("{ crate = \"")?.split('"').next());
    names.filter(|name| tree.lines().any(|line| line.split(' ').next() == Some(name))).collect()
}

/// Bans, licences and sources; advisories need the network and their own pace.
fn dependencies(workspace: &Workspace) -> Result<()> {
    let Some(cargo_deny) = tool::CARGO_DENY.find(workspace) else {
        // Installing it takes longer than everything else here together.
        println!("SKIPPED: dependencies (bans, licences, sources): `cargo xtask setup --for ci` installs cargo-deny");
        return Ok(());
    };
    let mut deny = Command::new(cargo_deny);
    deny.current_dir(&workspace.root).args(["check", "bans", "licenses", "sources"]);
    check("Dependencies", &mut deny, "deny.toml says what is allowed, and why")
}

fn check(what: &str, command: &mut Command, remedy: &str) -> Result<()> {
    run::timed(what, "a while on a cold machine", || run::run(command, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_is_found_and_one_with_permitted_users_is_left_to_cargo_deny() {
        let deny = "deny = [\n    # Why.\n    { crate = \"ring\", reason = \"one library\" },\n    \
                    { crate = \"aya\", wrappers = [\"lb-datapath\"], reason = \"one writer\" },\n]\n";
        assert_eq!(banned_among(deny, "rustls v0.23.1\nring v0.17.0 (*)\naya v0.14.0\n"), ["ring"]);
        assert_eq!(banned_among(deny, "rustls v0.23.1\nstring v1.0.0\naya v0.14.0\n"), [""; 0]);
    }

    #[test]
    fn the_projects_own_list_is_read() {
        let deny = include_str!("../../deny.toml");
        assert_eq!(banned_among(deny, "ring v0.17.0\nopenssl v0.10.0\nnative-tls v0.2.0\n").len(), 3);
    }
}
