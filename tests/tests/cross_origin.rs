//! Pages of other origins (Fetch standard §3.3): who may read what, before the whole program.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_tests::edge::{RULES, alice, service_with};
use lb_tests::site::Site;
use lb_tests::visitor::{Answer, Visitor};

const FOREIGN: &str = "https://evil.test";
const REFUND: &str = "{\"amount\": 900.00}";

/// Pages of `https://app.shop.test` are trusted.
fn configuration(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let routes = "  - {path: /open/**, pool: shop, public: true}
  - {path: /**, pool: shop}
";
    let trusted = format!("trusted_origins: [\"{}\"]\n", sibling(address));
    Ok([&service_with(address, backend, routes), &trusted, &alice()?, RULES].concat())
}

fn sibling(address: SocketAddr) -> String {
    format!("https://app.shop.test:{}", address.port())
}

/// What lets a page read: origin, and whether it may send cookies.
fn leave(answer: &Answer) -> (&str, &str) {
    (answer.header("access-control-allow-origin"), answer.header("access-control-allow-credentials"))
}

fn varies_by_origin(answer: &Answer) -> bool {
    answer.headers.get_all("vary").iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"origin"))
}

async fn preflight(site: &Site, path: &str, origin: &str) -> Result<Answer> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type, x-trace"),
        ("sec-fetch-mode", "cors"),
    ];
    Visitor::default().send("OPTIONS", &site.url(path), &headers, String::new()).await
}

#[tokio::test]
async fn a_preflight_is_never_challenged_and_reaches_a_backend_only_where_everybody_may() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let sibling = sibling(site.edge.address);
    for path in ["/orders", "/open/orders", "/refunds", "/.lb/challenge/0123456789abcdef0123456789abcdef/status"] {
        let answer = preflight(&site, path, &sibling).await?;
        ensure!(answer.status == 204, "{path}: {} {}", answer.status, answer.text());
        ensure!(leave(&answer) == (&sibling, "true") && varies_by_origin(&answer), "{path}: {:?}", answer.headers);
        ensure!(answer.header("access-control-allow-methods") == "PUT", "{path}: {:?}", answer.headers);
        ensure!(answer.header("access-control-allow-headers") == "content-type, x-trace", "{path}");
    }
    for origin in [FOREIGN, "null", "https://app.shop.test", "https://APP.shop.test"] {
        let answer = preflight(&site, "/orders", origin).await?;
        ensure!(answer.status == 204 && leave(&answer) == ("", ""), "{origin}: {} {:?}", answer.status, answer.headers);
        ensure!(answer.header("location").is_empty() && answer.header("www-authenticate").is_empty(), "{origin}");
        ensure!(answer.header("set-cookie").is_empty(), "{origin}: a challenge was begun: {:?}", answer.headers);
    }
    ensure!(site.origin.seen("OPTIONS /orders") == 0, "an unjudged request reached the backend");
    // On a public route the backend may have a policy of its own; the request was judged like any other.
    let answer = preflight(&site, "/open/orders", FOREIGN).await?;
    ensure!(answer.status == 200 && leave(&answer) == ("", ""), "{} {:?}", answer.status, answer.headers);
    ensure!(site.origin.seen("OPTIONS /orders") == 1);
    Ok(())
}

#[tokio::test]
async fn a_trusted_sibling_reads_answers_and_challenges_and_its_request_goes_on() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let sibling = sibling(site.edge.address);
    let by_script = [("origin", &*sibling), ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")];
    let json = [&by_script[..], &[("content-type", "application/json")]].concat();
    let challenge = alice.send("POST", &site.url("/refunds"), &json, REFUND.into()).await?;
    ensure!(challenge.status == 401 && challenge.problem() == "step-up", "{} {}", challenge.status, challenge.text());
    ensure!(leave(&challenge) == (&sibling, "true") && varies_by_origin(&challenge), "{:?}", challenge.headers);
    let exposed = challenge.header("access-control-expose-headers").to_ascii_lowercase();
    ensure!(exposed.contains("www-authenticate") && exposed.contains("lb-request-id"), "{exposed}");
    let status = challenge.json()?["status_url"].as_str().unwrap_or_default().to_owned();
    let answer = alice.get(&site.url(&status), &by_script).await?;
    ensure!(answer.json()?["state"] == "open" && leave(&answer).0 == sibling, "{} {}", answer.status, answer.text());
    site.prove(&mut alice, &challenge, 0).await?;
    let answer = alice.send("POST", &site.url("/refunds"), &json, REFUND.into()).await?;
    ensure!(answer.status == 201 && leave(&answer) == (&sibling, "true"), "{} {}", answer.status, answer.text());
    ensure!(site.origin.refunds() == 1);
    Ok(())
}

#[tokio::test]
async fn everybody_elses_pages_change_nothing_and_read_nothing() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("another site", &[("origin", FOREIGN), ("sec-fetch-site", "cross-site")]),
        ("another site, in an old browser", &[("origin", FOREIGN)]),
        ("a sandboxed frame", &[("origin", "null")]),
        ("a sibling that is not trusted", &[("origin", "https://blog.shop.test"), ("sec-fetch-site", "same-site")]),
    ];
    for (name, headers) in rows {
        let answer = alice.send("POST", &site.url("/orders"), headers, String::new()).await?;
        ensure!(
            answer.status == 403 && answer.problem() == "cross-site",
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
        ensure!(leave(&answer) == ("", ""), "{name}: {:?}", answer.headers);
        let answer = alice.get(&site.url("/orders"), headers).await?;
        ensure!(answer.status == 200 && leave(&answer) == ("", ""), "{name}: {:?}", answer.headers);
    }
    ensure!(site.origin.seen("POST /orders") == 0, "a forged request reached the backend");
    Ok(())
}

#[tokio::test]
async fn a_trusted_sibling_reads_none_of_our_own_pages_however_it_spells_them() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let sibling = sibling(site.edge.address);
    let mut alice = site.alice().await?;
    for path in ["/.lb/session", "/%2elb/session", "/.%6cb/session", "//.lb/session", "/x/../.lb/session"] {
        let answer = alice.get(&site.url(path), &[("origin", sibling.as_str())]).await?;
        ensure!(answer.text().contains("alice"), "{path}: it is hers to read: {} {}", answer.status, answer.text());
        ensure!(leave(&answer) == ("", ""), "{path}: {:?}", answer.headers);
    }
    let open = alice.get(&site.url("/.lb/jwks.json"), &[("origin", sibling.as_str())]).await?;
    ensure!(leave(&open).0 == sibling, "{:?}", open.headers);
    Ok(())
}
