//! Requests as operators see them end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_tests::edge::service_with;
use lb_tests::site::Site;
use lb_tests::visitor::Visitor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

const ROUTES: &str = "  - {path: /open/**, pool: shop, public: true}\n  - {path: /**, pool: shop}\n";
const ENDS_WITHIN: Duration = Duration::from_secs(20);

async fn site() -> Result<Option<Site>> {
    Site::open(|address, backend| Ok(service_with(address, backend, ROUTES))).await
}

/// A `tail` that runs.
struct Tail {
    process: Child,
    lines: UnboundedReceiver<String>,
}

impl Tail {
    fn start(site: &Site, arguments: &[&str]) -> Result<Tail> {
        let mut command = site.edge.command_line(&["tail"])?;
        let mut process = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = BufReader::new(process.stdout.take().context("a pipe")?);
        let (sender, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Tail { process, lines })
    }

    /// Asks for `paths` until it has shown `count` lines: those that end before it looks it cannot show.
    async fn shows(&mut self, site: &Site, paths: &[&str], count: usize) -> Result<Vec<String>> {
        let mut shown = Vec::new();
        for _ in 0..200 {
            for path in paths {
                Visitor::default().get(&site.url(path), &[("accept", "application/json")]).await?;
            }
            while let Ok(Some(line)) = timeout(Duration::from_millis(100), self.lines.recv()).await {
                shown.push(line);
            }
            if shown.len() >= count {
                return Ok(shown);
            }
        }
        bail!("of {count} lines there are {shown:?}")
    }

    /// Its code, and what it complained of.
    async fn ended(mut self) -> Result<(Option<i32>, String)> {
        let waiting = tokio::task::spawn_blocking(move || {
            let mut error = String::new();
            self.process.stderr.take().context("a pipe")?.read_to_string(&mut error)?;
            anyhow::Ok((self.process.wait()?.code(), error))
        });
        timeout(ENDS_WITHIN, waiting).await.context("it does not end")??
    }
}

#[tokio::test]
async fn requests_are_shown_as_they_end_to_each_who_looks_what_they_asked_for() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let paths = ["/open/one?token=secret", "/closed"];
    let mut all = Tail::start(&site, &["--json"])?;
    let mut refused = Tail::start(&site, &["--json", "--status", "4xx", "--decision", "log_in"])?;
    let lines = all.shows(&site, &paths, 2).await?;
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let open = lines.iter().find(|line| line["path"] == "/open/one").context("the first request")?;
    ensure!(open["status"] == 200 && open["route"] == "*/open/**" && open["decision"] == "allow", "{open}");
    ensure!(open["client"] == "127.0.0.1" && open["backend"].is_string() && open["duration_us"].is_u64(), "{open}");
    ensure!(!format!("{lines:?}").contains("secret"), "{lines:?}");
    for line in refused.shows(&site, &paths, 2).await? {
        let line: Value = serde_json::from_str(&line)?;
        ensure!(line["path"] == "/closed" && line["status"] == 401 && line["decision"] == "log_in", "{line}");
    }
    for tail in [all, refused] {
        kill(Pid::from_raw(i32::try_from(tail.process.id())?), Signal::SIGINT)?;
        let (code, error) = tail.ended().await?;
        ensure!(code == Some(0) && error.is_empty(), "Ctrl-C: {code:?} {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tail_ends_after_as_many_as_it_was_asked_for_and_when_its_controller_goes() -> Result<()> {
    let Some(site) = site().await? else { return Ok(()) };
    let mut few = Tail::start(&site, &["-n", "2", "--path", "/open"])?;
    let lines = few.shows(&site, &["/open/%E2%80%AE", "/closed"], 2).await?;
    ensure!(lines.iter().all(|line| line.contains(" 200 GET ") && line.contains("/open/%E2%80%AE")), "{lines:?}");
    ensure!(lines.len() == 2 && !lines.concat().contains('\u{1b}'), "colours in a pipe, or one too many: {lines:?}");
    let (code, error) = few.ended().await?;
    ensure!(code == Some(0) && error.is_empty(), "{code:?} {error}");

    let mut orphan = Tail::start(&site, &[])?;
    orphan.shows(&site, &["/open/two"], 1).await?;
    site.edge.command(&["stop"])?;
    let (code, error) = orphan.ended().await?;
    ensure!(code == Some(1) && error.contains("run the command again"), "{code:?} {error}");
    Ok(())
}
