//! Point 2: a flood is limited, by source, and only the flood.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Step;
use crate::demo::place::Host;
use crate::demo::scene::Scene;
use crate::demo::status::Status;
use crate::demo::topology::CLIENT_ADDRESS;
use crate::run;

pub(super) const STEPS: &[Step] = &[
    Step {
        number: "2.1",
        sentence: "a flooding client is limited within a second while another client's requests all succeed",
        run: one_source,
    },
    Step { number: "2.2", sentence: "Prometheus shows the drops by reason and by class of source", run: in_metrics },
    Step {
        number: "2.3",
        sentence: "at level debug the XDP program's own lines are in the controller's log",
        run: in_log,
    },
];

/// A SYN flood in the background. Its number and time are bounded, and dropping it ends it.
pub(super) struct Flood(Child);

impl Flood {
    pub(super) fn start(
        scene: &Scene,
        first_source: &str,
        sources: u32,
        packets_per_second: u32,
        seconds: u32,
    ) -> Result<Flood> {
        let mut flood = scene.peer(Host::Client);
        flood.args(["flood", "--to", &scene.place.edge().to_string(), "--first-source", first_source]);
        flood.args(["--sources", &sources.to_string(), "--packets-per-second", &packets_per_second.to_string()]);
        flood.args(["--seconds", &seconds.to_string()]).stdout(Stdio::piped());
        Ok(Flood(flood.spawn().context("starting the flood")?))
    }

    pub(super) fn goes_on(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// Waits for its end and returns how many packets left.
    pub(super) fn sent(mut self) -> Result<u64> {
        let mut text = String::new();
        let output = self.0.stdout.take().context("a pipe was asked for")?;
        std::io::read_to_string(output).map(|read| text = read)?;
        ensure!(self.0.wait()?.success(), "the flood failed");
        text.trim().parse().with_context(|| format!("the flood printed {text:?}"))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn one_source(scene: &mut Scene) -> Result<()> {
    let before = Status::read(scene)?.dropped("source_limit", "unknown");
    let begun = Instant::now();
    let mut flood = Flood::start(scene, CLIENT_ADDRESS, 1, 10_000, 4)?;
    scene.eventually("the first drop", Duration::from_secs(1), |scene| {
        let dropped = Status::read(scene)?.dropped("source_limit", "unknown") - before;
        ensure!(dropped > 0, "nothing was dropped for the source's limit");
        Ok(())
    })?;
    ensure!(begun.elapsed() < Duration::from_millis(1500), "the first drop was seen after {:?}", begun.elapsed());
    let mut requests = 0;
    while flood.goes_on()? {
        scene
            .curl(Host::Machine)
            .get("/open/hello")
            .and_then(|answer| answer.expect_status(200))
            .with_context(|| format!("the other client's request after {requests} good ones, during the flood"))?;
        requests += 1;
    }
    let sent = flood.sent()?;
    let dropped = Status::read(scene)?.dropped("source_limit", "unknown") - before;
    ensure!(requests >= 10, "only {requests} requests of the other client were made during the flood");
    ensure!(dropped * 2 > sent, "of {sent} packets of the flood only {dropped} were dropped");
    Ok(())
}

fn in_metrics(scene: &mut Scene) -> Result<()> {
    let metrics = metrics(scene)?;
    let drops = |line: &&str| line.contains("reason=\"source_limit\"") && line.contains("class=\"unknown\"");
    let line = metrics.lines().find(drops).context("no metric has reason=\"source_limit\" and class=\"unknown\"")?;
    ensure!(!line.ends_with(" 0"), "{line}");
    Ok(())
}

/// Lines take the way ring buffer, log reader, tracing; one of them follows the flood within moments.
fn in_log(scene: &mut Scene) -> Result<()> {
    let log = scene.log("controller");
    scene.eventually("a line of the XDP program", Duration::from_secs(3), |_| {
        let text = std::fs::read_to_string(&log)?;
        let told = |line: &str| line.contains(r#""target":"xdp""#) && line.contains(CLIENT_ADDRESS);
        ensure!(text.lines().any(told), "no line of target xdp names {CLIENT_ADDRESS}");
        Ok(())
    })
}

fn metrics(scene: &Scene) -> Result<String> {
    let mut curl: Command = scene.place.command(Host::Edge, "curl");
    run::output(curl.args(["-sS", "--fail", "--max-time", "5", "http://127.0.0.1:9090/metrics"]))
}
