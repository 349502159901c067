//! Load from wrk, h2load and our own lb-bench, and what they say of it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Home;
use crate::paths::Profile;
use crate::run;

/// For wrk: one request on each connection, one after the other, then silence.
pub(super) const IDLE_SCRIPT: &str = "\
local sent = 0
function delay()
  sent = sent + 1
  if sent <= CONNECTIONS then return 2 * sent end
  return 600000
end
";

/// What was answered, and how long it took.
pub(super) struct Answered {
    pub(super) requests: f64,
}

fn pinned(home: &Home, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &home.load_cpus, program]);
    // Of `cargo xtask train`: what loads may count its branches as well, and nobody asks for that.
    command.env("LLVM_PROFILE_FILE", "/dev/null");
    command
}

/// HTTP/1.1 with keepalive, or with a handshake for each request.
pub(super) fn wrk(home: &Home, url: &str, connections: usize, seconds: u32, headers: &[&str]) -> Result<Answered> {
    let mut wrk = pinned(home, "wrk");
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    for header in headers {
        wrk.args(["-H", header]);
    }
    answered_to_wrk(&run::output(wrk.arg(url))?)
}

fn answered_to_wrk(said: &str) -> Result<Answered> {
    let bad = said.lines().find(|line| line.contains("Non-2xx"));
    ensure!(bad.is_none(), "wrk: {}", bad.unwrap_or_default().trim());
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    Ok(Answered { requests: requests.with_context(|| format!("wrk said no number of requests:\n{said}"))? })
}

/// How many requests were answered that each began with a full handshake.
pub(super) fn handshakes(home: &Home, port: u16, seconds: u32) -> Result<f64> {
    let said = our_own(home, "handshakes", port, seconds, &[])?;
    said.trim().parse().with_context(|| format!("lb-bench said no number of requests: {said}"))
}

/// Latencies in microseconds of HTTP/1.1 requests at a steady rate, at times that chance picks.
pub(super) fn latencies(home: &Home, port: u16, seconds: u32, how: &[&str]) -> Result<Vec<u64>> {
    let said = our_own(home, "latencies", port, seconds, how)?;
    let latencies: Result<Vec<u64>, _> = said.lines().map(str::parse).collect();
    latencies.ok().filter(|all| !all.is_empty()).with_context(|| format!("lb-bench said no latencies: {said}"))
}

/// A load that no program of Debian's makes.
fn our_own(home: &Home, load: &str, port: u16, seconds: u32, how: &[&str]) -> Result<String> {
    let bench = home.workspace.binary("lb-bench", Profile::Release);
    let mut bench = pinned(home, &bench.display().to_string());
    let (to, seconds) = (format!("127.0.0.1:{port}"), seconds.to_string());
    bench.args([load, "--path", "/1k", "--to", &to, "--seconds", &seconds]).args(how);
    run::output(&mut bench)
}

/// HTTP/2: 8 connections with 32 streams each.
pub(super) fn h2load(home: &Home, url: &str, seconds: u32) -> Result<Answered> {
    let mut h2load = pinned(home, "h2load");
    h2load.args(["-t1", "-c8", "-m32", &format!("-D{seconds}")]).arg(url);
    let said = run::output(&mut h2load)?;
    let status = said.lines().find_map(|line| line.strip_prefix("status codes: ")).unwrap_or_default();
    let good = status.split_once(" 2xx").and_then(|(number, _)| number.parse().ok());
    ensure!(status.contains(" 0 4xx, 0 5xx") || status.contains("0 3xx, 0 4xx, 0 5xx"), "h2load: {status}");
    Ok(Answered { requests: good.with_context(|| format!("h2load said no status codes:\n{said}"))? })
}

/// Opens connections, sends one request on each and leaves them open; `look` is called meanwhile.
pub(super) fn idle<T>(home: &Home, url: &str, connections: usize, look: impl FnOnce() -> Result<T>) -> Result<T> {
    const SECONDS: u64 = 6;
    let script = home.write("idle.lua", &IDLE_SCRIPT.replace("CONNECTIONS", &connections.to_string()))?;
    let mut wrk = pinned(home, "wrk");
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "-s"]).arg(script).arg(url);
    wrk.stdout(std::process::Stdio::null());
    let mut child = wrk.spawn().context("starting wrk")?;
    std::thread::sleep(std::time::Duration::from_secs(SECONDS - 2));
    let seen = look();
    ensure!(child.wait()?.success(), "wrk failed");
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_requests_is_read_and_a_bad_answer_is_an_error() {
        let said = "Running 1s test\n  1234 requests in 1.00s, 1.86MB read\nRequests/sec:   1234.0\n";
        assert_eq!(answered_to_wrk(said).unwrap().requests, 1234.0);
        let bad = said.to_owned() + "  Non-2xx or 3xx responses: 7\n";
        assert!(answered_to_wrk(&bad).err().unwrap().to_string().contains("7"));
        assert!(answered_to_wrk("").is_err());
    }
}
