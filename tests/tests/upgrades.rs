//! The running controller is exchanged, and its configuration, under load: no request fails, what goes on goes on, and an
//! upgrade that comes to nothing changes nothing.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::client::{Client, Protocol};
use lb_tests::edge::{Edge, RULES, alice, service_with};
use lb_tests::load::Load;
use lb_tests::site::Site;
use lb_tests::websocket::{self, CLOSE, Frame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Exit codes (see `lb-controller --help`).
const CONFIG: i32 = 3;
const ALREADY_RUNNING: i32 = 9;

const HAPPENS_WITHIN: Duration = Duration::from_secs(60);

fn configuration(address: SocketAddr, backend: SocketAddr, more: &str) -> Result<String> {
    let routes = "  - {path: /open/**, pool: shop, public: true}\n  - {path: /**, pool: shop}\n";
    // On a machine that tests much at once strangers would be left out first.
    let calm = "overload: {queueing_delay: 0}\n";
    Ok([&service_with(address, backend, routes), &alice()?, RULES, calm, more].concat())
}

/// A site of this file, or none where there is no controller.
struct Stage {
    site: Site,
    backend: SocketAddr,
}

impl Stage {
    async fn open(more: &'static str) -> Result<Option<Stage>> {
        let mut of_backend = None;
        let site = Site::open_apart(|address, backend| {
            of_backend = Some(backend);
            configuration(address, backend, more)
        })
        .await?;
        let Some(site) = site else { return Ok(None) };
        Ok(Some(Stage { site, backend: of_backend.context("it was configured")? }))
    }

    fn edge(&self) -> &Edge {
        &self.site.edge
    }

    fn client(&self) -> Client {
        Client { edge: self.edge().address, authority: None, cookie: String::new() }
    }

    /// Another configuration: something in it differs each time.
    fn reload(&self, turn: usize) -> Result<()> {
        let more = format!("trusted_origins: [\"https://turn-{turn}.example\"]\n");
        self.edge().reconfigure(&configuration(self.edge().address, self.backend, &more)?)
    }

    fn upgrade(&self) -> Result<u32> {
        self.edge().upgrade()
    }

    /// Starts a process that takes over, in the background and by itself.
    fn takeover(&self, log: &str) -> Result<std::process::Child> {
        let config = self.edge().configuration_file();
        let mut run = self.edge().tool(&["run", "--takeover", "--listen", &self.edge().address.to_string()])?;
        let log = std::fs::File::create(self.edge().state_dir().join(log))?;
        run.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(run.spawn()?)
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut tool = self.edge().tool(arguments)?;
        Ok(tool.output()?)
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + HAPPENS_WITHIN;
    while !is_so() {
        ensure!(Instant::now() < deadline, "not within {HAPPENS_WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn lives(process: u32) -> bool {
    // One that has ended and that nobody waited for yet lives no more.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// `cargo xtask bench change` asks for a million requests, 20 reloads and 5 upgrades.
#[tokio::test]
async fn no_request_fails_over_reloads_and_upgrades() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    let (requests, reloads, upgrades) =
        (number("LB_CHANGE_REQUESTS", 20_000), number("LB_CHANGE_RELOADS", 3), number("LB_CHANGE_UPGRADES", 2));
    let load = Load::begin(&stage.client(), "/open/orders", 4);
    let changes = reloads + upgrades;
    let between = requests / (changes + 1);
    let mut upgraded = 0;
    for turn in 0..changes {
        load.goes_on(between)?;
        if (turn + 1) * upgrades / changes > upgraded {
            stage.upgrade()?;
            upgraded += 1;
        } else {
            stage.reload(turn as usize)?;
        }
    }
    load.goes_on(requests.saturating_sub(load.answered()))?;
    let outcome = load.finish()?;
    let generation = stage.edge().controller()?["generation"].as_u64();
    println!(
        "{} of {} requests failed over {reloads} reloads and {upgrades} upgrades, on {} connections",
        outcome.failed,
        outcome.answered + outcome.failed,
        outcome.connections
    );
    ensure!(outcome.failed == 0, "{} failed: {:?}", outcome.failed, outcome.told);
    ensure!(outcome.answered >= requests && generation == Some(upgrades + 1), "{outcome:?}, {generation:?}");
    Ok(())
}

#[tokio::test]
async fn a_websocket_and_a_slow_upload_go_on_through_a_reload_and_an_upgrade() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    let old = stage.edge().serving_process_id()?;
    let mut tunnel = stage.client().open_websocket("/open/ws", &[]).await?;
    let mut upload = stage.client().begin_upload("/open/stream").await?;
    upload.exchange("before").await?;
    stage.reload(1)?;
    upload.exchange("after the reload").await?;
    let new = stage.upgrade()?;
    ensure!(new != old, "another process serves");
    for round in 0..3_u8 {
        let message = Frame { opcode: websocket::TEXT, payload: vec![b'a' + round; 1_000] };
        websocket::write(&mut tunnel, &message, Some([1, 2, 3, 4])).await?;
        ensure!(websocket::read(&mut tunnel).await? == Some(message), "no echo after the upgrade");
        upload.exchange("after the upgrade").await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    eventually("the old process is shown as draining", || {
        let draining = stage.edge().controller().map(|controller| controller["draining"].clone()).unwrap_or_default();
        draining[0]["pid"] == old && draining[0]["connections"].as_u64() >= Some(2)
    })
    .await?;
    upload.finish().await?;
    drop(tunnel);
    eventually("the old process ends with its last connection", || !lives(old)).await?;
    eventually("and is not shown any more", || {
        stage.edge().controller().is_ok_and(|controller| controller["draining"].as_array().is_some_and(Vec::is_empty))
    })
    .await
}

#[tokio::test]
async fn an_upgrade_that_cannot_start_says_why_and_changes_nothing() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    load.goes_on(200)?;
    let old = stage.edge().serving_process_id()?;
    let file = stage.edge().configuration_file();
    let good = std::fs::read_to_string(&file)?;
    for (name, bad, code) in [
        ("a mistake", good.replace("pools:", "pols:"), CONFIG),
        ("no certificate", format!("{good}certificates: {{certificate: /nowhere.pem, key: /nowhere.key}}\n"), 10),
    ] {
        std::fs::write(&file, bad)?;
        let output = stage.output(&["upgrade"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code), "{name}: {} {said}", output.status);
        ensure!(said.contains(&format!("controller {old} goes on")), "{name}: {said}");
        load.goes_on(200)?;
    }
    std::fs::write(&file, good)?;
    ensure!(stage.edge().serving_process_id()? == old);
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_takes_over_costs_no_request_and_no_proof() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    let old = stage.edge().serving_process_id()?;
    let load = Load::begin(&stage.client(), "/open/orders", 2);
    // What the old process says is known at once; a process that is held answers nobody, not even its predecessor.
    let taken_over = || stage.edge().log().matches("a new process has taken over").count();
    // From before it has asked for anything until it is done.
    let mut old = old;
    for pause_ms in [5, 30, 60, 90, 120, 160, 220, 300, 400] {
        let mut taker = stage.takeover(&format!("killed-{pause_ms}"))?;
        let process = Pid::from_raw(taker.id() as i32);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        kill(process, Signal::SIGSTOP)?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let is_done = taken_over() > 0;
        if is_done {
            kill(process, Signal::SIGCONT)?;
            eventually("it serves", || stage.edge().serving_process_id().is_ok_and(|id| id == taker.id())).await?;
            old = stage.edge().note_successor()?;
        } else {
            taker.kill()?;
            taker.wait()?;
        }
        load.goes_on(50)?;
        ensure!(stage.edge().serving_process_id()? == old, "after {pause_ms} ms");
        if is_done {
            break;
        }
    }
    let outcome = load.finish()?;
    ensure!(outcome.failed == 0, "{outcome:?}");
    // The store is the old process's again: a proof is written down.
    let _ = stage.site.alice().await?;
    let new = stage.upgrade()?;
    ensure!(new != old);
    Ok(())
}

#[tokio::test]
async fn of_two_upgrades_at_once_the_second_is_refused() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    let mut first = stage.takeover("first")?;
    let log = stage.edge().state_dir().join("first");
    eventually("the first takes over", || {
        let begun = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("taking over"));
        begun && kill(Pid::from_raw(first.id() as i32), Signal::SIGSTOP).is_ok()
    })
    .await?;
    let is_done = std::fs::read_to_string(&log)?.contains("serving");
    let second = stage.output(&["upgrade"])?;
    kill(Pid::from_raw(first.id() as i32), Signal::SIGCONT)?;
    if !is_done {
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        ensure!(second.status.code() == Some(ALREADY_RUNNING), "{} {said}", second.status);
        ensure!(said.contains("taking over already"), "{said}");
    }
    eventually("the first goes on", || stage.edge().serving_process_id().is_ok_and(|id| id == first.id())).await?;
    kill(Pid::from_raw(first.id() as i32), Signal::SIGTERM)?;
    first.wait()?;
    Ok(())
}

#[tokio::test]
async fn a_login_that_ends_in_the_new_process_ends_streams_in_the_old_one() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    let mut alice = stage.site.alice().await?;
    let mut tunnel = stage.site.client(&mut alice).open_websocket("/ws", &[]).await?;
    let mut uploading = stage.site.client(&mut alice).begin_upload("/stream").await?;
    uploading.exchange("as alice").await?;
    stage.upgrade()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let message = Frame { opcode: websocket::TEXT, payload: vec![b'x'; 100] };
    websocket::write(&mut tunnel, &message, Some([1, 2, 3, 4])).await?;
    ensure!(websocket::read(&mut tunnel).await? == Some(message), "it goes on while the login lasts");
    let answer = alice.post(&stage.site.url("/.lb/logout"), &[], &[]).await?;
    ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
    let close = tokio::time::timeout(Duration::from_secs(10), websocket::read(&mut tunnel)).await;
    let close = close.context("it goes on after the logout")??.context("closed without a word")?;
    ensure!(close.opcode == CLOSE && close.payload[..2] == 3000_u16.to_be_bytes(), "{close:?}");
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_gets_one_more_answer_and_proofs_are_sent_to_the_new_process() -> Result<()> {
    let Some(stage) = Stage::open("").await? else { return Ok(()) };
    // What is let through is answered; what the new process must say is asked of it, on another connection.
    for (path, status, location) in [("/open/orders", 200, None), ("/.lb/login", 307, Some("/.lb/login"))] {
        let mut kept = stage.client().keep(Protocol::Http1).await?;
        ensure!(kept.get("/open/orders").await?.status() == 200);
        stage.upgrade()?;
        let answer = kept.get(path).await?;
        ensure!(answer.status() == status, "{path}: {}", answer.status());
        ensure!(answer.headers()["connection"] == "close", "{path}: {:?}", answer.headers());
        let said = answer.headers().get("location").map(|value| value.to_str()).transpose()?;
        ensure!(said == location.map(|path| stage.edge().url(path)).as_deref(), "{path}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn old_processes_end_at_their_deadline_and_do_not_pile_up() -> Result<()> {
    let Some(stage) = Stage::open("drain: {on_upgrade: 1h, generations: 1}\n").await? else { return Ok(()) };
    let mut processes = vec![stage.edge().serving_process_id()?];
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        tunnels.push(stage.client().open_websocket("/open/ws", &[]).await?);
        processes.push(stage.upgrade()?);
    }
    let (served, drained) = (processes[3], processes[2]);
    eventually("but one of the replaced end, though they have tunnels", || {
        processes[..2].iter().all(|process| !lives(*process))
    })
    .await?;
    ensure!(lives(served) && lives(drained), "the last two go on");
    let mut shorter = stage.client().open_websocket("/open/ws", &[]).await?;
    let text = configuration(stage.edge().address, stage.backend, "drain: {on_upgrade: 1s}\n")?;
    stage.edge().reconfigure(&text)?;
    stage.upgrade()?;
    eventually("a deadline ends the process", || !lives(served)).await?;
    ensure!(websocket::read(&mut shorter).await.is_ok_and(|frame| frame.is_none_or(|frame| frame.opcode == CLOSE)));
    Ok(())
}
