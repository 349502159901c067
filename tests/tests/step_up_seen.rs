//! What a step-up leaves behind for those who watch the service, and for those who must prove later what happened: metrics
//! that moved, and the audit trail.

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, PASSWORD, USER, alice, service, totp_code};
use lb_tests::site::Site;
use lb_tests::visitor::{Answer, NAVIGATION, Visitor};
use serde_json::{Value, json};

const RULES: &str = "rules:
  - id: refund-over-limit
    match: {methods: [POST], paths: [/refunds]}
    body: {facts: {amount: {pointer: /amount, kind: decimal2}}}
    when: body.amount > 500.00 && request.headers[\"x-secret\"] != \"x\"
    require: {methods: [totp], per_action: true}
  - id: nobody-here
    match: {paths: [/closed]}
    when: session.level < 3
    deny: the office is closed
  - id: exports
    match: {paths: [/export]}
    limit: {rate: 1/h, by: user}
";

async fn scene() -> Result<Option<Edge>> {
    let site = Site::open(|address, backend| Ok([&service(address, backend), &alice()?, RULES].concat())).await?;
    Ok(site.map(|site| site.edge))
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn refund(edge: &Edge, alice: &mut Visitor, amount: &str) -> Result<Answer> {
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers =
        [("content-type", "application/json"), ("x-secret", "hunter2"), ("traceparent", traceparent.as_str())];
    alice.send("POST", &edge.url("/refunds"), &headers, format!("{{\"amount\": {amount}}}")).await
}

/// A wrong password, a login, a small refund, a large one with a wrong and a right code, what is denied, and what comes too
/// often.
async fn walk(edge: &Edge) -> Result<Visitor> {
    let mut alice = Visitor::default();
    let login = edge.url("/.lb/login");
    let answer = alice.post(&login, &[], &[("user", USER), ("password", "wrong")]).await?;
    ensure!(answer.status == 401, "{}", answer.status);
    let answer = alice.post(&login, &[], &[("user", USER), ("password", PASSWORD)]).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(refund(edge, &mut alice, "20.00").await?.status == 201);
    let answer = refund(edge, &mut alice, "900.00").await?;
    ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    let challenge = edge.url(answer.json()?["challenge_url"].as_str().context("no challenge")?);
    let right = totp_code(0)?;
    let wrong = if right == "000000" { "000001" } else { "000000" };
    let answer = alice.post(&challenge, &[], &[("code", wrong)]).await?;
    ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    let answer = alice.post(&challenge, &[], &[("code", &right)]).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let answer = refund(edge, &mut alice, "900.00").await?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    for (path, status) in [("/closed", 403), ("/export", 200), ("/export", 429)] {
        let answer = alice.get(&edge.url(path), &[]).await?;
        ensure!(answer.status == status, "{path}: {} {}", answer.status, answer.text());
    }
    Ok(alice)
}

#[tokio::test]
async fn each_step_of_a_step_up_moves_its_metric_and_no_other() -> Result<()> {
    let Some(edge) = scene().await? else { return Ok(()) };
    let before = edge.metrics()?;
    let mut alice = walk(&edge).await?;
    // Another challenge, which is given up with the session.
    refund(&edge, &mut alice, "901.00").await?;
    ensure!(edge.metrics()?.sum("lb_prompts_per_user_today") > 0.0);
    alice.post(&edge.url("/.lb/logout"), &[], &[]).await?;
    let after = edge.metrics()?;
    let watched = [
        "lb_decisions_total",
        "lb_challenges_",
        "lb_verify_total",
        "lb_resume_total",
        "lb_rate_limited_total",
        "lb_tokens_refused_total",
        "lb_challenge_seconds_count",
        "lb_session_cookie_bytes_count",
        "lb_prompted_users_today",
        "lb_prompts_per_user_today",
        "lb_session_cookies_refused_total",
        "lb_audit_events_lost_total",
        "lb_store_",
        "lb_policy_version",
        "lb_parked_",
        "lb_idp_",
    ];
    let expected: &[(&str, f64)] = &[
        (r#"lb_challenges_abandoned_total{method="totp"}"#, 1.0),
        (r#"lb_challenges_completed_total{method="totp"}"#, 1.0),
        (r#"lb_challenges_issued_total{method="totp",shape="api"}"#, 2.0),
        (r#"lb_challenge_seconds_count"#, 1.0),
        (r#"lb_decisions_total{route="*/**",rule="",decision="allow"}"#, 2.0),
        (r#"lb_decisions_total{route="*/**",rule="exports",decision="allow_within_limits"}"#, 2.0),
        (r#"lb_decisions_total{route="*/**",rule="nobody-here",decision="deny"}"#, 1.0),
        (r#"lb_decisions_total{route="*/**",rule="refund-over-limit",decision="challenge"}"#, 2.0),
        (r#"lb_prompted_users_today"#, 1.0),
        (r#"lb_prompts_per_user_today{quantile="0.5"}"#, 2.0),
        (r#"lb_prompts_per_user_today{quantile="0.9"}"#, 2.0),
        (r#"lb_prompts_per_user_today{quantile="0.99"}"#, 2.0),
        (r#"lb_prompts_per_user_today{quantile="1"}"#, 2.0),
        (r#"lb_rate_limited_total{bucket="rule",rule="exports"}"#, 1.0),
        (r#"lb_resume_total{result="ok"}"#, 1.0),
        // At the login, and raised.
        (r#"lb_session_cookie_bytes_count"#, 2.0),
        (r#"lb_verify_total{method="password",result="ok",reason=""}"#, 1.0),
        (r#"lb_verify_total{method="password",result="refused",reason="wrong"}"#, 1.0),
        (r#"lb_verify_total{method="totp",result="ok",reason=""}"#, 1.0),
        (r#"lb_verify_total{method="totp",result="refused",reason="wrong"}"#, 1.0),
    ];
    let moved: Vec<(String, f64)> = after.moved_since(&before, &watched).into_iter().collect();
    let mut wanted: Vec<(String, f64)> = expected.iter().map(|(series, by)| ((*series).to_owned(), *by)).collect();
    wanted.sort_by(|left, right| left.0.cmp(&right.0));
    ensure!(moved == wanted, "moved: {moved:#?}\nexpected: {wanted:#?}");
    ensure!(after.value("lb_store_up") == 1.0 && after.value("lb_policy_version") == 1.0);
    ensure!(after.value("lb_threat_level") == 0.0 && after.value("lb_decision_seconds_count") >= 1.0);

    // Whoever is told to wait is counted by what told them; and an operator's word shows.
    for _ in 0..5 {
        alice.post(&edge.url("/.lb/login"), &[], &[("user", "bob"), ("password", "wrong")]).await?;
    }
    edge.command(&["threat", "set", "high", "--for", "1m"])?;
    let metrics = edge.metrics()?;
    ensure!(metrics.value(r#"lb_rate_limited_total{bucket="account_from_source",rule=""}"#) >= 1.0);
    ensure!(metrics.value("lb_threat_level") == 2.0);
    Ok(())
}

#[tokio::test]
async fn a_parked_request_shows_while_it_waits() -> Result<()> {
    let Some(edge) = scene().await? else { return Ok(()) };
    let mut alice = Visitor::default();
    alice.post(&edge.url("/.lb/login"), &[], &[("user", USER), ("password", PASSWORD)]).await?;
    let own = edge.url("");
    let headers = [NAVIGATION, &[("content-type", "application/json"), ("origin", own.as_str())]].concat();
    let body = "{\"amount\": 900.00}";
    let answer = alice.send("POST", &edge.url("/refunds"), &headers, body.to_owned()).await?;
    ensure!(answer.status == 303, "{} {}", answer.status, answer.text());
    let metrics = edge.metrics()?;
    ensure!(metrics.value("lb_parked_requests") == 1.0 && metrics.value("lb_parked_bytes") == body.len() as f64);
    ensure!(metrics.value(r#"lb_challenges_issued_total{method="totp",shape="browser"}"#) == 1.0);
    alice.post(&edge.url("/.lb/logout"), &[], &[]).await?;
    let metrics = edge.metrics()?;
    ensure!(metrics.value("lb_parked_requests") == 0.0 && metrics.value("lb_parked_bytes") == 0.0);
    Ok(())
}

fn events(edge: &Edge) -> Result<Vec<Value>> {
    let trail = std::fs::read_to_string(edge.audit_file())?;
    trail.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[tokio::test]
async fn the_audit_trail_tells_when_why_and_how_somebody_proved_themselves_and_shows_every_change() -> Result<()> {
    let Some(edge) = scene().await? else { return Ok(()) };
    walk(&edge).await?;
    edge.audited("decision", 3)?;
    let all = events(&edge)?;
    // That the source may pass first from now on is the kernel's business.
    let lines: Vec<&Value> = all.iter().filter(|line| line["event"]["event"] != "verified").collect();
    let story: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| (line["event"]["event"].as_str().unwrap_or("?"), line["event"]["result"].as_str().unwrap_or("?")))
        .collect();
    let expected = [
        ("login", "wrong"),
        ("login", "ok"),
        ("decision", "challenge"),
        ("challenge", "issued"),
        ("verify", "wrong"),
        ("verify", "ok"),
        ("resume", "ok"),
        ("forward", "ok"),
        ("decision", "deny"),
        ("decision", "limited"),
    ];
    ensure!(story == expected, "{story:?}");
    let at = |index: usize| &lines[index]["event"];
    // When: each line. Who: the same user, and from the login on the same session.
    ensure!(lines.iter().all(|line| line["at"].as_str().is_some_and(|at| at.ends_with('Z'))), "{lines:#?}");
    ensure!(lines.iter().all(|line| line["event"]["user"] == at(0)["user"]), "{lines:#?}");
    ensure!(lines[1..].iter().all(|line| line["event"]["session"] == at(1)["session"]), "{lines:#?}");

    // Why.
    let decision = at(2);
    ensure!(decision["rule"] == "refund-over-limit" && decision["route"] == "*/**", "{decision:#}");
    ensure!(decision["policy_version"] == 1 && decision["threat"] == "normal", "{decision:#}");
    let facts = json!([
        {"name": "body.amount", "value": "900"},
        // A header may be somebody's secret.
        {"name": "request.headers[\"x-secret\"]", "value": null},
    ]);
    ensure!(decision["facts"] == facts, "{decision:#}");
    ensure!(decision["latency_us"].as_u64().is_some_and(|latency_us| latency_us > 0), "{decision:#}");
    let challenge = at(3);
    ensure!(challenge["request_id"] == decision["request_id"] && challenge["trace"] == TRACE, "{challenge:#}");
    let required = json!([{"rule": "refund-over-limit", "methods": ["totp"], "per_action": true}]);
    ensure!(challenge["required"] == required, "{challenge:#}");
    let had = &challenge["had"];
    ensure!(had["level"] == 1 && had["factors"][0]["method"] == "password", "{challenge:#}");
    ensure!(had["factors"][0]["age_seconds"].is_u64(), "{challenge:#}");
    let body_sha256 = challenge["body_sha256"].as_str().context("the body is not named")?;
    ensure!(body_sha256.len() == 64, "{challenge:#}");

    // How, and what came of it.
    for index in [4, 5, 6] {
        ensure!(at(index)["transaction"] == challenge["transaction"], "{:#}", at(index));
    }
    ensure!(at(4)["factor"] == "totp" && at(5)["factor"] == "totp", "{lines:#?}");
    ensure!(at(7)["request_id"] == at(6)["request_id"] && at(7)["upstream_status"] == 201, "{:#}", at(7));
    ensure!(at(8)["rule"] == "nobody-here" && at(8)["reason"] == "the office is closed", "{:#}", at(8));
    ensure!(at(9)["rule"] == "exports", "{:#}", at(9));

    // Nothing of what only one side may know.
    let trail = std::fs::read_to_string(edge.audit_file())?;
    for secret in [USER, PASSWORD, "hunter2", "__Host-lb", "\"amount\""] {
        ensure!(!trail.contains(secret), "{secret} is in the trail");
    }

    let file = edge.audit_file().display().to_string();
    let verified: Value = serde_json::from_str(&edge.command(&["audit", "verify", "--json", &file])?)?;
    ensure!(verified["events"] == all.len(), "{verified}");
    std::fs::write(edge.audit_file(), trail.replacen("\"challenge\"", "\"allow\"", 1))?;
    let error = edge.command(&["audit", "verify", &file]).err().context("a changed line was not found")?.to_string();
    ensure!(
        error.contains("audit.jsonl:4\n") && error.contains("event 3, before this one, is not what was"),
        "{error}"
    );
    Ok(())
}
