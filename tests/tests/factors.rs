//! Each factor once through the running program: enrolled, asked for, refused when wrong, and then the original request
//! goes on with its body.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use lb_tests::mail_sink::MailSink;
use lb_tests::prover::Prover;
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::Visitor;
use lb_tests::web_service::WebService;
use serde_json::json;

const REFUND: &str = r#"{"amount": 900.00, "note": "the original bytes"}"#;
/// Nobody's code.
const WRONG_CODE: &str = "AAAA-AAAA";

/// A site where each refund takes `method`, and alice has what the configuration gives her.
fn plan(method: &str, of_alice: &str, factors: &str) -> Plan {
    let rules = format!(
        "rules: [{{id: refund, match: {{methods: [POST], paths: [/refunds]}}, require: {{methods: [{method}], max_age: 5m}}}}]"
    );
    let of_alice = if of_alice.is_empty() { String::new() } else { format!("    {of_alice}\n") };
    Plan { of_alice, has_app: false, ..Plan::of(&format!("{factors}\n{rules}\n")) }
}

/// One way through: refused, a wrong answer, a right one, the request.
struct Way<'a> {
    site: &'a Site,
    alice: Visitor,
    challenge: String,
    method: &'a str,
}

impl<'a> Way<'a> {
    async fn begin(site: &'a Site, mut alice: Visitor, method: &'a str) -> Result<Way<'a>> {
        let answer = site.send_json(&mut alice, "POST", "/refunds", REFUND).await?;
        let challenge = site.challenge_url(&answer)?;
        ensure!(answer.json()?["methods"] == json!([method]), "{}", answer.text());
        ensure!(site.audited(&["event=challenge", "result=issued", "rule=refund"]) == 1, "{}", site.edge.log());
        ensure!(site.metric("lb_challenges_issued_total", "shape=\"api\"")? >= 1.0, "no challenge was counted");
        Ok(Way { site, alice, challenge, method })
    }

    /// `result` is what the audit trail says of it; the client is told less.
    async fn refuses(&mut self, field: &str, wrong: &str, result: &str) -> Result<()> {
        let answer = self.alice.post(&self.challenge, &[], &[(field, wrong)]).await?;
        ensure!(answer.status == 401 && answer.problem() == "proof-refused", "{}: {}", answer.status, answer.text());
        let (factor, result) = (format!("factor={}", self.method), format!("result={result}"));
        ensure!(self.site.audited(&["event=verify", &factor, &result]) == 1, "{result}: {}", self.site.edge.log());
        let again = self.site.send_json(&mut self.alice, "POST", "/refunds", REFUND).await?;
        ensure!(again.problem() == "step-up", "after a wrong answer: {} {}", again.status, again.text());
        ensure!(self.site.origin.refunds() == 0, "a wrong answer let the refund through");
        Ok(())
    }

    async fn accepts(mut self, field: &str, right: &str, amr: &str) -> Result<()> {
        let answer = self.alice.post(&self.challenge, &[], &[(field, right)]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        ensure!(answer.json()?["missing"] == json!([]), "{}", answer.text());
        let factor = format!("factor={}", self.method);
        ensure!(self.site.audited(&["event=verify", &factor, "result=ok"]) == 1, "{}", self.site.edge.log());
        let refund = self.site.send_json(&mut self.alice, "POST", "/refunds", REFUND).await?;
        ensure!(refund.status == 201, "{}: {}", refund.status, refund.text());
        let received = self.site.origin.received().pop().context("nothing arrived")?;
        ensure!(received.body == REFUND && received.target == "/refunds", "{received:?}");
        let claims = self.site.last_assertion().await?;
        let told = claims["amr"].as_array().context("no amr")?.contains(&json!(amr));
        // Work is nobody's, and no backend is told of it as a proof of the user's.
        ensure!(told == (amr != "pow"), "{claims}");
        ensure!(self.site.origin.refunds() == 1, "{} refunds", self.site.origin.refunds());
        Ok(())
    }
}

/// A factor that [`Prover`] has: `result` of a wrong answer, and its name in `amr`.
async fn drive(method: &str, factors: &str, result: &str, amr: &str) -> Result<()> {
    let Some(site) = Site::start(plan(method, "", factors)).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let prover = Prover::enrol(&site, &mut alice, &[method]).await?;
    let mut way = Way::begin(&site, alice, method).await?;
    let ask = site.ask(&mut way.alice, &way.challenge, method).await?;
    let field = ask["field"].as_str().context("no field")?.to_owned();
    way.refuses(&field, &prover.answer(&ask, false)?, result).await?;
    // Each try has a text, a challenge, a puzzle of its own.
    let ask = site.ask(&mut way.alice, &way.challenge, method).await?;
    let right = prover.answer(&ask, true)?;
    way.accepts(&field, &right, amr).await
}

