//! An edge before an origin, with a configuration of the test's own, and people who meet it over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::authenticator::Authenticator;
use crate::client::Client;
use crate::edge::{Edge, PASSWORD, RULES, USER, alice, free_address, service, totp_code};
use crate::level;
use crate::origin::{self, Origin};
use crate::visitor::{Answer, Visitor};
use crate::wall_clock::WallClock;

/// How a site is called, and where its passkeys belong; browsers tell its origins apart by it.
pub const DOMAIN: &str = "shop.test";
const JSON: &[(&str, &str)] = &[("content-type", "application/json"), ("accept", "application/json")];
const HAPPENS_WITHIN: Duration = Duration::from_secs(20);

/// The whole of it, running.
#[derive(Debug)]
pub struct Site {
    pub edge: Edge,
    pub origin: Arc<Origin>,
    configuration: String,
}

/// What a site is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Lines of alice, such as `    email: …`, and of other users, whose password is hers: `{password_hash}`.
    pub of_alice: String,
    /// Whether alice's configuration has the secret of an authenticator app.
    pub has_app: bool,
    /// In place of the one route to the origin; lines with the pool `shop`.
    pub routes: Option<String>,
    /// Everything else: factors, rules.
    pub rest: String,
}

impl Plan {
    /// Alice with password and app, and these lines.
    pub fn of(rest: &str) -> Plan {
        Plan { of_alice: String::new(), has_app: true, routes: None, rest: rest.to_owned() }
    }

    fn text(&self, address: SocketAddr, backend: SocketAddr) -> Result<String> {
        const ROUTES: &str = "routes:\n  - {path: /**, pool: shop}\n";
        let mut service = service(address, backend);
        if let Some(routes) = &self.routes {
            ensure!(service.contains(ROUTES), "the routes are not where they were: {service}");
            service = service.replace(ROUTES, routes);
        }
        let alice = alice()?;
        let lines = alice.lines().filter(|line| self.has_app || !line.contains("totp_secret"));
        let alice: String = lines.map(|line| format!("{line}\n")).collect();
        let hash = alice.lines().find_map(|line| line.trim().strip_prefix("password_hash: ")).unwrap_or_default();
        let more = self.of_alice.replace("{password_hash}", hash);
        let rest = self.rest.replace("{port}", &address.port().to_string());
        // The files of factors stand where the test put them.
        Ok(format!("{service}{alice}{more}{rest}"))
    }
}

impl Site {
    /// `None`, said aloud, where there is no controller; in CI that is a failure.
    pub async fn start(plan: Plan) -> Result<Option<Site>> {
        Site::open(move |address, backend| plan.text(address, backend)).await
    }

    /// One whose configuration `configure` writes, from the edge's and the backend's address.
    pub async fn open(configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>) -> Result<Option<Site>> {
        if level::is_skipped("peers", Edge::lacking()) {
            return Ok(None);
        }
        Site::before(origin::start().await?, configure, &[]).await.map(Some)
    }

    /// The same by a clock of the test's own.
    pub async fn open_by(
        clock: &WallClock,
        configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>,
    ) -> Result<Option<Site>> {
        if level::is_skipped("peers", Edge::lacking().or(WallClock::lacking())) {
            return Ok(None);
        }
        Site::before(origin::start().await?, configure, &clock.environment()).await.map(Some)
    }

    /// The same with its origin on a thread of its own, for tests that block theirs.
    pub async fn open_apart(configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>) -> Result<Option<Site>> {
        if level::is_skipped("peers", Edge::lacking()) {
            return Ok(None);
        }
        Site::before(origin::start_apart()?, configure, &[]).await.map(Some)
    }

    async fn before(
        (origin, backend): (Arc<Origin>, SocketAddr),
        configure: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>,
        environment: &[(&'static str, String)],
    ) -> Result<Site> {
        let address = free_address()?;
        let configuration = configure(address, backend)?;
        let (text, environment) = (configuration.clone(), environment.to_vec());
        let edge = tokio::task::spawn_blocking(move || Edge::start_among(address, &text, &[], &environment)).await??;
        let site = Site { edge, origin, configuration };
        site.eventually("the pools' backends are healthy", async |site| {
            let listed: Value = serde_json::from_str(&site.edge.command(&["backends", "--json"])?)?;
            let backends = listed.as_array().context("no list")?;
            Ok(backends.iter().all(|backend| backend["l7"]["healthy"] == true))
        })
        .await?;
        Ok(site)
    }

    /// The cookies that `visitor` has of this site.
    pub fn jar<'v>(&self, visitor: &'v mut Visitor) -> &'v mut BTreeMap<String, String> {
        visitor.jar(&self.authority())
    }

    /// Host and port: whose cookies a visitor keeps for it.
    pub fn authority(&self) -> String {
        format!("{DOMAIN}:{}", self.edge.address.port())
    }

    /// A client with the visitor's cookies, for what a visitor cannot do.
    pub fn client(&self, visitor: &mut Visitor) -> Client {
        let cookies = self.jar(visitor).iter().map(|(name, value)| format!("{name}={value}"));
        let cookie = cookies.collect::<Vec<_>>().join("; ");
        Client { edge: self.edge.address, authority: Some(self.authority()), cookie }
    }

