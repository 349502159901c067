//! What is measured of each proxy.

use anyhow::{Result, ensure};

use super::load::{self, h2load, wrk};
use super::peers::DIRECT_PORT;
use super::{Home, Subject};

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
    measure: fn(&Home, &Subject, u32) -> Result<f64>,
}

const PER_CPU_SECOND: &str = "requests per CPU-second";
const ADDED_AT_PER_SECOND: u32 = 2000;

pub(super) const ALL: &[Case] = &[
    Case { name: "h1", unit: PER_CPU_SECOND, more_is_better: true, measure: h1 },
    Case { name: "h2", unit: PER_CPU_SECOND, more_is_better: true, measure: h2 },
    Case { name: "handshake_full", unit: PER_CPU_SECOND, more_is_better: true, measure: handshake_full },
    Case { name: "handshake_resumed", unit: PER_CPU_SECOND, more_is_better: true, measure: handshake_resumed },
    Case { name: "body_1m", unit: PER_CPU_SECOND, more_is_better: true, measure: body_1m },
    Case { name: "idle_kib", unit: "KiB per TLS connection", more_is_better: false, measure: idle_kib },
    Case { name: "added_p50_us", unit: "µs at 2,000 requests per second", more_is_better: false, measure: added_p50 },
    Case { name: "added_p99_us", unit: "µs at 2,000 requests per second", more_is_better: false, measure: added_p99 },
];

impl Case {
    pub(super) fn measure(&self, home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
        (self.measure)(home, subject, seconds)
    }
}

/// 1 KiB from a backend with keepalive.
fn h1(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    per_cpu_second(subject, || Ok(wrk(home, &url(subject, "/1k"), 32, seconds, &[])?.requests))
}

fn h2(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    per_cpu_second(subject, || Ok(h2load(home, &url(subject, "/1k"), seconds)?.requests))
}

/// 1 KiB on a connection of its own that resumes no session.
fn handshake_full(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    per_cpu_second(subject, || load::handshakes(home, subject.port, seconds))
}

/// The same by wrk, which resumes the session that it has.
fn handshake_resumed(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    per_cpu_second(subject, || Ok(wrk(home, &url(subject, "/1k"), 16, seconds, &["Connection: close"])?.requests))
}

fn body_1m(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    per_cpu_second(subject, || Ok(wrk(home, &url(subject, "/1m"), 8, seconds, &[])?.requests))
}

/// What 1,000 connections that have had one answer each add to a proxy that was just started and has warmed up.
fn idle_kib(home: &Home, subject: &Subject, _seconds: u32) -> Result<f64> {
    const CONNECTIONS: usize = 1000;
    subject.restart()?;
    wrk(home, &url(subject, "/1k"), 4, 1, &[])?;
    let before = subject.resident_kib()?;
    let during = load::idle(home, &url(subject, "/1k"), CONNECTIONS, || subject.resident_kib())?;
    Ok(during.saturating_sub(before) as f64 / CONNECTIONS as f64)
}

fn added_p50(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    added(home, subject, seconds, 50)
}

fn added_p99(home: &Home, subject: &Subject, seconds: u32) -> Result<f64> {
    added(home, subject, seconds, 99)
}

/// Over a server without a proxy. The two take turns of a second, since how soon a CPU wakes up is another matter in each.
fn added(home: &Home, subject: &Subject, seconds: u32, percent: usize) -> Result<f64> {
    let rate = ["--per-second", &ADDED_AT_PER_SECOND.to_string()];
    let [mut direct, mut it] = [Vec::new(), Vec::new()];
    for _ in 0..2 * seconds {
        direct.extend(load::latencies(home, DIRECT_PORT, 1, &[&rate[..], &["--plain"]].concat())?);
        it.extend(load::latencies(home, subject.port, 1, &rate)?);
    }
    let [direct, it] = [direct, it].map(|mut latencies| {
        latencies.sort_unstable();
        latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)] as f64
    });
    Ok((it - direct).max(1.0))
}

fn per_cpu_second(subject: &Subject, load: impl FnOnce() -> Result<f64>) -> Result<f64> {
    let before = subject.cpu_seconds()?;
    let requests = load()?;
    let used = subject.cpu_seconds()? - before;
    ensure!(used > 0.1 && requests > 0.0, "{} used {used} s for {requests} requests: too little to tell", subject.name);
    Ok(requests / used)
}

fn url(subject: &Subject, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", subject.port)
}
