//! Attacks with requests: forged, parked, slow, cached, and at the gateway's own paths; each against the running program.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::HeaderMap;
use lb_tests::edge::{PASSWORD, USER};
use lb_tests::prover::{PIN, Prover};
use lb_tests::site::{Plan, Site};
use lb_tests::visitor::{Answer, NAVIGATION, Visitor};
use tokio::io::{AsyncRead, AsyncReadExt};

const HAPPENS_WITHIN: Duration = Duration::from_secs(20);

type Headers<'a> = &'a [(&'a str, &'a str)];

const RULES: &str = "rules:
  - {id: refund, match: {methods: [POST], paths: [/refunds]}, require: {methods: [pin], max_age: 5m}}
";
/// Each of these is confirmed for itself.
const PAYOUTS: &str =
    "  - {id: payout, match: {methods: [POST], paths: [/payouts]}, require: {methods: [pin], per_action: true}}
";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// What a browser says of a form on a page of ours, of a sibling's, and of another site's.
const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");
const SIBLINGS: (&str, &str) = ("sec-fetch-site", "same-site");
const FOREIGN: (&str, &str) = ("sec-fetch-site", "cross-site");
const REFUND: &str = "amount=900.00";

async fn scene() -> Result<Option<(Site, Visitor)>> {
    let Some(site) = Site::start(Plan::of(&[RULES, PAYOUTS].concat())).await? else { return Ok(None) };
    let mut alice = site.alice().await?;
    Prover::enrol(&site, &mut alice, &["pin"]).await?;
    Ok(Some((site, alice)))
}

/// A form that a page sends.
async fn submit(visitor: &mut Visitor, url: &str, from: (&str, &str), body: &str) -> Result<Answer> {
    let headers = [FORM, NAVIGATION[0], NAVIGATION[1], from];
    visitor.send("POST", url, &headers, body.to_owned()).await
}

async fn parked(site: &Site) -> Result<f64> {
    site.metric("lb_parked_requests", "")
}

#[tokio::test]
async fn a_form_of_another_site_is_never_kept_and_a_kept_one_goes_on_from_our_page_alone() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    let refunds = site.url("/refunds");
    for (name, from) in [("another site's", FOREIGN), ("a sibling's", SIBLINGS)] {
        let forged = submit(&mut alice, &refunds, from, REFUND).await?;
        ensure!(forged.status == 403, "{name}: {} {}", forged.status, forged.text());
    }
    let old_browser = [FORM, NAVIGATION[0], ("origin", "https://evil.test")];
    let forged = alice.send("POST", &refunds, &old_browser, REFUND.to_owned()).await?;
    ensure!(forged.status == 403, "by its origin alone: {}", forged.status);
    ensure!(parked(&site).await? == 0.0, "a forged request was kept");

    let kept = submit(&mut alice, &refunds, OURS, REFUND).await?;
    ensure!(kept.status == 303 && parked(&site).await? == 1.0, "{}: {}", kept.status, kept.text());
    let challenge = site.url(kept.header("location"));
    let proved = submit(&mut alice, &challenge, OURS, &format!("pin={PIN}")).await?;
    let resume = site.url(proved.header("location"));
    ensure!(resume.contains("/.lb/resume/"), "{}: {}", proved.status, proved.text());
    let form = format!("lb-tx={}", resume.rsplit('/').next().context("no id")?);
    for (name, from) in [("another site's", FOREIGN), ("a sibling's", SIBLINGS)] {
        let forged = submit(&mut alice, &refunds, from, &form).await?;
        ensure!(forged.status == 403, "{name} resume: {} {}", forged.status, forged.text());
        // Nor does a fresh proof let another forged one through.
        let forged = submit(&mut alice, &refunds, from, "amount=1000.00").await?;
        ensure!(forged.status == 403, "{name} after the proof: {}", forged.status);
    }
    ensure!(site.origin.refunds() == 0, "a forged refund went through");
    let goes_on = submit(&mut alice, &refunds, OURS, &form).await?;
    ensure!(goes_on.status == 201, "{}: {}", goes_on.status, goes_on.text());
    let received = site.origin.received().pop().context("nothing arrived")?;
    ensure!(received.body == REFUND && parked(&site).await? == 0.0, "{received:?}");
    let again = submit(&mut alice, &refunds, OURS, &form).await?;
    ensure!(again.status == 410 && site.origin.refunds() == 1, "again: {} {}", again.status, again.text());
    ensure!(site.audited(&["event=csrf", "result=refused"]) >= 7, "{}", site.edge.log());
    Ok(())
}

