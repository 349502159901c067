//! `cargo xtask bench scale`: whether a request costs the same however much there is of everything else.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::load::wrk;
use super::peers::{self, Variant};
use super::subject::Subject;
use super::{Args, Home};
use crate::paths::{Profile, Workspace};
use crate::setup::{self, Purpose};
use crate::{build, run};

const MANY_ROUTES: u32 = 10_000;
/// As many as a configuration may have.
const MANY_BACKENDS: u32 = 4_096;
/// For a connection to nearly each of so many, and less than one is kept idle.
const WARMING_SECONDS: u32 = 5;
const FIRST_PORT: u16 = 18_460;

/// Something there is more of, and what it is compared with.
struct Case {
    name: &'static str,
    one: usize,
    more: usize,
}

/// Of [`subjects`].
const CASES: [Case; 3] = [
    Case { name: "routes_10k", one: 0, more: 1 },
    Case { name: "backends_4k", one: 0, more: 2 },
    Case { name: "workers_2", one: 3, more: 4 },
];

pub(in crate::bench) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure_for_l7_bench(workspace)?;
    build::all(workspace, Purpose::Build, Profile::Release)?;
    let home = Home::make(Workspace::find()?)?;
    let _backend = peers::backend(&home)?;
    let subjects = subjects(workspace, &home)?;
    let mut values: Vec<Vec<f64>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 1..=args.rounds {
        run::timed(&format!("Round {round} of {}", args.rounds), "each variant", || {
            for (subject, values) in subjects.iter().zip(&mut values) {
                // Connections to thousands of backends are made at the first requests; they are not what is measured.
                load(&home, subject, WARMING_SECONDS)?;
                values.push(load(&home, subject, args.seconds)?);
            }
            Ok(())
        })?;
    }
    tell(workspace, &values)
}

fn subjects(workspace: &Workspace, home: &Home) -> Result<Vec<Subject>> {
    let all_cpus = format!("{},{}", home.proxy_cpu, home.load_cpus);
    let plain = |name, index| Variant { is_checked: false, ..Variant::plain(home, name, FIRST_PORT + index) };
    [
        plain("one", 0),
        Variant { routes: MANY_ROUTES, ..plain("routes", 1) },
        Variant { backends: MANY_BACKENDS, ..plain("backends", 2) },
        Variant { cpus: all_cpus.clone(), ..plain("anywhere", 3) },
        Variant { cpus: all_cpus, workers: 2, ..plain("workers", 4) },
    ]
    .iter()
    .map(|variant| variant.start(workspace, home))
    .collect()
}

/// Microseconds of CPU for a request.
fn load(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    let before = subject.cpu_seconds()?;
    let answered = wrk(home, &format!("https://127.0.0.1:{}/1k", subject.port), 32, seconds, &[])?;
    Ok((subject.cpu_seconds()? - before) * 1e6 / answered.requests)
}

fn tell(workspace: &Workspace, values: &[Vec<f64>]) -> Result<()> {
    println!("\n{:14}{:>12}{:>12}{:>8}  µs of CPU for a request", "case", "one", "more", "ratio");
    let mut rows = Vec::new();
    for Case { name, one, more } in CASES {
        let ratios = values[more].iter().zip(&values[one]).map(|(more, one)| more / one).collect();
        let (one, more, ratio) = (median(values[one].clone()), median(values[more].clone()), median(ratios));
        println!("{name:14}{one:>12.1}{more:>12.1}{ratio:>8.2}");
        rows.push(json!({"case": name, "one_us": one, "more_us": more, "ratio": ratio}));
    }
    let json = workspace.target.join("bench/scale.json");
    fs::write(&json, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", json.display()))?;
    println!("\nalso in {}", json.display());
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
