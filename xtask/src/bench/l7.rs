//! `cargo xtask bench l7`: this proxy beside nginx, HAProxy and Envoy, in one run.
//!
//! Each proxy has one worker on one CPU; the load and the backend have the others. Rounds take turns: every case is
//! measured with every proxy before any is measured again, so that a slow moment of the machine hits all of them. What
//! counts is work per second of the proxy's own CPU, not per second: on a shared machine the one is steady, the other not.
//! The ratios are what to compare.

mod cases;
mod load;
mod peers;
mod report;
mod scale;
mod soak;
mod subject;
mod training;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths::{Profile, Workspace};
use crate::setup::{self, Purpose};
use crate::{build, run};
use cases::Case;
use subject::Subject;

pub(super) use scale::run as scale;
pub(super) use soak::run as soak;
pub(crate) use training::run as train;

#[derive(Clone, Debug, clap::Args)]
#[group(id = "l7")]
pub(crate) struct Args {
    /// For `l7` and `scale`: the median of this many rounds is told
    #[arg(long, default_value_t = 7, value_name = "N")]
    rounds: usize,
    /// For `l7` and `scale`: how long each proxy is loaded in each case and round
    #[arg(long, default_value_t = 2, value_name = "N")]
    seconds: u32,
    /// For `soak`: how long the load goes on
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// For `l7`: only the cases whose name contains this
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,
}

/// All measured values of a case and subject, in the order of the rounds.
type Values = BTreeMap<(&'static str, &'static str), Vec<f64>>;

pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure_for_l7_bench(workspace)?;
    build::all(workspace, Purpose::Build, Profile::Release)?;
    let home = Home::make(Workspace::find()?)?;
    let (_backend, _direct) = (peers::backend(&home)?, peers::in_place_of_a_proxy(&home)?);
    let subjects = peers::all(workspace, &home)?;
    let cases: Vec<&Case> = cases::ALL.iter().filter(|case| case.name.contains(&args.only)).collect();
    let values = measure(&home, &subjects, &cases, args)?;
    print!("{}", report::table(&cases, &values));
    let json = workspace.target.join("bench/l7.json");
    report::write(&json, &cases, &values)?;
    println!("\nalso in {}", json.display());
    Ok(())
}

fn measure(home: &Home, subjects: &[Subject], cases: &[&Case], args: &Args) -> Result<Values> {
    let mut values = Values::new();
    for round in 1..=args.rounds {
        run::timed(&format!("Round {round} of {}", args.rounds), "each proxy in each case", || {
            for (case, subject) in cases.iter().flat_map(|case| subjects.iter().map(move |subject| (case, subject))) {
                let value = case.measure(home, subject, args.seconds);
                let value = value.with_context(|| format!("{} of {}", case.name, subject.name))?;
                values.entry((case.name, subject.name)).or_default().push(value);
            }
            Ok(())
        })?;
    }
    Ok(values)
}

/// Configurations, certificates and logs of the benchmark.
pub(super) struct Home {
    workspace: Workspace,
    folder: PathBuf,
    /// A list of CPUs as taskset takes it: of the proxies, and of everything else.
    proxy_cpu: &'static str,
    load_cpus: String,
}

impl Home {
    fn make(workspace: Workspace) -> Result<Home> {
        let folder = workspace.target.join("bench/l7");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        anyhow::ensure!(cpus >= 2, "proxy and load need a CPU each; this machine has one");
        let home = Home { workspace, folder, proxy_cpu: "0", load_cpus: format!("1-{}", cpus - 1) };
        home.certificate()?;
        Ok(home)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// P-256, as most certificates are by now.
    fn certificate(&self) -> Result<()> {
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        openssl.args(["-subj", "/CN=bench.example", "-addext", "subjectAltName=DNS:bench.example,IP:127.0.0.1"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        run::output(&mut openssl)?;
        let both = [fs::read_to_string(&certificate)?, fs::read_to_string(&key)?].concat();
        self.write("both.pem", &both).map(drop)
    }

    fn text(path: &Path) -> String {
        path.display().to_string()
    }
}
