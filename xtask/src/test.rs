//! `cargo xtask test`: every level, cheapest first, and one closing line that says how it went.

mod count;
mod level;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths::{Profile, Workspace};
use crate::setup::{Purpose, idp, promtool, python};
use crate::{build, demo, run};
use count::Count;
use level::Level;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this; the scene is left out then
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    prepare(&workspace)?;
    let mut count = Count::default();
    for level in Level::ALL {
        if level == Level::Scene && args.filter.is_some() {
            continue;
        }
        if let Err(lacking) = level.can_run() {
            skip(level, lacking, &mut count);
            continue;
        }
        eprintln!("==> Level {}: {}", level.name(), level.what());
        match level {
            Level::Scene => scene(&workspace, &mut count),
            _ => cargo_test(&workspace, level, args.filter.as_deref(), &mut count)?,
        }
    }
    println!("{count}");
    if count.failed > 0 { bail!("{} of the tests failed; they are named above", count.failed) } else { Ok(()) }
}

/// The tests start the real controller with the real object; both must be there before the first level.
fn prepare(workspace: &Workspace) -> Result<()> {
    // Without root nothing can be installed or mounted; the levels that need it are then skipped by name.
    let purpose = if run::is_root() { Purpose::Test } else { Purpose::Build };
    build::with_tests(workspace, purpose)
}

/// Never silently: a level that cannot run here must not look like one that passed. In CI it is a failure.
fn skip(level: Level, lacking: &str, count: &mut Count) {
    println!("SKIPPED: level {}: {lacking}", level.name());
    if std::env::var_os("CI").is_some() {
        println!("FAILED: in CI no level may be skipped");
        count.failed += 1;
    } else {
        count.skipped += 1;
    }
}

fn cargo_test(workspace: &Workspace, level: Level, filter: Option<&str>, count: &mut Count) -> Result<()> {
    for targets in level.targets(workspace)? {
        let mut cargo = workspace.cargo();
        // Nextest runs each test in a process of its own and all in parallel; doctests it does not know.
        if run::find_program("cargo-nextest").is_some() && !targets.iter().any(|target| target == "--doc") {
            cargo.args(["nextest", "run", "--no-fail-fast", "--no-tests", "pass"]);
        } else {
            cargo.args(["test", "--quiet", "--no-fail-fast"]);
        }
        // All of the workspace each time: another selection would mean other features, and compiling anew.
        cargo.arg("--workspace").args(&targets).args(filter);
        cargo.env("LB_CONTROLLER", workspace.binary("lb-controller", Profile::Dev));
        cargo.env("LB_OBJECT", workspace.ebpf_object());
        if let Some(python) = python::SCAPY.find(workspace) {
            cargo.env("LB_SCAPY_PYTHON", python);
        }
        if let Some(python) = python::AIOSMTPD.find(workspace) {
            cargo.env("LB_SMTP_PYTHON", python);
        }
        if let Some(python) = python::GRPC_HEALTH.find(workspace) {
            cargo.env("LB_GRPC_PYTHON", python);
        }
        if let Some(python) = python::WEBSOCKETS.find(workspace) {
            cargo.env("LB_WEBSOCKETS_PYTHON", python);
        }
        if let Some(idp) = idp::find(workspace) {
            cargo.env("LB_IDP_NODE", idp.node).env("LB_IDP_HOME", idp.home);
        }
        if let Some(promtool) = promtool::find(workspace) {
            cargo.env("LB_PROMTOOL", promtool);
        }
        cargo.env("LB_DRIVER", workspace.ebpf_built("lb-bench-ebpf"));
        let (seen, succeeded) = watch(&mut cargo)?;
        count.add(&seen);
        if !succeeded && seen.failed == 0 {
            println!("FAILED: `{}` did not get as far as running its tests", run::words(&cargo));
            count.failed += 1;
        }
    }
    Ok(())
}

/// Passes the output on as it comes, and counts what it says.
fn watch(cargo: &mut Command) -> Result<(Count, bool)> {
    // Nextest reports on standard error, cargo test on standard output.
    let (reader, writer) = std::io::pipe()?;
    let mut child = cargo.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command keeps its ends of the pipe; while they are open the reader would never come to the end.
    cargo.stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = Count::default();
    for line in BufReader::new(reader).lines() {
        let line = line.context("reading the tests' output")?;
        count.read(&line);
        println!("{line}");
    }
    Ok((count, child.wait()?.success()))
}

fn scene(workspace: &Workspace, count: &mut Count) {
    match demo::play(workspace, &demo::Args { check: true, ..demo::Args::default() }) {
        Ok(()) => count.passed += 1,
        Err(error) => {
            println!("FAILED: the scene: {error:#}");
            count.failed += 1;
        }
    }
}
