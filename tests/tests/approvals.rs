//! One proof for one request: what was shown and approved goes on, once, and nothing else does.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::{Answer, FORM, NAVIGATION, Visitor};
use lb_tests::web_service::WebService;
use serde_json::json;

const PIN: &str = "271828";
const RULES: &str = "rules:
  - id: refund-over-limit
    match: {methods: [POST, PUT], paths: [/refunds, /payouts]}
    body: {facts: {amount: {pointer: /amount, kind: decimal2}, payee: {pointer: /payee}}}
    when: body.amount > 500.00
    require: {methods: [pin], per_action: true, show: [amount, payee]}
";
const APPROVED: &str = r#"{"amount": 900, "payee": "Ann"}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

/// A site where a large refund takes alice's PIN, and alice, who has one.
async fn scene() -> Result<Option<(Site, Visitor)>> {
    let Some(site) = Site::start(Plan::of(RULES)).await? else { return Ok(None) };
    let mut alice = site.alice().await?;
    site.enrol(&mut alice, "pin", &[("answer", PIN), ("again", PIN)]).await?;
    Ok(Some((site, alice)))
}

async fn refund(site: &Site, alice: &mut Visitor) -> Result<Answer> {
    alice.send("POST", &site.url("/refunds"), &[JSON], APPROVED.to_owned()).await
}

/// Sends the refund and gives the PIN for it.
async fn approve(site: &Site, alice: &mut Visitor) -> Result<()> {
    let challenge = site.challenge_url(&refund(site, alice).await?)?;
    let answer = alice.post(&challenge, &[], &[("pin", PIN)]).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(())
}

