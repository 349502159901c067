//! Session cookies that were changed, kept too long or taken from elsewhere, before the real controller.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, PASSWORD, RULES, USER, alice, service, totp_code};
use lb_tests::site::Site;
use lb_tests::visitor::{Answer, Visitor};

const COOKIE: &str = "__Host-lb";

async fn scene() -> Result<Option<Edge>> {
    let site = Site::open(|address, backend| Ok([&service(address, backend), &alice()?, RULES].concat())).await?;
    Ok(site.map(|site| site.edge))
}

async fn log_in(edge: &Edge) -> Result<Visitor> {
    let mut visitor = Visitor::default();
    let form = [("user", USER), ("password", PASSWORD)];
    let answer = visitor.post(&edge.url("/.lb/login"), &[], &form).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(visitor)
}

fn cookie(edge: &Edge, visitor: &mut Visitor) -> Result<String> {
    Ok(visitor.jar(&edge.address.to_string()).get(COOKIE).context("there is no session's cookie")?.clone())
}

/// What somebody gets who sends these cookies and no others.
async fn status_with(url: &str, cookies: &[&str]) -> Result<u16> {
    let headers: Vec<(&str, &str)> = cookies.iter().map(|value| ("cookie", *value)).collect();
    Ok(Visitor::default().get(url, &headers).await?.status.as_u16())
}

#[tokio::test]
async fn a_cookie_that_is_not_the_one_that_was_set_is_nobodys_and_is_counted() -> Result<()> {
    let Some(edge) = scene().await? else { return Ok(()) };
    let mut alice = log_in(&edge).await?;
    let good = cookie(&edge, &mut alice)?;
    let device = alice.jar(&edge.address.to_string()).get("__Host-lb-device").context("no device")?.clone();
    let (version, rest) = good.split_once('.').context("no version")?;
    let (key, sealed) = rest.split_once('.').context("no key")?;
    let mut rows = vec![
        ("nothing", String::new()),
        ("no version", rest.to_owned()),
        ("another version", format!("v2.{rest}")),
        ("a key that is not there", format!("{version}.00000000.{sealed}")),
        ("no key", format!("{version}..{sealed}")),
        ("nothing sealed", format!("{version}.{key}.")),
        ("longer by a byte", format!("{good}A")),
        ("with padding", format!("{good}=")),
        ("twice in one", format!("{good}{good}")),
        ("the cookie of the device", device),
        ("in capitals", good.to_ascii_uppercase()),
    ];
    for at in (0..good.len()).step_by(5).chain([good.len() - 1]) {
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        rows.push(("a changed character", [&good[..at], other, &good[at + 1..]].concat()));
    }
    for length in (1..good.len()).step_by(17) {
        rows.push(("cut short", good[..length].to_owned()));
    }
    let refused = || Ok::<_, anyhow::Error>(edge.metrics()?.value("lb_session_cookies_refused_total"));
    let before = refused()?;
    let url = edge.url("/orders");
    for (name, value) in &rows {
        let status = status_with(&url, &[&format!("{COOKIE}={value}")]).await?;
        ensure!(status == 401, "{name}: {status} with {value}");
    }
    let counted = refused()? - before;
    ensure!(counted == rows.len() as f64, "{counted} of {} were counted", rows.len());

    let own = format!("{COOKIE}={good}");
    ensure!(status_with(&url, &[&own]).await? == 200, "the right one");
    ensure!(status_with(&url, &[&own, &own]).await? == 401, "twice");
    ensure!(status_with(&url, &[&own, &format!("{COOKIE}=planted")]).await? == 401, "with one that somebody planted");
    let elsewhere = format!("https://other.example:{}/orders", edge.address.port());
    ensure!(status_with(&elsewhere, &[&own]).await? == 401, "at another virtual host");
    Ok(())
}

