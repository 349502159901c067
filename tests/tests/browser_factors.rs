//! People add a factor and confirm with it: a real browser with a virtual authenticator, and a real mail server.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::customer::Customer;
use lb_tests::edge::{USER, alice, service_with};
use lb_tests::mail_sink::MailSink;
use lb_tests::visitor::Visitor;
use lb_tests::{assertion, level};
use serde_json::Value;

struct Scene {
    customer: Customer,
    mails: MailSink,
}

impl Scene {
    /// `https://shop.test`, whose only user has a password and an address, and where a refund over 500.00 takes `require`.
    async fn start(require: &str) -> Result<Option<Scene>> {
        if level::is_skipped("browser", MailSink::lacking()) {
            return Ok(None);
        }
        let mails = MailSink::start()?;
        let configure = |address, backend| configuration(address, backend, mails.address, require);
        let customer = Customer::enter(true, configure).await?;
        Ok(customer.map(|customer| Scene { customer, mails }))
    }

    /// Gives the operator's token on the page that asks for it.
    async fn open_own_factors(&self) -> Result<()> {
        let Customer { site, browser } = &self.customer;
        browser.open(&self.customer.url("/.lb/factors")).await?;
        browser.arrives_at("/.lb/enrol").await?;
        let token = site.edge.command(&["enrol-token", USER])?;
        let field = browser.find("input[name=token]").await?;
        ensure!(browser.focused().await? == field, "the keyboard is elsewhere");
        ensure!(browser.accessible_name(&field).await? == "Enrolment token");
        browser.type_into(&field, token.trim()).await?;
        self.customer.press("form button").await?;
        browser.arrives_at("/.lb/factors").await
    }

    fn enrolled(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.customer.site.edge.command(&["factors", USER, "--json"])?)?)
    }
}

#[tokio::test]
async fn a_passkey_is_added_with_a_token_and_then_confirms_a_refund() -> Result<()> {
    let Some(scene) = Scene::start("{level: 3, max_age: 5m}").await? else { return Ok(()) };
    let (customer, browser) = (&scene.customer, &scene.customer.browser);
    browser.add_authenticator().await?;
    customer.log_in().await?;
    scene.open_own_factors().await?;
    browser.open(&customer.url("/.lb/factors/add/webauthn")).await?;
    browser.type_into(&browser.find("#passkey input[name=name]").await?, "my laptop").await?;
    customer.press("#passkey button").await?;
    let heading = browser.find("section h2").await?;
    ensure!(browser.text(&heading).await? == "my laptop");
    let mail = scene.mails.mail_with("A factor was added").await?;
    ensure!(mail.contains("my laptop") && mail.contains("alice@shop.test"), "{mail}");

    customer.ask_for_refund().await?;
    let button = browser.find("#passkey button").await?;
    ensure!(browser.focused().await? == button, "the keyboard is elsewhere");
    browser.click(&button).await?;
    customer.refund_went_through_once().await?;
    let enrolled = scene.enrolled()?;
    ensure!(enrolled[0]["method"] == "webauthn" && enrolled[0]["last_used_at"].is_u64(), "{enrolled}");
    ensure!(
        customer.site.edge.log().contains("\"factor\":\"webauthn\"")
            || customer.site.edge.log().contains("factor=\"webauthn\"")
    );
    Ok(())
}

#[tokio::test]
async fn a_passkey_approves_the_amount_that_the_page_shows_and_the_backend_can_tell() -> Result<()> {
    let require = "{methods: [webauthn], per_action: true, show: [amount]}";
    let Some(scene) = Scene::start(require).await? else { return Ok(()) };
    let (customer, browser) = (&scene.customer, &scene.customer.browser);
    browser.add_authenticator().await?;
    customer.log_in().await?;
    scene.open_own_factors().await?;
    browser.open(&customer.url("/.lb/factors/add/webauthn")).await?;
    customer.press("#passkey button").await?;
    browser.find("section h2").await?;

    customer.ask_for_refund().await?;
    let shown = browser.text(&browser.find("dl").await?).await?;
    ensure!(shown.split_whitespace().collect::<Vec<_>>() == ["amount", "900.00"], "the page shows {shown:?}");
    ensure!(customer.site.origin.refunds() == 0, "the refund reached the backend before it was approved");
    customer.press("#passkey button").await?;
    customer.refund_went_through_once().await?;

    // A browser asks for more, such as an icon.
    let mut received = customer.site.origin.received().into_iter().filter(|request| request.target == "/refunds");
    let received = received.next().context("no refund reached the backend")?;
    ensure!(received.body == "amount=900.00", "{:?}", received.body);
    let token = received.headers.get("lb-assertion").context("no assertion")?.to_str()?.to_owned();
    let keys = Visitor::default().get(&customer.url("/.lb/jwks.json"), &[]).await?.json()?;
    let claims = assertion::verify(&token, &keys)?;
    ensure!(claims["facts"] == serde_json::json!({"amount": "900.00"}), "{claims}");
    ensure!(claims["bh"].is_string() && claims["txn"].is_string(), "{claims}");
    Ok(())
}