#[tokio::test]
async fn the_code_of_an_authenticator_app() -> Result<()> {
    drive("totp", "", "wrong", "otp").await
}

#[tokio::test]
async fn a_recovery_code() -> Result<()> {
    drive("recovery", "", "wrong", "recovery").await
}

#[tokio::test]
async fn a_pin() -> Result<()> {
    drive("pin", "", "wrong", "pin").await
}

#[tokio::test]
async fn a_signature_by_a_developer_key() -> Result<()> {
    drive("devkey", "", "wrong-signature", "swk").await
}

#[tokio::test]
async fn a_passkey() -> Result<()> {
    let factors = "factors: {passkey: {id: shop.test, origins: [\"https://shop.test:{port}\"]}}";
    drive("webauthn", factors, "wrong-origin", "hwk").await
}

#[tokio::test]
async fn proof_of_work() -> Result<()> {
    drive("pow", "factors: {pow: {least_bits: 8}}", "unsolved", "pow").await
}

#[tokio::test]
async fn a_code_by_mail() -> Result<()> {
    if let Some(lacking) = MailSink::lacking() {
        ensure!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped: {lacking}");
        writeln!(std::io::stderr(), "SKIPPED: {lacking}")?;
        return Ok(());
    }
    let mails = tokio::task::spawn_blocking(MailSink::start).await??;
    let factors =
        format!("factors: {{mail: {{server: \"{}\", tls: none, from: Shop <no-reply@shop.test>}}}}", mails.address);
    let plan = plan("email", "email: alice@shop.test", &factors);
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let mut way = Way::begin(&site, site.alice().await?, "email").await?;
    let sent = way.alice.post(&way.challenge, &[], &[("send", "email")]).await?;
    ensure!(sent.status == 202 && sent.json()?["sent_to"] == "a…@shop.test", "{}", sent.text());
    way.refuses("email", WRONG_CODE, "wrong").await?;
    let mail = mails.mail_with("Your code for shop.test").await?;
    let code = mail.lines().map(str::trim).find(|line| is_code(line)).with_context(|| format!("no code in {mail}"))?;
    way.accepts("email", code, "email").await
}

#[tokio::test]
async fn a_code_by_text_message() -> Result<()> {
    let carrier = WebService::start(|_| (StatusCode::ACCEPTED, String::new())).await?;
    let (_folder, secret) = secret_file()?;
    let factors = format!("factors: {{sms: {{url: \"http://{}/\", secret_file: {secret}}}}}", carrier.address);
    let plan = plan("sms", "phone: \"+49 151 12345678\"", &factors);
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let mut way = Way::begin(&site, site.alice().await?, "sms").await?;
    let sent = way.alice.post(&way.challenge, &[], &[("send", "sms")]).await?;
    ensure!(sent.status == 202 && sent.json()?["sent_to"] == "…678", "{}", sent.text());
    way.refuses("sms", WRONG_CODE, "wrong").await?;
    let calls = carrier.calls();
    let [call] = calls.as_slice() else { anyhow::bail!("{} calls", calls.len()) };
    ensure!(call.headers.contains_key("webhook-signature"), "{:?}", call.headers);
    let message = call.json()?;
    ensure!(message["to"] == "+4915112345678", "{message}");
    let text = message["text"].as_str().context("no text")?;
    way.accepts("sms", text.split(' ').next().context("no code")?, "sms").await
}

#[tokio::test]
async fn a_verifier_of_the_operators() -> Result<()> {
    let verifier = Arc::new(
        WebService::start(|call| {
            let verified = call.text().contains(r#""answer":"blue""#);
            (StatusCode::OK, json!({"verified": verified, "user": "alice"}).to_string())
        })
        .await?,
    );
    let (_folder, secret) = secret_file()?;
    let factors = format!(
        "factors: {{external: {{label: Colour, url: \"http://{}/\", secret_file: {secret}}}}}",
        verifier.address
    );
    let Some(site) = Site::start(plan("external", "", &factors)).await? else { return Ok(()) };
    let mut way = Way::begin(&site, site.alice().await?, "external").await?;
    way.refuses("external", "green", "wrong").await?;
    way.accepts("external", "blue", "external").await?;
    let approval = verifier.calls()[1].json()?["approval"].as_str().context("no approval")?.to_owned();
    ensure!(approval.contains("target: \"/refunds\""), "the verifier is told what it is about: {approval}");
    Ok(())
}

fn secret_file() -> Result<(tempfile::TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("secret");
    std::fs::write(&file, "a secret that both of them share")?;
    Ok((folder, file.display().to_string()))
}

/// `ABCD-EFGH`.
fn is_code(line: &str) -> bool {
    line.len() == 9
        && line.as_bytes()[4] == b'-'
        && line.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
}
