//! `cargo xtask bench scale`: whether a request costs the same however much there is of everything else, here and with nginx.
//!
//! Cold sockets and shared CPUs cost any proxy something. So nginx is measured in the same rounds, and what counts is how much
//! more a request costs each of the two, and the one by the other.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::load::wrk;
use super::peers::{self, NGINX, OURS, Variant};
use super::subject::Subject;
use super::{Args, Home};
use crate::paths::{Profile, Workspace};
use crate::setup::{self, Purpose};
use crate::{build, run};

const MANY_ROUTES: u32 = 10_000;
const MANY_BACKENDS: u32 = 10_000;
/// For a connection to nearly each of so many, and less than one is kept idle.
const WARMING_SECONDS: u32 = 5;
const FIRST_PORT: u16 = 18_460;

/// Of [`variants`].
const WITH_MANY_BACKENDS: usize = 2;

/// Something there is more of, and what it is compared with.
struct Case {
    name: &'static str,
    what: &'static str,
    one: usize,
    more: usize,
}

/// Of [`variants`].
const CASES: [Case; 4] = [
    Case { name: "routes_10k", what: "ten thousand routes beside one", one: 0, more: 1 },
    Case {
        name: "backends_10k",
        what: "ten thousand backends beside one, each with a connection of its own",
        one: 0,
        more: 2,
    },
    Case {
        name: "workers_2_one_cpu",
        what: "two workers on one CPU beside one: each has half to do at a time",
        one: 0,
        more: 3,
    },
    Case {
        name: "workers_2_spread",
        what: "two workers on all CPUs beside one there: also what they share",
        one: 4,
        more: 5,
    },
];

/// Of one proxy, in the order of [`variants`], by round.
type Values = Vec<Vec<f64>>;

pub(in crate::bench) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure_for_l7_bench(workspace)?;
    build::all(workspace, Purpose::Build, Profile::Release)?;
    let home = Home::make(Workspace::find()?)?;
    let _backend = peers::backend(&home)?;
    let all = |proxy, first_port| -> Result<Vec<Subject>> {
        variants(&home, proxy, first_port).iter().map(|variant| variant.start(workspace, &home)).collect()
    };
    let ours = all(OURS, FIRST_PORT)?;
    let nginx = all(NGINX, FIRST_PORT + ours.len() as u16)?;
    let mut values: [Values; 2] = std::array::from_fn(|_| vec![Vec::new(); ours.len()]);
    for round in 1..=args.rounds {
        run::timed(&format!("Round {round} of {}", args.rounds), "each variant", || {
            for variant in 0..ours.len() {
                for (subjects, values) in [&ours, &nginx].into_iter().zip(&mut values) {
                    // Connections to thousands of backends are made at the first requests; they are not what is measured.
                    load(&home, &subjects[variant], WARMING_SECONDS)?;
                    values[variant].push(load(&home, &subjects[variant], args.seconds)?);
                    if variant == WITH_MANY_BACKENDS {
                        // The server of all has no descriptors for the connections of both.
                        subjects[variant].restart()?;
                    }
                }
            }
            Ok(())
        })?;
    }
    tell(workspace, &values)
}

fn variants(home: &Home, proxy: &'static str, first_port: u16) -> [Variant; 6] {
    let all_cpus = format!("{},{}", home.proxy_cpu, home.load_cpus);
    let names = match proxy {
        OURS => ["one", "routes", "backends", "workers", "anywhere", "spread"],
        _ => ["nginx-one", "nginx-routes", "nginx-backends", "nginx-workers", "nginx-anywhere", "nginx-spread"],
    };
    let plain = |index: usize| Variant {
        name: names[index],
        is_checked: false,
        ..Variant::plain(home, proxy, first_port + index as u16)
    };
    [
        plain(0),
        Variant { routes: MANY_ROUTES, ..plain(1) },
        Variant { backends: MANY_BACKENDS, ..plain(2) },
        Variant { workers: 2, ..plain(3) },
        Variant { cpus: all_cpus.clone(), ..plain(4) },
        Variant { cpus: all_cpus, workers: 2, ..plain(5) },
    ]
}

/// Microseconds of CPU for a request.
fn load(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    let before = subject.cpu_seconds()?;
    let answered = wrk(home, &format!("https://127.0.0.1:{}/1k", subject.port), 32, seconds, &[])?;
    Ok((subject.cpu_seconds()? - before) * 1e6 / answered.requests)
}

fn tell(workspace: &Workspace, values: &[Values; 2]) -> Result<()> {
    println!("\nµs of CPU for a request");
    let growths = ["lb one", "lb more", "growth", "nginx one", "more", "growth", "lb ÷ nginx"];
    println!("{:20}{}", "case", growths.map(|column| format!("{column:>12}")).concat());
    let mut rows = Vec::new();
    for Case { name, one, more, .. } in CASES {
        let [ours, nginx] = values.each_ref().map(|values| Growth::of(values, one, more));
        // Growth by growth in each round: what disturbed the one has disturbed the other.
        let by_round = |values: &Values| -> Vec<f64> {
            values[more].iter().zip(&values[one]).map(|(more, one)| more / one).collect()
        };
        let relative =
            median(by_round(&values[0]).iter().zip(by_round(&values[1])).map(|(ours, its)| ours / its).collect());
        print!("{name:20}");
        for Growth { one, more, ratio } in [&ours, &nginx] {
            print!("{one:>12.1}{more:>12.1}{ratio:>12.2}");
        }
        println!("{relative:>12.2}");
        rows.push(json!({"case": name, "lb": ours.json(), "nginx": nginx.json(), "growth_by_growth": relative}));
    }
    println!();
    for Case { name, what, .. } in CASES {
        println!("{name:20}{what}");
    }
    let json = workspace.target.join("bench/scale.json");
    fs::write(&json, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", json.display()))?;
    println!("\nalso in {}", json.display());
    Ok(())
}

/// What a request costs a proxy with one of something and with more, as medians.
struct Growth {
    one: f64,
    more: f64,
    ratio: f64,
}

impl Growth {
    fn of(values: &Values, one: usize, more: usize) -> Growth {
        let ratios = values[more].iter().zip(&values[one]).map(|(more, one)| more / one).collect();
        Growth { one: median(values[one].clone()), more: median(values[more].clone()), ratio: median(ratios) }
    }

    fn json(&self) -> serde_json::Value {
        json!({"one_us": self.one, "more_us": self.more, "ratio": self.ratio})
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
