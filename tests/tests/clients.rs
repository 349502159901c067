//! What each kind of client is told when more proof is needed, and when it is told; the whole program.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{RULES, alice, service, totp_code};
use lb_tests::site::Site;
use lb_tests::visitor::{NAVIGATION, Visitor};

/// Beside refunds, `/exports` needs a second factor whatever the request says.
fn configuration(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let exports = "  - id: exports
    match: {paths: [/exports/**, /shop.Exports/**]}
    require: {level: 2}
  - id: delete-everything
    match: {paths: [/graphql]}
    when: '\"deleteAll\" in graphql.fields'
    on_missing: skip
    require: {level: 2}
  - id: software
    match: {paths: [/software/known, /software/other]}
    when: request.path.endsWith(\"other\") == client.tls_class.contains(\"_\")
    deny: true
";
    Ok([&service(address, backend), &alice()?, RULES, exports].concat())
}

#[tokio::test]
async fn a_client_gets_a_page_if_it_opens_pages_and_a_problem_document_otherwise() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let mode = |mode: &'static str| ("sec-fetch-mode", mode);
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let rows: &[(&str, Headers<'_>, bool)] = &[
        ("a link that is followed", &[mode("navigate"), ("sec-fetch-dest", "document"), html], true),
        ("a page in a frame", &[mode("navigate"), ("sec-fetch-dest", "iframe"), html], true),
        ("a navigation, whatever it accepts", &[mode("navigate")], true),
        ("a browser before fetch metadata", &[html], true),
        ("fetch()", &[mode("cors"), ("sec-fetch-dest", "empty")], false),
        ("fetch() of a page of ours, for HTML", &[mode("same-origin"), html], false),
        ("an image", &[mode("no-cors"), ("sec-fetch-dest", "image")], false),
        ("a module script", &[mode("cors"), ("sec-fetch-dest", "script")], false),
        ("EventSource", &[mode("cors"), ("accept", "text/event-stream")], false),
        ("XMLHttpRequest before fetch metadata", &[html, ("x-requested-with", "XMLHttpRequest")], false),
        ("curl", &[("accept", "*/*")], false),
        ("a tool that says nothing", &[], false),
    ];
    for (name, headers, is_page) in rows {
        let answer = alice.get(&site.url("/exports/orders"), headers).await?;
        let status = if *is_page { 303 } else { 401 };
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.text());
        ensure!(answer.header("location").starts_with("/.lb/challenge/") == *is_page, "{name}: {:?}", answer.headers);
        ensure!((answer.problem() == "step-up") != *is_page, "{name}: {}", answer.text());
        ensure!(answer.header("www-authenticate").is_empty() == *is_page, "{name}: {:?}", answer.headers);
        ensure!(answer.header("cache-control") == "no-store", "{name}: {:?}", answer.headers);
        let answer = Visitor::default().get(&site.url("/exports/orders"), headers).await?;
        ensure!(answer.status == status, "{name}, logged out: {} {}", answer.status, answer.text());
        ensure!(answer.header("location").starts_with("/.lb/login") == *is_page, "{name}: {:?}", answer.headers);
    }
    ensure!(site.origin.seen("GET /exports/orders") == 0);
    Ok(())
}

#[tokio::test]
async fn how_far_a_challenge_is_only_its_own_session_learns() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let (mut alice, mut elsewhere) = (site.alice().await?, site.alice().await?);
    let challenge = alice.get(&site.url("/exports/orders"), &[]).await?;
    let status = site.url(challenge.json()?["status_url"].as_str().context("no status_url")?);
    let answer = alice.get(&status, &[]).await?;
    let told = answer.json()?;
    ensure!(answer.status == 200 && answer.header("cache-control") == "no-store", "{:?}", answer.headers);
    ensure!(told["state"] == "open" && told["missing"] == serde_json::json!(["totp"]), "{told}");
    ensure!(told["expires_in"].as_u64().is_some_and(|seconds| (1..=600).contains(&seconds)), "{told}");

    // Another login of the same user has the URL; another browser has the session's cookie, but not the challenge's.
    let mut without_flow_cookie = alice.clone();
    without_flow_cookie.jar(&site.authority()).retain(|name, _| name == "__Host-lb");
    for (name, other, code) in [
        ("another login", &mut elsewhere, 403),
        ("without the challenge's cookie", &mut without_flow_cookie, 403),
        ("nobody", &mut Visitor::default(), 401),
    ] {
        let answer = other.get(&status, &[]).await?;
        ensure!(answer.status == code, "{name}: {} {}", answer.status, answer.text());
        ensure!(!answer.text().contains("totp"), "{name}: {}", answer.text());
    }
    site.prove(&mut alice, &challenge, 0).await?;
    let told = alice.get(&status, &[]).await?.json()?;
    ensure!(told["state"] == "proved" && told["missing"] == serde_json::json!([]), "{told}");
    ensure!(alice.get(&site.url("/exports/orders"), &[]).await?.status == 200);
    let unknown = site.url("/.lb/challenge/0123456789abcdef0123456789abcdef/status");
    ensure!(alice.get(&unknown, &[]).await?.status == 410);
    Ok(())
}

