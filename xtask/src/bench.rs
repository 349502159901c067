//! `cargo xtask bench`: the numbers of the README, measured on this machine.

mod capacity;
mod change;
mod l7;
mod policy;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::paths::{Profile, Workspace};
use crate::setup::Purpose;
use crate::{build, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(default_value = "l4")]
    what: What,

    /// For `capacity`: nanoseconds that the card's driver spends on a packet
    #[arg(long, default_value_t = 30.0, value_name = "NS")]
    driver_ns: f64,

    #[command(flatten)]
    l7: l7::Args,

    #[command(flatten)]
    change: change::Args,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Nanoseconds per packet of the XDP program beside a floor, in the kernel's own runner; also in target/bench/l4.json
    L4,
    /// What those numbers mean for links of 10, 25 and 100 Gbit/s
    Capacity,
    /// This proxy beside nginx, HAProxy and Envoy: work per second of CPU, memory and latency; also in target/bench/l7.json
    L7,
    /// What a request costs this proxy with ten thousand routes, with ten thousand backends and with two workers, beside
    /// one of each, and what it costs nginx; also in target/bench/scale.json
    Scale,
    /// This proxy under load of every kind for minutes: fails if its memory or its descriptors grow; also in
    /// target/bench/soak.json
    Soak,
    /// How many requests fail while the configuration and the process are exchanged under load
    Change,
    /// Nanoseconds of a decision with one rule and with ten thousand, and of a session cookie; also in
    /// target/bench/policy.json
    Policy,
}

pub(crate) use l7::train;

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let json = workspace.target.join("bench/l4.json");
    match args.what {
        What::L4 => l4(&workspace, &json),
        What::L7 => l7::run(&workspace, &args.l7),
        What::Scale => l7::scale(&workspace, &args.l7),
        What::Soak => l7::soak(&workspace, &args.l7),
        What::Change => change::run(&workspace, &args.change),
        What::Policy => policy::run(&workspace),
        What::Capacity => capacity::run(&json, args.driver_ns),
    }
}

fn l4(workspace: &Workspace, json: &Path) -> Result<()> {
    ensure!(run::is_root(), "running XDP programs needs root");
    // The measured program runs in the kernel and is always optimised; the measuring one need not be.
    build::all(workspace, Purpose::Demo, Profile::Dev)?;
    let mut bench = Command::new(workspace.binary("lb-bench", Profile::Dev));
    bench.arg("l4").arg("--driver").arg(workspace.ebpf_built("lb-bench-ebpf"));
    bench.arg("--output").arg(json);
    run::run(&mut bench, "see the message above")
}