#[tokio::test]
async fn room_for_waiting_requests_is_shared_out_and_whoever_finds_none_is_told_so() -> Result<()> {
    let Some((site, _)) = scene().await? else { return Ok(()) };
    let refunds = site.url("/refunds");
    let mut logins = Vec::new();
    for _ in 0..6 {
        let mut alice = site.alice().await?;
        for _ in 0..4 {
            let answer = submit(&mut alice, &refunds, OURS, REFUND).await?;
            ensure!(answer.status == 303, "{}: {}", answer.status, answer.text());
        }
        logins.push(alice);
    }
    ensure!(parked(&site).await? == 12.0, "three of a login, twelve of a user: {}", parked(&site).await?);
    // What must be tied to its body cannot be done without a place: not now, but later.
    let full = submit(&mut logins[0], &site.url("/payouts"), OURS, REFUND).await?;
    ensure!(full.status == 503 && full.header("retry-after") == "60", "{}: {:?}", full.status, full.headers);
    ensure!(site.origin.received().is_empty() && parked(&site).await? == 12.0);
    let mut alice = site.alice().await?;
    let headers = [FORM, NAVIGATION[0], NAVIGATION[1], OURS];
    let head = head_of(&mut alice.stall("POST", &refunds, &headers, 300 * 1024).await?).await?;
    ensure!(head.starts_with("HTTP/1.1 303"), "before a byte of a large body came: {head}");
    for cookie in values(&head, "set-cookie") {
        let (name, value) = cookie.split(';').next().and_then(|pair| pair.split_once('=')).context("no cookie")?;
        site.jar(&mut alice).insert(name.to_owned(), value.to_owned());
    }
    let challenge = values(&head, "location").next().context("no location")?;
    let page = alice.get(&site.url(challenge), NAVIGATION).await?;
    ensure!(page.text().contains("go back and send your request again"), "{}", page.text());
    ensure!(parked(&site).await? == 12.0);
    logins.push(alice);
    for alice in &mut logins {
        alice.post(&site.url("/.lb/logout"), &[], &[]).await?;
    }
    ensure!(parked(&site).await? == 0.0, "after the logouts: {}", parked(&site).await?);
    Ok(())
}

/// The head of the answer that comes next.
async fn head_of(connection: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(HAPPENS_WITHIN, connection.read_u8()).await.context("no answer")??);
    }
    Ok(String::from_utf8(head)?)
}

fn values<'h>(head: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(move |(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn whoever_sends_slowly_to_a_challenge_slows_nobody_else() -> Result<()> {
    let Some((site, _)) = scene().await? else { return Ok(()) };
    let headers = [FORM, NAVIGATION[0], NAVIGATION[1], OURS];
    let mut connections = Vec::new();
    for _ in 0..8 {
        let mut slow = site.alice().await?;
        for path in ["/refunds", "/refunds", "/refunds", "/.lb/login", "/.lb/factors", "/.lb/logout"] {
            connections.push(slow.stall("POST", &site.url(path), &headers, 1000).await?);
        }
    }
    site.eventually("their places are taken", async |site| Ok(parked(site).await? == 12.0)).await?;
    let mut alice = site.alice().await?;
    for _ in 0..20 {
        let answer = alice.get(&site.url("/orders"), &[]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    }
    let challenged = site.send_json(&mut alice, "POST", "/refunds", "{}").await?;
    let challenge = site.challenge_url(&challenged)?;
    ensure!(alice.post(&challenge, &[], &[("pin", PIN)]).await?.status == 200);
    ensure!(site.send_json(&mut alice, "POST", "/refunds", "{}").await?.status == 201);
    drop(connections);
    site.eventually("their places are free again", async |site| Ok(parked(site).await? == 0.0)).await
}