/// Raises alice's session by a code, at the challenge of a refund.
async fn step_up(edge: &Edge, alice: &mut Visitor) -> Result<Answer> {
    let kind = [("content-type", "application/json")];
    let refund = |mut visitor: Visitor| async move {
        let answer = visitor.send("POST", &edge.url("/refunds"), &kind, "{\"amount\": 900.00}".into()).await;
        answer.map(|answer| (answer, visitor))
    };
    let (answer, visitor) = refund(alice.clone()).await?;
    ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    *alice = visitor;
    let challenge = answer.json()?["challenge_url"].as_str().context("no challenge")?.to_owned();
    let answer = alice.post(&edge.url(&challenge), &[], &[("code", &totp_code(0)?)]).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let (answer, visitor) = refund(alice.clone()).await?;
    *alice = visitor;
    Ok(answer)
}

#[tokio::test]
async fn a_cookie_of_before_a_step_up_or_a_logout_is_dead() -> Result<()> {
    let Some(edge) = scene().await? else { return Ok(()) };
    let mut alice = log_in(&edge).await?;
    let old = format!("{COOKIE}={}", cookie(&edge, &mut alice)?);
    let answer = step_up(&edge, &mut alice).await?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    let raised = format!("{COOKIE}={}", cookie(&edge, &mut alice)?);
    ensure!(old != raised, "the step-up set no new cookie");
    let url = edge.url("/orders");
    ensure!(status_with(&url, &[&old]).await? == 401, "the cookie of before the step-up opens");
    ensure!(status_with(&url, &[&raised]).await? == 200, "the one of after it does not");
    alice.post(&edge.url("/.lb/logout"), &[], &[]).await?;
    for (name, value) in [("before the step-up", &old), ("before the logout", &raised)] {
        ensure!(status_with(&url, &[value]).await? == 401, "the cookie of {name} opens after the logout");
    }
    Ok(())
}

#[tokio::test]
async fn a_sealing_key_that_is_revoked_opens_nothing_more_and_one_that_is_replaced_opens_on() -> Result<()> {
    let Some(edge) = scene().await? else { return Ok(()) };
    let mut alice = log_in(&edge).await?;
    let (url, first) = (edge.url("/orders"), format!("{COOKIE}={}", cookie(&edge, &mut alice)?));
    let keys = || -> Result<Vec<serde_json::Value>> {
        Ok(serde_json::from_str(&edge.command(&["sealing-keys", "list", "--json"])?)?)
    };
    ensure!(keys()?.len() == 1 && keys()?[0]["seals"] == true, "{:?}", keys()?);
    edge.command(&["sealing-keys", "rotate"])?;
    let after = keys()?;
    ensure!(after.len() == 2 && after[0]["seals"] == true && after[1]["seals"] == false, "{after:?}");
    ensure!(status_with(&url, &[&first]).await? == 200, "a replaced key ended a session");
    let mut again = log_in(&edge).await?;
    let second = format!("{COOKIE}={}", cookie(&edge, &mut again)?);
    ensure!(second.contains(after[0]["id"].as_str().unwrap_or_default()), "it is not sealed with the new key");

    edge.command(&["sealing-keys", "revoke", after[1]["id"].as_str().unwrap_or_default()])?;
    let dead_at = Instant::now();
    while status_with(&url, &[&first]).await? != 401 {
        ensure!(dead_at.elapsed() < Duration::from_secs(1), "its sessions live on");
    }
    ensure!(status_with(&url, &[&second]).await? == 200, "sessions of another key ended");
    // The one that seals is replaced at once.
    edge.command(&["sealing-keys", "revoke", after[0]["id"].as_str().unwrap_or_default()])?;
    ensure!(status_with(&url, &[&second]).await? == 401, "its sessions live on");
    ensure!(keys()?.len() == 1 && keys()?[0]["id"] != after[0]["id"], "{:?}", keys()?);
    log_in(&edge).await?;
    let error = edge.command(&["sealing-keys", "revoke", "00000000"]).err().context("a key that is not there")?;
    ensure!(error.to_string().contains("there is no sealing key 00000000"), "{error}");
    ensure!(edge.audited("sealing-key", 3)?.iter().all(|line| line["event"]["result"] != "failed"));
    Ok(())
}