#[tokio::test]
async fn a_large_upload_is_challenged_before_its_body_is_sent() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let waits = "Content-Length: 1000000000\r\nExpect: 100-continue\r\n";
    let navigates = format!("{waits}Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n");
    let client = site.client(&mut alice);
    let nobody = site.client(&mut Visitor::default());
    for (name, client, headers, status) in [
        ("a tool", &client, waits, "401"),
        ("a browser", &client, &navigates, "303"),
        ("a tool without a session", &nobody, waits, "401"),
        ("a browser without a session", &nobody, &navigates, "303"),
    ] {
        let answer = client.answer_to_head("PUT", "/exports/orders", headers).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
    }
    ensure!(site.origin.seen("PUT /exports/orders") == 0, "an unproved request reached the backend");
    // It is told to send once it may.
    let challenge = alice.get(&site.url("/exports/orders"), &[]).await?;
    site.prove(&mut alice, &challenge, 0).await?;
    let client = site.client(&mut alice);
    let answer = client.answer_to_head("PUT", "/exports/orders", "Content-Length: 3\r\nExpect: 100-continue\r\n");
    ensure!(answer.await?.starts_with("HTTP/1.1 100 "));
    Ok(())
}

#[tokio::test]
async fn in_h2_the_challenge_comes_before_the_body_and_the_stream_ends_without_an_error() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let early = site.client(&mut alice).early_answer("/exports/orders", &[]).await?;
    ensure!(early.status == 401, "{early:?}");
    ensure!(early.body.starts_with("{") && early.body.contains("urn:lb:problem:step-up"), "{early:?}");
    // RFC 9113 §8.1: the rest of the request is not wanted, and nothing is wrong with it.
    ensure!(early.reset == Some(h2::Reason::NO_ERROR), "{early:?}");
    Ok(())
}

#[tokio::test]
async fn grpc_is_told_in_headers_that_are_trailers() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let headers = [("content-type", "application/grpc+proto"), ("te", "trailers")];
    let early = site.client(&mut alice).early_answer("/shop.Exports/All", &headers).await?;
    ensure!(early.status == 200 && early.is_trailers_only, "{early:?}");
    ensure!(early.headers["grpc-status"] == "16" && early.headers["grpc-message"] == "step-up required", "{early:?}");
    ensure!(early.headers.contains_key("grpc-status-details-bin"), "{early:?}");
    let told = early.headers["www-authenticate"].to_str()?;
    ensure!(told.contains("error=\"insufficient_user_authentication\""), "{told}");
    // Nobody, and somebody else's words for the same.
    let nobody = site.client(&mut Visitor::default());
    let early = nobody.early_answer("/shop.Exports/All", &headers).await?;
    ensure!(early.status == 200 && early.is_trailers_only && early.headers["grpc-status"] == "16", "{early:?}");
    ensure!(!early.headers.contains_key("grpc-status-details-bin"), "{early:?}");
    // HTTP/1.1 carries no gRPC, but the answer is the same.
    let answer = alice.send("POST", &site.url("/shop.Exports/All"), &headers, String::new()).await?;
    ensure!(answer.status == 200 && answer.header("grpc-status") == "16", "{} {:?}", answer.status, answer.headers);
    Ok(())
}

#[tokio::test]
async fn a_code_given_in_one_tab_serves_the_other() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let first = alice.get(&site.url("/exports/orders"), NAVIGATION).await?.header("location").to_owned();
    let second = alice.get(&site.url("/exports/users"), NAVIGATION).await?.header("location").to_owned();
    ensure!(first != second && second.starts_with("/.lb/challenge/"), "{first} {second}");
    let answer = alice.post(&site.url(&first), NAVIGATION, &[("code", &totp_code(0)?)]).await?;
    ensure!(answer.header("location") == "/exports/orders", "{} {:?}", answer.status, answer.headers);
    for path in ["/exports/orders", "/exports/users"] {
        let answer = alice.get(&site.url(path), NAVIGATION).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn a_graphql_operation_in_the_url_is_judged_like_one_in_the_body() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let harmless = "query=%7Bme%7D";
    let harmful = "query=mutation%20%7B%20harmless%3A%20deleteAll%20%7D";
    let (delete_in_body, ask_in_body) = (r#"{"query": "mutation { deleteAll }"}"#, r#"{"query": "{ me }"}"#);
    let rows: &[(&str, &str, &str, &str, u16)] = &[
        ("a harmless query", "GET", harmless, "", 200),
        ("a harmful one under another name", "GET", harmful, "", 401),
        ("the same in the URL of a POST", "POST", harmful, "", 401),
        ("in a body", "POST", "", delete_in_body, 401),
        ("harmless in a body", "POST", "", ask_in_body, 200),
        ("harmful in the URL, harmless in the body", "POST", harmful, ask_in_body, 400),
        ("twice in the URL", "GET", &[harmless, harmful].join("&"), "", 400),
        ("in capitals beside it", "GET", &[harmless, "Query=x"].join("&"), "", 400),
        ("no operation at all", "GET", "page=2", "", 200),
    ];
    for (name, method, query, body, status) in rows {
        let url = site.url(&format!("/graphql?{query}"));
        let json = [("content-type", "application/json")];
        let answer = alice.send(method, &url, &json, (*body).to_owned()).await?;
        ensure!(answer.status == *status, "{name}: {} {}", answer.status, answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn a_rule_knows_software_by_its_handshake() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    for (path, status) in [("/software/known", 200), ("/software/other", 403)] {
        let answer = alice.get(&site.url(path), &[("user-agent", "another")]).await?;
        ensure!(answer.status == status, "{path}: {} {}", answer.status, answer.text());
    }
    Ok(())
}
