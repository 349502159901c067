//! `cargo xtask bench change`: the row of `tests/tests/upgrades.rs`, with as many requests as it takes to believe it.

use anyhow::Result;

use crate::paths::{Profile, Workspace};
use crate::setup::Purpose;
use crate::{build, run};

#[derive(Clone, Debug, clap::Args)]
#[group(id = "change")]
pub(crate) struct Args {
    /// For `change`: requests over HTTP/1.1 and h2, on kept connections
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    requests: u64,
    /// For `change`: new configurations meanwhile
    #[arg(long, default_value_t = 20, value_name = "N")]
    reloads: u64,
    /// For `change`: new processes meanwhile
    #[arg(long, default_value_t = 5, value_name = "N")]
    upgrades: u64,
}

pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    build::all(workspace, Purpose::Build, Profile::Release)?;
    // The client may be as slow as it is: what is counted is requests that fail.
    build::with_tests(workspace, Purpose::Test)?;
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--exclude", "xtask", "--test", "upgrades", "--", "--exact", "--nocapture"]);
    cargo.arg("no_request_fails_over_reloads_and_upgrades");
    cargo.env("LB_CONTROLLER", workspace.binary("lb-controller", Profile::Release));
    for (name, value) in [("REQUESTS", args.requests), ("RELOADS", args.reloads), ("UPGRADES", args.upgrades)] {
        cargo.env(format!("LB_CHANGE_{name}"), value.to_string());
    }
    run::run(&mut cargo, "a request failed; see above")
}
