//! Debian's `slowhttptest` before the real controller: clients that never come to an end take nobody else's place.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, free_address, service_with};
use lb_tests::{level, origin};

const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";

/// Of each attack at once.
const CONNECTIONS: &str = "300";

/// How long each would go on; it is ended when it has been seen.
const SECONDS: &str = "60";

const OPENS_WITHIN: Duration = Duration::from_secs(60);

fn lacking() -> Option<&'static str> {
    let has_tool = Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    Edge::lacking().or_else(|| (!has_tool).then_some("needs slowhttptest; run `cargo xtask setup`"))
}

/// An attack that ends with the value.
struct Attack(Child);

impl Attack {
    fn begin(url: &str, kind: &[&str]) -> Result<Attack> {
        let mut command = Command::new("slowhttptest");
        command.args(["-c", CONNECTIONS, "-r", "100", "-l", SECONDS, "-u", url]).args(kind);
        Ok(Attack(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status of an answer to an honest client.
fn asked(url: &str) -> Result<String> {
    let output = Command::new("curl")
        .args(["-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", url])
        .output()
        .context("curl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn open(edge: &Edge) -> Result<f64> {
    Ok(edge.metrics()?.sum("lb_connections_open"))
}

#[test]
fn slow_heads_bodies_and_readers_and_ranges_cost_nobody_else_an_answer() -> Result<()> {
    if level::is_skipped("peers", lacking()) {
        return Ok(());
    }
    let (address, plain) = (free_address()?, free_address()?);
    let text = service_with(address, origin::start_aside()?, ROUTES);
    let edge = Edge::start_with(address, &text, &["--listen-http".to_owned(), plain.to_string()])?;
    let (https, http) = (edge.url("/slow"), format!("http://{plain}/slow"));
    let rows: [(&str, &str, &[&str]); 5] = [
        ("slowloris", &https, &["-H", "-i", "1"]),
        ("slow bodies", &https, &["-B", "-i", "1", "-s", "8192"]),
        ("slow readers", &https, &["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "3"]),
        ("many ranges", &https, &["-R", "-a", "1", "-b", "2000"]),
        ("slowloris over plain HTTP", &http, &["-H", "-i", "1"]),
    ];
    for (what, url, kind) in rows {
        let attack = Attack::begin(url, kind)?;
        let deadline = Instant::now() + OPENS_WITHIN;
        // Ranges are answered and over at once; the others stay.
        while !what.contains("ranges") && open(&edge)? < 100.0 {
            ensure!(Instant::now() < deadline, "{what}: only {} connections\n{}", open(&edge)?, edge.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..5 {
            let status = asked(&edge.url("/mine"))?;
            ensure!(status == "200", "{what}: an honest client got {status}\n{}", edge.log());
        }
        let status = asked(&format!("http://{plain}/mine"))?;
        ensure!(status == "308", "{what}: over plain HTTP {status}");
        drop(attack);
    }
    let deadline = Instant::now() + OPENS_WITHIN;
    while open(&edge)? > 0.0 {
        ensure!(Instant::now() < deadline, "{} connections are left", open(&edge)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn one_source_that_opens_all_it_can_keeps_nobody_else_out() -> Result<()> {
    if level::is_skipped("peers", lacking()) {
        return Ok(());
    }
    let address = free_address()?;
    let trust = "proxy_protocol: {from: [127.0.0.2/32]}\nconnections: {per_source: 50}\n";
    let text = service_with(address, origin::start_aside()?, ROUTES) + trust;
    let edge = Edge::start_at(address, &text)?;
    let _attack = Attack::begin(&edge.url("/slow"), &["-H", "-i", "1"])?;
    let deadline = Instant::now() + OPENS_WITHIN;
    while edge.metrics()?.sum("lb_connections_refused_total") < 100.0 {
        ensure!(Instant::now() < deadline, "nothing is refused\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(open(&edge)? <= 51.0, "{} are open", open(&edge)?);
    // Somebody else, of whom a tier speaks; here it is the tier itself.
    let output = Command::new("curl")
        .args(["-sk", "--max-time", "20", "--interface", "127.0.0.2", "--haproxy-protocol"])
        .args(["-o", "/dev/null", "-w", "%{http_code}", &edge.url("/mine")])
        .output()?;
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(status == "200", "{status}\n{}", edge.log());
    Ok(())
}