#[tokio::test]
async fn what_was_approved_goes_on_once_and_nothing_else_does() -> Result<()> {
    let Some((site, _)) = scene().await? else { return Ok(()) };
    type Other = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);
    let rows: &[Other] = &[
        ("another amount", "POST", "/refunds", &[JSON], r#"{"amount": 901, "payee": "Ann"}"#),
        ("another payee", "POST", "/refunds", &[JSON], r#"{"amount": 900, "payee": "Eve"}"#),
        ("what is not shown", "POST", "/refunds", &[JSON], r#"{"amount": 900, "payee": "Ann", "note": "x"}"#),
        ("the same facts in other bytes", "POST", "/refunds", &[JSON], r#"{"amount": 900.00, "payee": "Ann"}"#),
        ("another path", "POST", "/payouts", &[JSON], APPROVED),
        ("another query", "POST", "/refunds?to=eve", &[JSON], APPROVED),
        ("another method", "PUT", "/refunds", &[JSON], APPROVED),
        ("another type", "POST", "/refunds", &[("content-type", "application/x+json")], APPROVED),
        ("one more header", "POST", "/refunds", &[JSON, ("x-account", "eve")], APPROVED),
    ];
    for (count, (name, method, path, headers, body)) in rows.iter().enumerate() {
        // A login keeps five challenges, and each row leaves some behind.
        let mut alice = site.alice().await?;
        approve(&site, &mut alice).await?;
        let other = alice.send(method, &site.url(path), headers, (*body).to_owned()).await?;
        ensure!(other.problem() == "step-up", "{name}: {} {}", other.status, other.text());
        ensure!(site.origin.received().len() == count, "{name}: it reached the origin");
        let approved = refund(&site, &mut alice).await?;
        ensure!(approved.status == 201, "{name}: and then the approved one: {}", approved.text());
        ensure!(approved.json()?["body"] == APPROVED, "{}", approved.text());
        let again = refund(&site, &mut alice).await?;
        ensure!(again.problem() == "step-up", "{name}: a second time: {} {}", again.status, again.text());
    }
    let resumed = site.audited(&["event=resume", "result=ok", "shown=amount=900.00, payee=Ann"]);
    ensure!(resumed == rows.len(), "{resumed} audit events:\n{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn of_many_that_resume_one_approval_at_once_one_wins() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    approve(&site, &mut alice).await?;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (mut racer, url) = (alice.clone(), site.url("/refunds"));
        racers.spawn(async move { racer.send("POST", &url, &[JSON], APPROVED.to_owned()).await });
    }
    let answers = racers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let wins = answers.iter().filter(|answer| answer.status == 201).count();
    ensure!(wins == 1 && site.origin.refunds() == 1, "{wins} won, {} refunds arrived", site.origin.refunds());
    ensure!(answers.iter().all(|answer| answer.status == 201 || answer.problem() == "step-up"), "{answers:?}");
    Ok(())
}

#[tokio::test]
async fn a_backend_reads_in_the_assertion_what_was_approved() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    let small = r#"{"amount": 5, "payee": "Ann"}"#;
    let answer = alice.send("POST", &site.url("/refunds"), &[JSON], small.to_owned()).await?;
    ensure!(answer.status == 201, "below the limit: {}", answer.text());
    let plain = site.last_assertion().await?;
    ensure!(plain["txn"].is_null() && plain["facts"].is_null(), "nobody approved anything: {plain}");

    let challenged = refund(&site, &mut alice).await?;
    let facts = json!({"amount": "900.00", "payee": "Ann"});
    ensure!(challenged.json()?["facts"] == facts, "a script is told what it is about: {}", challenged.text());
    let challenge = site.challenge_url(&challenged)?;
    let described = alice.get(&challenge, &[]).await?.json()?;
    ensure!(described["facts"] == facts, "and so is whoever answers: {described}");
    let page = alice.get(&challenge, NAVIGATION).await?.text();
    ensure!(page.contains("<dt>amount</dt><dd>900.00</dd>"), "{page}");
    let proved = alice.post(&challenge, &[], &[("pin", PIN)]).await?;
    ensure!(proved.status == 200, "{}", proved.text());
    ensure!(refund(&site, &mut alice).await?.status == 201);
    let claims = site.last_assertion().await?;
    ensure!(claims["facts"] == facts, "{claims}");
    ensure!(Some(claims["txn"].as_str().unwrap_or_default()) == challenge.rsplit('/').next(), "{claims}");
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, APPROVED.as_bytes()));
    ensure!(claims["bh"] == hash && claims["htm"] == "POST" && claims["sub"] == "alice", "{claims}");
    ensure!(claims["htu"] == site.url("/refunds"), "{claims}");
    let transaction = format!("transaction={}", claims["txn"].as_str().unwrap_or_default());
    ensure!(site.audited(&["event=challenge", "result=issued", &transaction]) == 1, "{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn what_people_could_not_read_is_not_theirs_to_approve() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    let headers = [JSON, NAVIGATION[0], NAVIGATION[1]];
    let to = |payee: &str| json!({"amount": 900, "payee": payee}).to_string();
    let long = alice.send("POST", &site.url("/refunds"), &headers, to(&"Ann ".repeat(65))).await?;
    ensure!(long.status == StatusCode::UNPROCESSABLE_ENTITY, "{}: {}", long.status, long.text());
    ensure!(long.text().contains("payee"), "{}", long.text());
    let rows = [
        (to("<script>alert(1)</script>"), "<dd>&#60;script&#62;alert(1)&#60;/script&#62;</dd>"),
        (to("Ann\u{202e}evE"), "<dd>Ann\\u{202e}evE</dd>"),
        (to("Ann\nEve"), "<dd>Ann\\u{a}Eve</dd>"),
        (to(""), "<dd>empty</dd>"),
        (r#"{"amount": 900}"#.to_owned(), "<dd>not given</dd>"),
    ];
    for (body, shown) in rows {
        let answer = alice.send("POST", &site.url("/refunds"), &headers, body.clone()).await?;
        ensure!(answer.status == 303, "{body}: {} {}", answer.status, answer.text());
        let page = alice.get(&site.url(answer.header("location")), NAVIGATION).await?.text();
        ensure!(page.contains(shown), "{body}: {page}");
        // A browser's refund waits in one of three places.
        alice.post(&site.url("/.lb/logout"), &[], &[]).await?;
        alice = site.alice().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_approval_of_less_than_the_rules_show_by_now_counts_for_nothing() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    approve(&site, &mut alice).await?;
    site.reconfigure("payee: {pointer: /payee}", "payee: {pointer: /note}")?;
    let other_facts = refund(&site, &mut alice).await?;
    ensure!(other_facts.problem() == "step-up", "{} {}", other_facts.status, other_facts.text());
    let facts = &other_facts.json()?["facts"];
    ensure!(*facts == json!({"amount": "900.00", "payee": null}), "{facts}");
    ensure!(site.origin.refunds() == 0, "nobody has seen what goes on now");
    approve(&site, &mut alice).await?;
    ensure!(refund(&site, &mut alice).await?.status == 201, "what is shown now was approved");
    Ok(())
}

#[tokio::test]
async fn a_message_with_a_code_says_what_the_code_approves() -> Result<()> {
    let carrier = WebService::start(|_| (StatusCode::ACCEPTED, String::new())).await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a secret that both of them share")?;
    let (url, secret) = (carrier.address, secret.display());
    let rules = RULES.replace("methods: [pin]", "methods: [sms]");
    let rest = format!("factors: {{sms: {{url: \"http://{url}/\", secret_file: {secret}}}}}\n{rules}");
    let plan = Plan { of_alice: "    phone: \"+49 151 12345678\"\n".to_owned(), ..Plan::of(&rest) };
    let Some(site) = Site::start(plan).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let challenge = site.challenge_url(&refund(&site, &mut alice).await?)?;
    let sent = alice.post(&challenge, &[], &[("send", "sms")]).await?;
    ensure!(sent.status == 202, "{}: {}", sent.status, sent.text());
    let calls = carrier.calls();
    let text = calls.first().context("nothing was sent")?.json()?["text"].as_str().unwrap_or_default().to_owned();
    ensure!(text.contains("It confirms: amount=900.00, payee=Ann."), "{text}");
    Ok(())
}

/// Posts a form of the browser's, proves what it takes, and returns the URL and the transaction to resume.
async fn parked(site: &Site, alice: &mut Visitor, path: &str) -> Result<String> {
    let form = [FORM, &[("content-type", "application/json")]].concat();
    let challenged = alice.send("POST", &site.url(path), &form, APPROVED.to_owned()).await?;
    ensure!(challenged.status == 303, "{} {}", challenged.status, challenged.text());
    let to = challenged.header("location").to_owned();
    let proved = alice.post(&site.url(&to), &[], &[("pin", PIN)]).await?;
    ensure!(proved.status == 200, "{}: {}", proved.status, proved.text());
    Ok(to.rsplit('/').next().unwrap_or_default().to_owned())
}

async fn resume(site: &Site, alice: &mut Visitor, path: &str, id: &str, more: &[(&str, &str)]) -> Result<Answer> {
    alice.post(&site.url(path), &[FORM, more].concat(), &[("lb-tx", id)]).await
}

#[tokio::test]
async fn a_parked_request_goes_on_with_the_headers_that_it_came_with_and_no_others() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    let id = parked(&site, &mut alice, "/refunds").await?;
    for more in [("x-account", "eve"), ("idempotency-key", "1"), ("authorization", "Basic ZXZlOg==")] {
        let answer = resume(&site, &mut alice, "/refunds", &id, &[more]).await?;
        ensure!(answer.status != 201 && site.origin.refunds() == 0, "{more:?}: {} {}", answer.status, answer.text());
    }
    let answer = resume(&site, &mut alice, "/refunds", &id, &[]).await?;
    ensure!(answer.status == 201 && site.origin.refunds() == 1, "{} {}", answer.status, answer.text());
    Ok(())
}

const MORE_WHEN_THREATENED: &str = "rules:
  - {id: always, match: {methods: [POST], paths: [/refunds]}, require: {methods: [pin], max_age: 5m}}
  - id: threatened
    match: {methods: [POST], paths: [/refunds]}
    body: {facts: {amount: {pointer: /amount, kind: decimal2}}}
    when: threat >= \"elevated\"
    require: {methods: [pin], per_action: true, show: [amount]}
";

#[tokio::test]
async fn a_proof_that_approved_nothing_does_not_do_where_an_approval_is_wanted_by_now() -> Result<()> {
    let Some(site) = Site::start(Plan::of(MORE_WHEN_THREATENED)).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    site.enrol(&mut alice, "pin", &[("answer", PIN), ("again", PIN)]).await?;
    let id = parked(&site, &mut alice, "/refunds").await?;
    site.edge.command(&["threat", "set", "elevated", "--for", "5m"])?;
    let answer = resume(&site, &mut alice, "/refunds", &id, &[]).await?;
    ensure!(answer.status == 303 && site.origin.refunds() == 0, "{} {}", answer.status, answer.text());
    let page = alice.get(&site.url(answer.header("location")), NAVIGATION).await?.text();
    ensure!(page.contains("<dt>amount</dt><dd>900.00</dd>"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_limit_answers_before_an_approval_is_used_up() -> Result<()> {
    const LIMIT: &str =
        "  - {id: one-a-day, match: {methods: [POST], paths: [/refunds]}, limit: {rate: 1/d, by: user}}\n";
    let Some(site) = Site::start(Plan::of(&[RULES, LIMIT].concat())).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    site.enrol(&mut alice, "pin", &[("answer", PIN), ("again", PIN)]).await?;
    approve(&site, &mut alice).await?;
    ensure!(refund(&site, &mut alice).await?.status == 201);
    approve(&site, &mut alice).await?;
    // And from a browser, whose request waits here.
    let mut browser = site.alice().await?;
    let from = site.url("");
    let headers = [FORM, &[JSON, ("origin", &from)]].concat();
    let parked = browser.send("POST", &site.url("/refunds"), &headers, APPROVED.to_owned()).await?;
    let challenge = site.url(parked.header("location"));
    ensure!(parked.status == 303, "{}: {}", parked.status, parked.text());
    let proved = browser.post(&challenge, FORM, &[("pin", PIN)]).await?;
    let resume = proved.header("location").rsplit('/').next().context("no way on")?.to_owned();
    for turn in 0..3 {
        let limited = refund(&site, &mut alice).await?;
        ensure!(limited.status == 429 && !limited.header("retry-after").is_empty(), "{turn}: {}", limited.text());
        let limited = browser.post(&site.url("/refunds"), FORM, &[("lb-tx", &resume)]).await?;
        ensure!(limited.status == 429, "{turn}, parked: {} {}", limited.status, limited.text());
    }
    ensure!(site.origin.refunds() == 1, "{} refunds", site.origin.refunds());
    ensure!(site.audited(&["event=resume", "result=given-back"]) == 6, "{}", site.edge.log());
    site.reconfigure(LIMIT, "")?;
    ensure!(refund(&site, &mut alice).await?.status == 201, "the approval was used up by a limit");
    let goes_on = browser.post(&site.url("/refunds"), FORM, &[("lb-tx", &resume)]).await?;
    ensure!(goes_on.status == 201, "{} {}", goes_on.status, goes_on.text());
    ensure!(site.origin.received().pop().context("nothing arrived")?.body == APPROVED);
    ensure!(site.origin.refunds() == 3, "{} refunds", site.origin.refunds());
    let again = refund(&site, &mut alice).await?;
    ensure!(again.problem() == "step-up", "a second time: {} {}", again.status, again.text());
    Ok(())
}