    /// Meets a challenge that a tool was given, with the code of `steps_ahead`. A code is accepted once.
    pub async fn prove(&self, alice: &mut Visitor, challenge: &Answer, steps_ahead: i64) -> Result<()> {
        let url = self.challenge_url(challenge)?;
        let answer = alice.post(&url, &[], &[("code", &totp_code(steps_ahead)?)]).await?;
        ensure!(answer.status == 200, "the code is refused: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Sends `form` until it is not told to wait.
    pub async fn post_in_turn(&self, visitor: &mut Visitor, url: &str, form: &[(&str, &str)]) -> Result<Answer> {
        let deadline = Instant::now() + HAPPENS_WITHIN;
        loop {
            let answer = visitor.post(url, &[], form).await?;
            if answer.status != 429 || Instant::now() > deadline {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Under the name that passkeys belong to.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }

    /// Waits until it is so.
    pub async fn eventually(&self, what: &str, is_so: impl AsyncFn(&Site) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + HAPPENS_WITHIN;
        while !is_so(self).await? {
            ensure!(Instant::now() < deadline, "{what}: not within {HAPPENS_WITHIN:?}; the log:\n{}", self.edge.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Another configuration from now on: this one with `part` for `other`.
    pub fn reconfigure(&self, part: &str, other: &str) -> Result<()> {
        ensure!(self.configuration.contains(part), "there is no {part:?} in {}", self.configuration);
        self.edge.reconfigure(&self.configuration.replace(part, other))
    }

    /// What it was started with, but for what the edge adds of its own.
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// Alice with a password, as a tool.
    pub async fn alice(&self) -> Result<Visitor> {
        self.log_in(USER).await
    }

    /// Somebody else with alice's password.
    pub async fn log_in(&self, user: &str) -> Result<Visitor> {
        let mut visitor = Visitor::default();
        let form = [("user", user), ("password", PASSWORD)];
        let answer = visitor.post(&self.url("/.lb/login"), &[], &form).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(visitor)
    }

    /// Lets `visitor` change their factors for a while, by an operator's token.
    pub async fn permit_enrolment(&self, visitor: &mut Visitor) -> Result<()> {
        let session = visitor.get(&self.url("/.lb/session"), &[]).await?.json()?;
        let user = session["user"].as_str().context("nobody is logged in")?.to_owned();
        let token = self.edge.command(&["enrol-token", &user])?;
        let answer = visitor.post(&self.url("/.lb/enrol"), &[], &[("token", token.trim())]).await?;
        ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
        Ok(())
    }

    /// Adds a factor by a form; gives the answer, which for recovery codes holds them.
    pub async fn enrol(&self, visitor: &mut Visitor, method: &str, form: &[(&str, &str)]) -> Result<Value> {
        self.permit_enrolment(visitor).await?;
        let answer = visitor.post(&self.url(&format!("/.lb/factors/add/{method}")), &[], form).await?;
        ensure!(answer.status == 201, "{method}: {}: {}", answer.status, answer.text());
        answer.json()
    }

    /// Adds a passkey that lives on a device in memory.
    pub async fn enrol_passkey(&self, visitor: &mut Visitor) -> Result<Authenticator> {
        self.permit_enrolment(visitor).await?;
        let url = self.url("/.lb/factors/add/webauthn");
        let options = visitor.get(&url, &[]).await?.json()?;
        let device = Authenticator::new(&self.url(""), DOMAIN)?;
        let made = device.create(&options["publicKey"])?;
        let answer = visitor.post(&url, &[], &[("passkey", &made), ("name", "a device in memory")]).await?;
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
        Ok(device)
    }

    /// Sends JSON as a script does.
    pub async fn send_json(&self, visitor: &mut Visitor, method: &str, path: &str, body: &str) -> Result<Answer> {
        visitor.send(method, &self.url(path), JSON, body.to_owned()).await
    }

    /// Where a challenge is answered; an error when `answer` is none.
    pub fn challenge_url(&self, answer: &Answer) -> Result<String> {
        let problem = answer.problem();
        ensure!(answer.status == 401 && problem == "step-up", "no challenge: {} {}", answer.status, answer.text());
        Ok(self.url(answer.json()?["challenge_url"].as_str().context("no challenge_url")?))
    }

    /// What the challenge asks for by `method`.
    pub async fn ask(&self, visitor: &mut Visitor, challenge: &str, method: &str) -> Result<Value> {
        let answer = visitor.get(&format!("{challenge}?method={method}"), &[]).await?;
        ensure!(answer.status == 200, "{method}: {}: {}", answer.status, answer.text());
        let told = answer.json()?;
        ensure!(told["ask"]["method"] == method, "it asks for something else: {told}");
        Ok(told["ask"].clone())
    }

    /// What the published keys say of the assertion that came with the last request at the origin.
    pub async fn last_assertion(&self) -> Result<Value> {
        let received = self.origin.received().pop().context("nothing reached the origin")?;
        let token = received.headers.get("lb-assertion").context("no assertion")?.to_str()?.to_owned();
        let keys = Visitor::default().get(&self.url("/.lb/jwks.json"), &[]).await?.json()?;
        crate::assertion::verify(&token, &keys)
    }

    /// The sum of a metric over all its labels that contain `part`.
    pub fn metric(&self, name: &str, part: &str) -> Result<f64> {
        Ok(self.edge.metrics()?.sum_of(|series| series.starts_with(name) && series.contains(part)))
    }

    /// How often the log has an audit event with all of these `name=value`.
    pub fn audited(&self, parts: &[&str]) -> usize {
        let has = |line: &str| parts.iter().all(|part| field_is_in(line, part));
        self.edge.log().lines().filter(|line| line.contains("audit") && has(line)).count()
    }
}

/// Everything needs a session, a refund over 500.00 a code.
pub fn usual(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    Ok([&service(address, backend), &alice()?, RULES].concat())
}

/// The log is text or JSON.
fn field_is_in(line: &str, part: &str) -> bool {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    line.contains(&format!("{name}=\"{value}\"")) || line.contains(&format!("\"{name}\":\"{value}\""))
}
