//! The examples of protected actions, each in the running program: below the threshold nobody is asked; above, whoever
//! proves what the rule names goes on, and nobody else.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::prover::Prover;
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::{Answer, Visitor};
use serde_json::json;

/// Method, path, JSON.
type Request = (&'static str, &'static str, &'static str);

/// One protected action.
struct Row {
    file: &'static str,
    groups: &'static str,
    /// Asks nothing.
    below: Request,
    /// How often the request passes before it is too much.
    free: usize,
    above: Request,
    /// The one that the challenge names, and that is proved.
    method: &'static str,
    /// Another factor of alice's, which will not do.
    other: &'static str,
}

const fn row(file: &'static str, below: Request, above: Request, method: &'static str, other: &'static str) -> Row {
    Row { file, groups: "staff", below, free: 0, above, method, other }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("account-settings", ("GET", "/catalogue", ""), ("GET", "/account/details", ""), "totp", "pin"),
    Row { groups: "admins", ..row("admin", ("GET", "/", ""), ("POST", "/admin/users", "{}"), "webauthn", "pin") },
    row("api-key-generation", ("GET", "/api-keys", ""), ("POST", "/api-keys", "{}"), "totp", "pin"),
    Row { free: 20, ..row("bulk-export", ("GET", "/crm", ""), ("GET", "/export/today", ""), "totp", "pin") },
    row("credentials", ("GET", "/account/email", ""), ("PUT", "/account/email", r#"{"email": "a@b"}"#), "totp", "pin"),
    Row { groups: "engineers", ..row("database-migrations", ("GET", "/status", ""), ("POST", "/databases/core/migrations", "{}"), "devkey", "totp") },
    row("delete-production", ("DELETE", "/v1/environments/test-7", ""), ("DELETE", "/v1/environments/production/eu", ""), "devkey", "totp"),
    row("large-transaction", ("POST", "/transactions", r#"{"amount": 1000.00, "currency": "EUR"}"#), ("POST", "/transactions", r#"{"amount": 1000.01, "currency": "EUR"}"#), "totp", "pin"),
    Row { groups: "approvers", ..row("payment-approval", ("GET", "/payments/7", ""), ("POST", "/payments/7/approve", "{}"), "totp", "pin") },
    row("refund-over-limit", ("POST", "/refunds", r#"{"amount": 500.00}"#), ("POST", "/refunds", r#"{"amount": 500.01}"#), "pin", "totp"),
    Row { groups: "support", ..row("reset-second-factor", ("GET", "/users/7", ""), ("DELETE", "/users/7/second-factor", ""), "webauthn", "totp") },
    row("wire-transfer", ("GET", "/balance", ""), ("POST", "/transfers", r#"{"amount": 900.00, "to": "DE02"}"#), "webauthn", "totp"),
];

/// In place of minutes and hours.
const MAX_AGE: &str = "8s";
const TOO_OLD_WITHIN: Duration = Duration::from_secs(30);

impl Row {
    /// The example with routes, rates and rules as they are, and ages that a test can wait for.
    fn plan(&self) -> Result<Plan> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/actions/{}.yaml", self.file));
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let (mut routes, mut rest) = (String::new(), String::new());
        let mut section = "";
        for line in text.lines() {
            let key = line.split_once(':').map_or(line, |(key, _)| key);
            section = if line.starts_with([' ', '#', '-']) { section } else { key };
            match section {
                "routes" => routes += &format!("{}\n", line.replace("pool: app", "pool: shop")),
                "pools" | "tests" => {}
                _ => rest += &format!("{}\n", with_short_ages(line)),
            }
        }
        ensure!(routes.contains("pool: shop") && rest.contains("rules:"), "{} has another shape", file.display());
        let passkey = "factors: {passkey: {id: shop.test, origins: [\"https://shop.test:{port}\"]}}\n";
        Ok(Plan {
            of_alice: format!("    groups: [{}]\n", self.groups),
            has_app: false,
            routes: Some(routes),
            rest: [passkey, &rest].concat(),
        })
    }

    async fn send(&self, site: &Site, alice: &mut Visitor, request: Request) -> Result<Answer> {
        let (method, path, body) = request;
        match body {
            "" => alice.send(method, &site.url(path), &[("accept", "application/json")], String::new()).await,
            body => site.send_json(alice, method, path, body).await,
        }
    }

    async fn drive(&self) -> Result<()> {
        let Some(site) = Site::start(self.plan()?).await? else { return Ok(()) };
        let site = &site;
        let mut alice = site.alice().await?;
        let prover = Prover::enrol(site, &mut alice, &[self.method, self.other]).await?;

        let below = self.send(site, &mut alice, self.below).await?;
        ensure!(below.status.is_success(), "below the threshold: {} {}", below.status, below.text());
        for time in 0..self.free {
            let free = self.send(site, &mut alice, self.above).await?;
            ensure!(free.status.is_success(), "time {time}: {} {}", free.status, free.text());
        }
        // Where two factors are due, the password must be young enough too.
        alice = site.alice().await?;
        let arrived = site.origin.received().len();
        let asked = self.send(site, &mut alice, self.above).await?;
        let challenge = site.challenge_url(&asked)?;
        ensure!(asked.json()?["methods"] == json!([self.method]), "it names others: {}", asked.text());

        let field = if self.other == "totp" { "code" } else { "pin" };
        let others = prover.answer(&json!({"method": self.other}), true)?;
        let by_other = alice.post(&challenge, &[], &[(field, &others)]).await?;
        ensure!(!by_other.status.is_success(), "{} was taken: {}", self.other, by_other.text());
        let wrong = prover.prove(site, &mut alice, &challenge, self.method, false).await?;
        ensure!(wrong.status == 401, "a wrong answer: {} {}", wrong.status, wrong.text());
        let still = self.send(site, &mut alice, self.above).await?;
        ensure!(still.problem() == "step-up", "after wrong answers: {} {}", still.status, still.text());
        ensure!(site.origin.received().len() == arrived, "it reached the origin");

        let right = prover.prove(site, &mut alice, &challenge, self.method, true).await?;
        ensure!(right.status == 200, "the right answer: {} {}", right.status, right.text());
        let done = self.send(site, &mut alice, self.above).await?;
        ensure!(done.status.is_success(), "after it: {} {}", done.status, done.text());
        let received = site.origin.received().pop().context("nothing arrived")?;
        let (method, path, body) = self.above;
        ensure!(received.method.as_str() == method && received.target == path && received.body == body, "{received:?}");
        self.is_asked_again(site, &mut alice).await
    }

    /// At once where each action is approved by itself, otherwise when the proof is too old.
    async fn is_asked_again(&self, site: &Site, alice: &mut Visitor) -> Result<()> {
        let deadline = Instant::now() + TOO_OLD_WITHIN;
        loop {
            let again = self.send(site, alice, self.above).await?;
            if again.problem() == "step-up" {
                return Ok(());
            }
            ensure!(again.status.is_success(), "{} {}", again.status, again.text());
            ensure!(Instant::now() < deadline, "a proof of {TOO_OLD_WITHIN:?} ago still counts");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn with_short_ages(line: &str) -> String {
    match line.split_once("max_age: ") {
        Some((before, after)) => {
            let age = after.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(after.len());
            format!("{before}max_age: {MAX_AGE}{}", &after[age..])
        }
        None => line.to_owned(),
    }
}

#[tokio::test]
async fn each_protected_action_asks_for_what_its_rule_names_and_goes_on_with_it_alone() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/actions");
    let files = std::fs::read_dir(folder)?.count();
    ensure!(files == ROWS.len(), "{files} examples, {} rows", ROWS.len());
    for rows in ROWS.chunks(4) {
        let mut driven = tokio::task::JoinSet::new();
        for row in rows {
            driven.spawn(async move { row.drive().await.with_context(|| row.file) });
        }
        while let Some(outcome) = driven.join_next().await {
            outcome??;
        }
    }
    Ok(())
}