#[tokio::test]
async fn nothing_of_ours_is_left_in_a_cache_whatever_is_asked_for() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    let challenge = site.challenge_url(&site.send_json(&mut alice, "POST", "/refunds", "{}").await?)?;
    let tricks: [(&str, Headers<'_>); 4] = [
        ("plain", &[]),
        ("a part", &[("range", "bytes=0-9"), ("if-range", "\"x\"")]),
        ("if it has changed", &[("if-none-match", "*"), ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")]),
        (
            "under another name",
            &[("x-forwarded-host", "evil.test"), ("x-original-url", "/"), ("x-forwarded-prefix", "/x")],
        ),
    ];
    let pages = ["/.lb/login", "/.lb/session", "/.lb/factors", "/orders-of-strangers"];
    for (name, headers) in tricks {
        for kind in [&[][..], NAVIGATION] {
            let headers = [kind, headers].concat();
            for url in pages.map(|path| site.url(path)).iter().chain([&challenge]) {
                for (who, visitor) in [("alice", &mut alice.clone()), ("nobody", &mut Visitor::default())] {
                    if url.ends_with("strangers") && who == "alice" {
                        continue;
                    }
                    let answer = visitor.get(url, &headers).await?;
                    let what = format!("{who}, {name}, {url}: {} {:?}", answer.status, answer.headers);
                    ensure!(answer.header("cache-control") == "no-store", "{what}");
                    ensure!(![206, 304].contains(&answer.status.as_u16()), "{what}");
                    ensure!(answer.header("etag").is_empty() && answer.header("accept-ranges").is_empty(), "{what}");
                    let told = [answer.header("location"), &answer.text()].concat();
                    ensure!(!told.contains("evil.test"), "{what}: {told}");
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn below_the_gateways_own_prefix_only_its_pages_exist_in_one_spelling_each() -> Result<()> {
    let Some((site, mut alice)) = scene().await? else { return Ok(()) };
    let paths = [
        "/.lb",
        "/.lb/",
        "/.lb/metrics",
        "/.lb/admin",
        "/.lb/challenge",
        "/.lb/challenge/1",
        "/.lb/work/other",
        "/.LB/session",
        "/.Lb/metrics",
        "//.lb/metrics",
        "/./.lb/metrics",
        "/x/../.lb/metrics",
        "/.lb/x/../metrics",
        "/%2elb/metrics",
        "/%2Elb/metrics",
        "/.%6cb/metrics",
        "/.lb;x/metrics",
        "/.lb/;/metrics",
        "/.lb%2fmetrics",
        "/.lb%5cmetrics",
        "/.lb/session%00",
        "/.lb/%2e%2e%2fmetrics",
    ];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = alice.send(method, &site.url(path), &[], String::new()).await?;
            ensure!(
                [400, 404].contains(&answer.status.as_u16()),
                "{method} {path}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    ensure!(site.origin.received().is_empty(), "{:?}", site.origin.received());
    // The application's own path of that name is the application's.
    let theirs = alice.get(&site.url("/metrics"), &[]).await?;
    ensure!(theirs.status == 200 && !theirs.text().contains("lb_requests"), "{}", theirs.text());
    ensure!(site.origin.received().len() == 1);
    Ok(())
}

#[tokio::test]
async fn a_login_that_fails_says_the_same_of_users_who_exist_and_of_those_who_do_not() -> Result<()> {
    let Some((site, _)) = scene().await? else { return Ok(()) };
    let login = site.url("/.lb/login");
    // What differs between any two answers, and the name as it was typed.
    let alike = |answer: &Answer, user: &str| -> Result<(u16, HeaderMap, String)> {
        let mut headers = answer.headers.clone();
        for changing in ["date", "lb-request-id", "content-security-policy", "content-length"] {
            headers.remove(changing);
        }
        let text = answer.text();
        let nonce = text.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("no nonce");
        let text = text.replace(nonce, "NONCE").replace(&format!("value=\"{user}\""), "value=\"USER\"");
        Ok((answer.status.as_u16(), headers, text))
    };
    for kind in [&[][..], NAVIGATION] {
        let form = |user| [("user", user), ("password", "guess")];
        let known = Visitor::default().post(&login, kind, &form(USER)).await?;
        let unknown = Visitor::default().post(&login, kind, &form("nobody-here")).await?;
        ensure!(known.status == 401, "{}: {}", known.status, known.text());
        ensure!(alike(&known, USER)? == alike(&unknown, "nobody-here")?, "{}\n{}", known.text(), unknown.text());
    }
    // Of those two only one exists, and it does not matter which is asked for more.
    let pages = ["/.lb/factors", "/.lb/enrol", "/.lb/session"];
    for path in pages {
        let answer = Visitor::default().get(&site.url(path), &[]).await?;
        ensure!(answer.status == 401 && answer.problem() == "login-required", "{path}: {}", answer.text());
    }
    let form = [("user", USER), ("password", PASSWORD)];
    let right = site.post_in_turn(&mut Visitor::default(), &login, &form).await?;
    ensure!(right.status == 200, "{}", right.text());
    Ok(())
}
