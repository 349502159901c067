//! `cargo xtask bench soak`: load of every kind in turns, and memory that must not grow.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::load::{self, h2load, wrk};
use super::{Args, Home, Subject, peers};
use crate::build;
use crate::paths::{Profile, Workspace};
use crate::setup::{self, Purpose};

/// Seconds of each kind of load in a turn.
const SECONDS: u32 = 5;

/// What the last third of the samples may have more than the one before: allocators give memory back when it suits them.
const SLACK_KIB: u64 = 2 * 1024;

/// Longer than connections to backends are kept idle.
const REST: Duration = Duration::from_secs(45);

/// At the end of a turn.
#[derive(Clone, Copy, Debug)]
struct Sample {
    after_seconds: u64,
    requests: u64,
    resident_kib: u64,
    descriptors: u64,
}

impl Sample {
    fn row(&self) -> Value {
        json!({
            "after_seconds": self.after_seconds,
            "requests": self.requests,
            "resident_kib": self.resident_kib,
            "descriptors": self.descriptors,
        })
    }
}

pub(in crate::bench) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure_for_l7_bench(workspace)?;
    build::all(workspace, Purpose::Build, Profile::Release)?;
    let home = Home::make(Workspace::find()?)?;
    let _backend = peers::backend(&home)?;
    let subject = peers::ours(workspace, &home)?;
    let before = subject.descriptors()?;
    let samples = load_for(&home, &subject, Duration::from_secs(args.minutes * 60))?;
    let json = workspace.target.join("bench/soak.json");
    let rows: Vec<Value> = samples.iter().map(Sample::row).collect();
    fs::write(&json, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", json.display()))?;
    println!("\nalso in {}", json.display());
    judge(&samples)?;
    // Under load connections to backends come and go by the hundred; at rest none may be left.
    std::thread::sleep(REST);
    let after = subject.descriptors()?;
    ensure!(after <= before + 8, "descriptors are left open: {before} before the load, {after} long after it");
    println!("open descriptors: {before} before the load, {after} after a rest");
    Ok(())
}

fn load_for(home: &Home, subject: &Subject, long: Duration) -> Result<Vec<Sample>> {
    let (began, mut samples) = (Instant::now(), Vec::<Sample>::new());
    println!("{:>9}{:>14}{:>12}{:>14}", "seconds", "requests", "KiB", "descriptors");
    while began.elapsed() < long || samples.len() < 3 {
        let requests = samples.last().map_or(0, |sample| sample.requests) + turn(home, subject)?;
        let (resident_kib, descriptors) = (subject.resident_kib()?, subject.descriptors()?);
        let sample = Sample { after_seconds: began.elapsed().as_secs(), requests, resident_kib, descriptors };
        println!("{:>9}{requests:>14}{resident_kib:>12}{descriptors:>14}", sample.after_seconds);
        samples.push(sample);
    }
    Ok(samples)
}

/// Each kind of load once; how many requests were answered, each of them well.
fn turn(home: &Home, subject: &Subject) -> Result<u64> {
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", subject.port);
    let answered = [
        wrk(home, &url("/1k"), 256, SECONDS, &[])?,
        h2load(home, &url("/1k"), SECONDS)?,
        wrk(home, &url("/1k"), 16, SECONDS, &["Connection: close"])?,
        wrk(home, &url("/1m"), 8, SECONDS, &[])?,
    ];
    load::idle(home, &url("/1k"), 500, || Ok(()))?;
    Ok(answered.iter().map(|answered| answered.requests as u64).sum())
}

/// The last third against the one before; the first is warming up.
fn judge(samples: &[Sample]) -> Result<()> {
    let third = samples.len() / 3;
    let middle = |from: usize, to: usize| {
        let mut values: Vec<u64> = samples[from..to].iter().map(|sample| sample.resident_kib).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (before, after) = (middle(third, 2 * third), middle(2 * third, samples.len()));
    ensure!(
        after <= before + before / 20 + SLACK_KIB,
        "memory grows: {before} KiB in the second third, {after} in the last"
    );
    println!("KiB of memory: {before} in the second third, {after} in the last");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident_kib: [u64; 6]) -> Vec<Sample> {
        let sample = |(at, resident_kib): (usize, u64)| Sample {
            after_seconds: at as u64,
            requests: 1,
            resident_kib,
            descriptors: 1,
        };
        resident_kib.into_iter().enumerate().map(sample).collect()
    }

    #[test]
    fn what_grows_after_warming_up_fails_and_what_stays_does_not() {
        for (what, samples, passes) in [
            ("flat", samples([50_000, 60_000, 60_000, 61_000, 60_500, 61_000]), true),
            ("warming up", samples([10_000, 90_000, 90_000, 91_000, 90_500, 91_000]), true),
            ("a leak", samples([50_000, 60_000, 70_000, 80_000, 90_000, 99_000]), false),
        ] {
            assert_eq!(judge(&samples).is_ok(), passes, "{what}");
        }
    }
}
