//! `cargo xtask load`, `unload` and `status`: an edge on a real interface, from the source tree.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use crate::paths::{Profile, Workspace};
use crate::run;
use crate::setup::Purpose;

/// Attaching and the first start's keys take well under a second; a slow disk gets a chance.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    /// Attach XDP to this interface; repeat for several
    #[arg(long = "iface", value_name = "IFACE", required = true)]
    interfaces: Vec<String>,
    /// The configuration file; the controller follows it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// `debug` shows the XDP program's lines in the controller's log
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Optimise the controller
    #[arg(long)]
    release: bool,
}

#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Builds, starts the controller in a session of its own, and returns once it answers.
pub(crate) fn load(args: &LoadArgs) -> Result<()> {
    ensure!(run::is_root(), "loading XDP needs root; run this as root, or `cargo xtask demo` for L7 alone");
    let workspace = Workspace::find()?;
    let profile = Profile::from_flag(args.release);
    build::all(&workspace, Purpose::Demo, profile)?;
    let controller = workspace.binary("lb-controller", profile);
    // What is wrong with the file is better said here than in a log.
    let check = Command::new(&controller).arg("check").arg(&args.config).status().context("checking the file")?;
    ensure!(check.success(), "nothing was loaded");
    if answers(&controller) {
        bail!("a controller is running already; `cargo xtask unload` stops it and removes its programs");
    }
    let log = workspace.target.join("lb-controller.log");
    let mut child = start_detached(&controller, args, &log)?;
    wait_until_it_answers(&mut child, &controller, &log)?;
    println!("The edge runs as process {}; its log is {}", child.id(), log.display());
    println!("See it with `cargo xtask status`, end it with `cargo xtask unload`.");
    Ok(())
}

/// Stops the controller, then detaches and removes everything it pinned.
pub(crate) fn unload() -> Result<()> {
    let controller = newest_controller(&Workspace::find()?)?;
    if answers(&controller) {
        run::run(Command::new(&controller).arg("stop"), "see its log in target/lb-controller.log")?;
    }
    run::run(Command::new(&controller).arg("unload"), "see the message above")
}

pub(crate) fn status(args: &StatusArgs) -> Result<()> {
    let controller = newest_controller(&Workspace::find()?)?;
    let mut status = Command::new(&controller);
    status.arg("status").args(args.json.then_some("--json"));
    // Taking this process's place hands its exit code and its terminal on unchanged.
    Err(status.exec()).with_context(|| format!("starting {}", controller.display()))
}

fn start_detached(controller: &Path, args: &LoadArgs, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("opening the log {}", log.display()))?;
    // A session of its own, so that closing this terminal does not end the edge.
    let mut command = Command::new("setsid");
    command.arg(controller).args(["run", "--log-level", &args.log_level, "--config"]).arg(&args.config);
    command.args(args.interfaces.iter().flat_map(|interface| ["--iface", interface]));
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().context("starting `setsid`, of the package util-linux")
}

fn wait_until_it_answers(child: &mut Child, controller: &Path, log: &Path) -> Result<()> {
    let deadline = Instant::now() + STARTS_WITHIN;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            bail!("the controller ended ({status}):\n{}", std::fs::read_to_string(log).unwrap_or_default().trim());
        }
        if answers(controller) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the controller does not answer after {STARTS_WITHIN:?}; see {}", log.display())
}

/// Whether a controller, and not only its pinned maps, answers.
fn answers(controller: &Path) -> bool {
    let status = run::output(Command::new(controller).args(["status", "--json"]));
    let status = status.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    status.is_some_and(|status| status["controller"].is_object())
}

fn newest_controller(workspace: &Workspace) -> Result<PathBuf> {
    let built = [Profile::Dev, Profile::Release].map(|profile| workspace.binary("lb-controller", profile));
    let age = |file: &PathBuf| file.metadata().and_then(|metadata| metadata.modified()).ok();
    built
        .into_iter()
        .filter(|file| age(file).is_some())
        .max_by_key(age)
        .context("the controller is not built; `cargo xtask build` builds it")
}
