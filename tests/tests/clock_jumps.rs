//! The wall clock is set while an edge runs: an hour ahead, back, an hour behind. What waits by it must not wait for an hour.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{PASSWORD, USER, alice, service_with};
use lb_tests::openssl;
use lb_tests::site::{DOMAIN, Site};
use lb_tests::visitor::Visitor;
use lb_tests::wall_clock::WallClock;
use tempfile::TempDir;

const HOUR_SECONDS: i64 = 3600;
const ROUTES: &str = "  - {path: /**, pool: shop}\n  - {path: /open/**, pool: shop, public: true}\n";
const REST: &str = "step_up: {session_idle: 3h}
rules:
  - {id: slowly, match: {paths: [/slow/**]}, limit: {rate: 20/m, by: user}}
";

/// People who come all the time.
struct Crowd {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Crowd {
    fn of(site: &Site) -> Crowd {
        let (is_over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (url, over, count) = (site.url("/open/door"), is_over.clone(), answered.clone());
        let task = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let answer = Visitor::default().get(&url, &[]).await?;
                ensure!(answer.status == 200, "a stranger: {} {}", answer.status, answer.text());
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        Crowd { is_over, answered, task }
    }

    /// How many were answered; none was not.
    async fn end(self) -> Result<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

async fn site(clock: &WallClock) -> Result<Option<Site>> {
    Site::open_by(clock, |address, backend| {
        let service = service_with(address, backend, ROUTES);
        Ok([&service, &alice()?, REST].concat())
    })
    .await
}

/// Long enough for health checks and whatever else goes by a timer.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(4)).await;
}

async fn status(site: &Site, visitor: &mut Visitor, path: &str) -> Result<u16> {
    Ok(visitor.get(&site.url(path), &[]).await?.status.as_u16())
}

/// A wrong password twice: the second is not free.
async fn guess(site: &Site) -> Result<()> {
    for _ in 0..2 {
        let form = [("user", USER), ("password", "no such thing")];
        let answer = site.post_in_turn(&mut Visitor::default(), &site.url("/.lb/login"), &form).await?;
        ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    }
    Ok(())
}

/// Uses a limit up.
async fn use_up(site: &Site, visitor: &mut Visitor) -> Result<()> {
    for _ in 0..100 {
        if status(site, visitor, "/slow/door").await? == 429 {
            return Ok(());
        }
    }
    anyhow::bail!("no limit holds")
}

/// Nobody waits longer than they would by a clock that stands where it was; `what` has just happened to it.
async fn nobody_is_locked_out(site: &Site, alice: &mut Visitor, what: &str) -> Result<()> {
    let form = [("user", USER), ("password", PASSWORD)];
    let begin = Instant::now();
    let answer = site.post_in_turn(&mut Visitor::default(), &site.url("/.lb/login"), &form).await?;
    ensure!(answer.status == 200, "{what}: alice cannot log in: {} {}", answer.status, answer.text());
    ensure!(begin.elapsed() < Duration::from_secs(15), "{what}: she waited for {:?}", begin.elapsed());
    let answer = alice.get(&site.url("/slow/door"), &[]).await?;
    let wait: u64 = answer.header("retry-after").parse().unwrap_or_default();
    ensure!(answer.status == 200 || wait <= 60, "{what}: the limit lets her wait for {wait} s");
    Ok(())
}

fn resumes(site: &Site, option: &str, session: &Path) -> Result<bool> {
    let options = [option, session.to_str().context("a path")?];
    let connection = openssl::connect(site.edge.address, DOMAIN, "/open/door", &options)?;
    ensure!(connection.status()? == 200, "{}", connection.text());
    Ok(connection.is_resumed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_by_an_hour_and_back_costs_nobody_a_request_a_session_or_an_hour() -> Result<()> {
    let clock = WallClock::new()?;
    let Some(site) = site(&clock).await? else { return Ok(()) };
    let folder = TempDir::new()?;
    let ticket = folder.path().join("ticket");
    let mut alice = site.alice().await?;
    ensure!(!resumes(&site, "-sess_out", &ticket)?);
    let crowd = Crowd::of(&site);
    for (what, ahead_seconds) in
        [("ahead", HOUR_SECONDS), ("back again", 0), ("behind", -HOUR_SECONDS), ("where it was", 0)]
    {
        guess(&site).await?;
        use_up(&site, &mut alice).await?;
        let before = clock.read()?;
        clock.set_ahead_seconds(ahead_seconds)?;
        ensure!(clock.read()?.abs_diff(before) >= 3500, "{what}: the clock was not set");
        nobody_is_locked_out(&site, &mut alice, what).await?;
        ensure!(status(&site, &mut alice, "/inside").await? == 200, "{what}: alice's session is over");
        let mut newcomer = site.alice().await?;
        ensure!(status(&site, &mut newcomer, "/inside").await? == 200, "{what}: a new session is not one");
        resumes(&site, "-sess_in", &ticket)?;
        a_while().await;
        ensure!(status(&site, &mut newcomer, "/inside").await? == 200, "{what}: a new session does not last");
        ensure!(site.metric("lb_backend_up", "pool=\"shop\"")? == 1.0, "{what}: the backend is taken for down");
    }
    ensure!(resumes(&site, "-sess_in", &ticket)?, "a ticket of before is worth nothing");
    let answered = crowd.end().await?;
    ensure!(answered > 100, "{answered} strangers are no crowd");
    let log = site.edge.log();
    for word in ["panicked", "backend is unhealthy", "is left alone"] {
        ensure!(!log.contains(word), "{word}: {log}");
    }
    Ok(())
}
