//! Streams end when what let them through is over: WebSockets with a Close frame, server-sent events and gRPC in their own
//! ways, each within two seconds; the whole program.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::client::Streaming;
use lb_tests::customer::Customer;
use lb_tests::edge::{RULES, alice, service_with};
use lb_tests::site::Site;
use lb_tests::visitor::Visitor;
use lb_tests::websocket::{self, CLOSE, Frame};

const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Alice has a code of less than three seconds ago.
const FRESH: &str = "  - id: fresh
    match: {paths: [/fresh/**]}
    require: {methods: [totp], max_age: 3s}
  - id: calm
    match: {paths: [/ws, /events, /grpc]}
    when: threat >= \"high\"
    deny: there is a storm
";

fn configuration(address: SocketAddr, backend: SocketAddr) -> Result<String> {
    let routes = "  - {path: /short/**, pool: shop, max_stream_age: 2s}
  - {path: /**, pool: shop}
";
    Ok([&service_with(address, backend, routes), &alice()?, RULES, FRESH].concat())
}

/// What ends a stream.
type Ending = (&'static str, fn(&Site, Visitor) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + '_>>);

const LOGOUT: Ending = ("a logout", |site, mut alice| {
    Box::pin(async move {
        let answer = alice.post(&site.url("/.lb/logout"), &[], &[]).await?;
        ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
        Ok(())
    })
});

const THREAT: Ending = ("a threat", |site, _| {
    Box::pin(async move { site.edge.command(&["threat", "set", "high", "--for", "1m"]).map(drop) })
});

#[tokio::test]
async fn a_websocket_is_told_in_a_close_frame_why_it_ends() -> Result<()> {
    for ((name, end), code) in [(LOGOUT, 3000), (THREAT, 1008)] {
        let Some(site) = Site::open(configuration).await? else { return Ok(()) };
        let mut alice = site.alice().await?;
        let mut stream = site.client(&mut alice).open_websocket("/ws", &[]).await?;
        let message = Frame { opcode: websocket::TEXT, payload: vec![b'x'; 5_000] };
        websocket::write(&mut stream, &message, Some([1, 2, 3, 4])).await?;
        ensure!(websocket::read(&mut stream).await? == Some(message), "{name}: no echo");
        end(&site, alice).await?;
        let ended = Instant::now();
        let close = websocket::read(&mut stream).await?.with_context(|| format!("{name}: closed without a word"))?;
        ensure!(close.opcode == CLOSE && close.payload[..2] == u16::to_be_bytes(code), "{name}: {close:?}");
        ensure!(websocket::read(&mut stream).await?.is_none(), "{name}: something follows the Close frame");
        ensure!(ended.elapsed() < ENDS_WITHIN, "{name}: after {:?}", ended.elapsed());
        ensure!(site.alice().await.is_ok(), "{name}: the edge serves on");
    }
    Ok(())
}

#[tokio::test]
async fn a_websocket_ends_when_its_proof_is_too_old_or_its_time_is_up() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let challenge = alice.get(&site.url("/fresh/orders"), &[]).await?;
    site.prove(&mut alice, &challenge, 0).await?;
    // A proof counts until it is older than three whole seconds; it was given within the second before.
    for (path, code) in [("/fresh/ws", 3000), ("/short/ws", 1001)] {
        let begun = Instant::now();
        let mut stream = site.client(&mut alice).open_websocket(path, &[]).await?;
        let close = websocket::read(&mut stream).await?.context("closed without a word")?;
        ensure!(close.opcode == CLOSE && close.payload[..2] == u16::to_be_bytes(code), "{path}: {close:?}");
        ensure!(begun.elapsed() >= Duration::from_secs(1), "{path}: after {:?}", begun.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn events_end_and_grpc_says_its_status() -> Result<()> {
    for (name, end) in [LOGOUT, THREAT] {
        let Some(site) = Site::open(configuration).await? else { return Ok(()) };
        let mut alice = site.alice().await?;
        let client = site.client(&mut alice);
        let mut events = client.stream("/events", &[("accept", "text/event-stream")]).await?;
        let mut calls = client.stream("/grpc", &[("content-type", "application/grpc")]).await?;
        for stream in [&mut events, &mut calls] {
            ensure!(stream.status == 200 && stream.data().await?.is_some(), "{name}: no stream: {}", stream.status);
        }
        end(&site, alice).await?;
        let ended = Instant::now();
        ensure!(rest_of(&mut events).await?.is_none(), "{name}: events have no trailers");
        let trailers = rest_of(&mut calls).await?.with_context(|| format!("{name}: no trailers"))?;
        let status = if name == LOGOUT.0 { "16" } else { "7" };
        ensure!(trailers["grpc-status"] == status, "{name}: {trailers:?}");
        ensure!(ended.elapsed() < ENDS_WITHIN, "{name}: after {:?}", ended.elapsed());
    }
    Ok(())
}

/// The trailers, after all data that is still to come.
async fn rest_of(stream: &mut Streaming) -> Result<Option<http::HeaderMap>> {
    while stream.data().await?.is_some() {}
    stream.trailers().await
}

#[tokio::test]
async fn a_page_of_another_origin_opens_no_websocket() -> Result<()> {
    let Some(site) = Site::open(configuration).await? else { return Ok(()) };
    let mut alice = site.alice().await?;
    let client = site.client(&mut alice);
    for (name, origin, opens) in [
        ("a page of ours", site.url(""), true),
        ("another site's", "https://evil.test".to_owned(), false),
        ("a sibling's", format!("https://blog.{}", site.authority()), false),
        ("a sandboxed frame", "null".to_owned(), false),
    ] {
        let outcome = client.open_websocket("/ws", &[("origin", &origin)]).await;
        ensure!(outcome.is_ok() == opens, "{name}: {:?}", outcome.err());
        let refusal = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(opens || refusal.contains("403"), "{name}: {refusal}");
    }
    ensure!(site.origin.seen("GET /ws") == 1, "a foreign page's request reached the backend");
    Ok(())
}

/// Chromium is strict about frames: what it takes for a Close frame is one.
#[tokio::test]
async fn a_browser_is_told_why_its_websocket_closed() -> Result<()> {
    let Some(customer) = Customer::enter(true, configuration).await? else { return Ok(()) };
    customer.log_in().await?;
    let script = "const done = arguments[0], said = [], socket = new WebSocket('wss://' + location.host + '/ws');
        socket.onopen = () => socket.send('hello');
        socket.onmessage = async event => { said.push(event.data); await fetch('/.lb/logout', { method: 'POST' }) };
        socket.onclose = event => done([said, event.code, event.reason, event.wasClean]);";
    let told = customer.browser.run(script).await?;
    ensure!(told == serde_json::json!([["hello"], 3000, "the login is over", true]), "{told}");
    Ok(())
}