#[tokio::test]
async fn a_code_by_mail_is_sent_when_asked_for_and_confirms_a_refund() -> Result<()> {
    let Some(scene) = Scene::start("{methods: [email], max_age: 5m}").await? else { return Ok(()) };
    let (customer, browser) = (&scene.customer, &scene.customer.browser);
    customer.log_in().await?;
    customer.ask_for_refund().await?;
    customer.press("button[name=send]").await?;
    let field = browser.find("input[name=email]").await?;
    ensure!(browser.focused().await? == field, "the keyboard is elsewhere");
    let mail = scene.mails.mail_with("Your code for shop.test").await?;
    let code = mail.lines().map(str::trim).find(|line| is_code(line)).with_context(|| format!("no code in\n{mail}"))?;
    browser.type_into(&field, "AAAA-AAAA").await?;
    customer.press("form button").await?;
    browser.find("[role=alert]:not(:empty)").await?;
    ensure!(customer.site.origin.refunds() == 0, "a wrong code let the refund through");
    browser.type_into(&browser.find("input[name=email]").await?, &code.to_lowercase()).await?;
    customer.press("form button").await?;
    customer.refund_went_through_once().await
}

/// `ABCD-EFGH`.
fn is_code(line: &str) -> bool {
    line.len() == 9
        && line.split('-').count() == 2
        && line.bytes().all(|byte| byte == b'-' || byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[tokio::test]
async fn a_browser_solves_the_puzzle_by_itself_and_the_refund_goes_on() -> Result<()> {
    let Some(Scene { customer, .. }) = Scene::start("{methods: [pow], max_age: 5m}").await? else { return Ok(()) };
    customer.log_in().await?;
    customer.ask_for_refund().await?;
    customer.refund_went_through_once().await
}

#[tokio::test]
async fn a_visitor_whom_nobody_knows_waits_a_moment_and_arrives() -> Result<()> {
    let Some(scene) = Scene::start("{level: 2}").await? else { return Ok(()) };
    let (customer, browser) = (&scene.customer, &scene.customer.browser);
    browser.open(&customer.url("/open/?from=afar")).await?;
    browser.find("#backend").await?;
    ensure!(browser.url().await?.ends_with("/open/?from=afar"), "{}", browser.url().await?);
    let log = customer.site.edge.log();
    let solved = log.matches("factor=\"pow\"").count() + log.matches("\"factor\":\"pow\"").count();
    ensure!(solved == 1, "the puzzle was solved {solved} times");
    Ok(())
}

fn configuration(address: SocketAddr, backend: SocketAddr, mails: SocketAddr, require: &str) -> Result<String> {
    let users: String =
        alice()?.lines().filter(|line| !line.contains("totp_secret")).map(|line| format!("{line}\n")).collect();
    let port = address.port();
    let routes = "  - {path: /open/**, pool: shop, public: true}\n  - {path: /**, pool: shop}\n";
    Ok(format!(
        "{}{users}    email: alice@shop.test
factors:
  passkey: {{id: shop.test, name: The shop, origins: [\"https://shop.test:{port}\"]}}
  mail: {{server: \"{mails}\", tls: none, from: The shop <no-reply@shop.test>}}
rules:
  - {{id: visitors, match: {{paths: [/open/**]}}, require: {{methods: [pow]}}}}
  - id: refund-over-limit
    match: {{methods: [POST], paths: [/refunds]}}
    body: {{facts: {{amount: {{pointer: /amount, kind: decimal2}}}}}}
    when: body.amount > 500.00
    require: {require}
",
        service_with(address, backend, routes)
    ))
}
