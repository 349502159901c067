//! More is asked than can be answered: strangers are left out, and whoever logs in or proves something is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_tests::crowd::Crowd;
use lb_tests::edge::{Edge, PASSWORD, USER, totp_code};
use lb_tests::federated::Federated;
use lb_tests::level;
use lb_tests::signing_key::unique;
use lb_tests::site::{DOMAIN, Plan, Site};
use lb_tests::visitor::{Answer, Visitor};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WITHIN: Duration = Duration::from_secs(60);

const ROUTES: &str = "routes:\n  - {path: /open/**, pool: shop, public: true}\n  - {path: /**, pool: shop}\n";

const REST: &str = "overload: {queueing_delay: 20ms}
rules:
  - {id: refund, match: {methods: [POST], paths: [/refunds]}, require: {methods: [totp], max_age: 5m}}
";

const STRANGERS: usize = 200;

/// A machine that lets the edge run a fifth of the time, however quick it is; until the value ends.
struct Starved {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Starved {
    fn of(edge: &Edge) -> Result<Starved> {
        let id = Pid::from_raw(i32::try_from(edge.process_id())?);
        let is_over = Arc::<AtomicBool>::default();
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for (signal, time_ms) in [(Signal::SIGSTOP, 40), (Signal::SIGCONT, 10)] {
                    // One that has ended needs no time.
                    let _ = kill(id, signal);
                    std::thread::sleep(Duration::from_millis(time_ms));
                }
            }
        });
        Ok(Starved { is_over, thread: Some(thread) })
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks until the answer is not that there is too much to do: half of what is asked in a share of its own is served.
async fn patiently(visitor: &mut Visitor, url: &str, form: &[(&str, &str)]) -> Result<Answer> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let answer = visitor.post(url, &[], form).await?;
        if answer.problem() != "edge-overloaded" {
            return Ok(answer);
        }
        ensure!(answer.status == 503 && answer.header("retry-after") == "2", "{}: {}", answer.status, answer.text());
        ensure!(Instant::now() < deadline, "{url}: there was too much to do for {WITHIN:?}");
    }
}

#[tokio::test]
async fn at_overload_strangers_are_left_out_and_a_step_up_goes_through() -> Result<()> {
    let plan = Plan { routes: Some(ROUTES.to_owned()), ..Plan::of(REST) };
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let crowd = Crowd::of(STRANGERS, site.edge.address, DOMAIN, "/open/")?;
    let starved = Starved::of(&site.edge)?;
    let deadline = Instant::now() + WITHIN;
    while crowd.answers(503) < 50 {
        ensure!(Instant::now() < deadline, "nobody is left out: {crowd:?}\n{}", site.edge.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = crowd.answers(503);

    let mut alice = Visitor::default();
    let login = patiently(&mut alice, &site.url("/.lb/login"), &[("user", USER), ("password", PASSWORD)]).await?;
    ensure!(login.status == 200, "{}: {}", login.status, login.text());
    let refund = [("amount", "900.00")];
    let challenge = patiently(&mut alice, &site.url("/refunds"), &refund).await?;
    let url = site.challenge_url(&challenge)?;
    let proved = patiently(&mut alice, &url, &[("code", &totp_code(0)?)]).await?;
    ensure!(proved.status == 200, "{}: {}", proved.status, proved.text());
    let goes_on = patiently(&mut alice, &site.url("/refunds"), &refund).await?;
    ensure!(goes_on.status == 201, "{}: {}", goes_on.status, goes_on.text());

    ensure!(crowd.answers(503) > before, "strangers were left out meanwhile: {crowd:?}");
    let shed = |share: &str| site.metric("lb_requests_shed_total", share);
    ensure!(shed("strangers")? >= before as f64, "{}", shed("strangers")?);
    ensure!(shed("strangers")? > shed("own_pages")? + shed("sessions")?, "strangers first");
    ensure!(site.edge.log().contains("more to do than it can"), "{}", site.edge.log());
    drop((crowd, starved));
    site.eventually("nobody is left out any more", async |site| Ok(site.metric("lb_worker_shed_ratio", "")? == 0.0))
        .await
}

/// To look at a signature costs more than to forward a request: a flood of forged ones must not be looked at whole.
#[tokio::test]
async fn at_overload_half_of_the_tokens_that_nobody_knows_are_left_out_unread() -> Result<()> {
    if level::is_skipped("peers", Federated::lacking()) {
        return Ok(());
    }
    let scene = Federated::start_with("overload: {queueing_delay: 20ms}\n".to_owned()).await?;
    let known = scene.idp.access_token("client=app&account=carol").await?;
    ensure!(scene.with_token(&known, "/orders").await?.status == 200, "an honest token");
    let fresh = scene.idp.access_token("client=app&account=dave").await?;
    let (unsigned, _) = known.rsplit_once('.').context("no JWT")?;
    let unsigned = unsigned.to_owned();
    let forged = move || Some(format!("Bearer {unsigned}.{}", URL_SAFE_NO_PAD.encode(&unique().repeat(3)[..64])));
    let crowd = Crowd::saying(STRANGERS, scene.edge.address, ("127.0.0.1", "/orders"), forged)?;
    let starved = Starved::of(&scene.edge)?;
    let left_out =
        || -> Result<f64> { Ok(scene.edge.metrics()?.value(r#"lb_requests_shed_total{share="new_tokens"}"#)) };
    let deadline = Instant::now() + WITHIN;
    while left_out()? < 50.0 {
        ensure!(Instant::now() < deadline, "all are read: {crowd:?}\n{}", scene.edge.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (whose, token) in [("a known one", &known), ("one that is new", &fresh), ("and then known", &fresh)] {
        let deadline = Instant::now() + WITHIN;
        loop {
            let answer = scene.with_token(token, "/orders").await?;
            if answer.problem() != "edge-overloaded" {
                ensure!(answer.status == 200, "{whose}: {} {}", answer.status, answer.text());
                break;
            }
            ensure!(Instant::now() < deadline, "{whose} is left out for ever");
        }
    }
    drop(starved);
    let read = scene.edge.metrics()?.value(r#"lb_tokens_refused_total{reason="invalid_token"}"#);
    ensure!(crowd.answers(200) == 0 && read > 0.0, "no forged one opens anything: {crowd:?}, {read} were read");
    Ok(())
}
