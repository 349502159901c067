//! `cargo xtask demo`: a whole edge with clients before and backends behind it, made of nothing and gone without trace.

mod account;
mod check;
mod claim;
mod curl;
mod interrupt;
mod place;
mod process;
mod scene;
mod status;
mod tidings;
mod topology;
mod welcome;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};

use crate::paths::{Profile, Workspace};
use crate::setup::Purpose;
use crate::{build, run};
use claim::Claim;
use interrupt::Interrupt;
use place::Place;
use scene::Scene;
use tidings::Tidings;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Optimise the controller
    #[arg(long)]
    pub(crate) release: bool,
    /// Drive the scene unattended, one line a step; fail at the first step that fails
    #[arg(long)]
    pub(crate) check: bool,
    /// With --check: only the steps whose number or sentence contains this (those they build on must be among them)
    #[arg(long, value_name = "TEXT", requires = "check")]
    pub(crate) only: Option<String>,
    /// The L7 part alone on loopback, as without root
    #[arg(long, conflicts_with = "check")]
    pub(crate) loopback: bool,
    /// Show the controller's log here at this level, the XDP program's lines included, instead of in a file
    #[arg(long, value_name = "LEVEL", conflicts_with = "check")]
    pub(crate) log_level: Option<String>,
}

impl Args {
    fn place(&self) -> Place {
        if self.loopback { Place::Loopback } else { Place::for_this_user() }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let purpose = if args.place() == Place::Namespaces { Purpose::Demo } else { Purpose::Build };
    build::all(&workspace, purpose, Profile::from_flag(args.release))?;
    play(&workspace, args)
}

/// What is built already is shown.
pub(crate) fn play(workspace: &Workspace, args: &Args) -> Result<()> {
    let place = args.place();
    if args.check && place == Place::Loopback {
        bail!("`demo --check` drives the whole scene, XDP included, and that needs root");
    }
    // From here on Ctrl-C is ours; until here it simply ends the build.
    let interrupt = Interrupt::watch()?;
    let claim = Claim::take(&place.home(workspace))?;
    remove(place)?;
    let outcome = live(workspace, place, args, &interrupt);
    let removed = remove(place).and_then(|()| claim.give_up());
    outcome.and(removed)?;
    if args.check {
        check::nothing_remains()?;
    }
    Ok(())
}

fn live(workspace: &Workspace, place: Place, args: &Args, interrupt: &Interrupt) -> Result<()> {
    if place == Place::Namespaces {
        topology::up()?;
    }
    let mut scene = Scene::new(workspace, place, args, interrupt.clone())?;
    scene.start()?;
    let outcome = if args.check {
        check::run(&mut scene, args.only.as_deref())
    } else {
        welcome::print(&scene)?;
        tell_until_interrupted(&mut scene, interrupt)
    };
    eprintln!("==> Removing the demo");
    outcome.and(scene.stop())
}

/// Whoever edits the rules sees here what became of it.
fn tell_until_interrupted(scene: &mut Scene, interrupt: &Interrupt) -> Result<()> {
    let mut tidings = scene.controllers_log().map(|log| Tidings::from_now(&log)).transpose()?;
    interrupt.wait(|| {
        for said in tidings.as_mut().map(Tidings::next).transpose()?.into_iter().flatten() {
            println!("\n{said}");
        }
        scene.still_runs()
    })
}

/// Whatever is there of a scene: this one's end, or the leftovers of one that was killed.
fn remove(place: Place) -> Result<()> {
    match place {
        Place::Namespaces => topology::down().and_then(|()| topology::remove_pins()),
        Place::Loopback => remove_runtime_folder(place),
    }
}

/// Where a controller that root runs keeps its socket; elsewhere the folder is the user's session's.
fn remove_runtime_folder(place: Place) -> Result<()> {
    match fs::remove_dir_all(Path::new("/run").join(place.instance())) {
        Err(error) if run::is_root() && error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
