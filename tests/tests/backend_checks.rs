//! Health checks of the whole program against servers that others wrote.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, free_address};
use lb_tests::grpc_health::GrpcHealth;
use lb_tests::{level, openssl};
use serde_json::Value;

/// An edge that checks `backends` by `health`, and nothing else.
fn edge(backends: &[SocketAddr], health: &str) -> Result<Edge> {
    let address = free_address()?;
    let backends: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    let text = format!(
        "services: [{{name: shop, vips: [127.0.0.1], port: {}}}]\npools:\n  - name: shop\n    backends: [{}]\n    \
         health: {{interval: 500ms, timeout: 500ms, rise: 1, fall: 1, {health}}}\n\
         routes: [{{path: /**, pool: shop, public: true}}]\n",
        address.port(),
        backends.join(", ")
    );
    Edge::start_at(address, &text)
}

/// Waits until a backend is in this state, and its last error has these words.
fn until(edge: &Edge, backend: SocketAddr, state: &str, words: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let listed: Vec<Value> = serde_json::from_str(&edge.command(&["backends", "--json"])?)?;
        let found = listed.iter().find(|listed| listed["address"] == backend.to_string()).context("not listed")?;
        let error = found["l7"]["last_error"].as_str().unwrap_or_default();
        if found["l7"]["state"] == state && error.contains(words) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{found} instead of {state} {words:?}; the log:\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn grpc_services_are_asked_for_their_own_health() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking().or(GrpcHealth::lacking())) {
        return Ok(());
    }
    let (mut server, other) = (GrpcHealth::start(&[])?, GrpcHealth::start(&["--without-health"])?);
    server.set("shop.v1.Carts", "SERVING")?;
    let edge = edge(&[server.address, other.address], "kind: grpc, service: shop.v1.Carts")?;
    until(&edge, other.address, "down", "does not speak grpc.health.v1")?;
    until(&edge, server.address, "serving", "")?;
    for (status, state, words) in [
        ("NOT_SERVING", "down", "NOT_SERVING"),
        ("SERVING", "serving", ""),
        ("UNKNOWN", "down", "status 0"),
        ("SERVING", "serving", ""),
    ] {
        server.set("shop.v1.Carts", status)?;
        until(&edge, server.address, state, words)?;
    }
    let unknown = self::edge(&[server.address], "kind: grpc, service: shop.v1.Nobody")?;
    until(&unknown, server.address, "down", "no such service")
}

#[test]
fn a_tls_check_wants_the_name_and_the_authority() -> Result<()> {
    let lacking = Command::new("openssl").arg("version").output().is_err().then_some("needs openssl");
    if level::is_skipped("peers", Edge::lacking().or(lacking)) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for name in ["shop.internal", "other.internal"] {
        openssl::certify(folder, name)?;
    }
    fs::copy(folder.join("shop.internal.pem"), folder.join("both.pem"))?;
    let both = [fs::read(folder.join("shop.internal.pem"))?, fs::read(folder.join("other.internal.pem"))?].concat();
    fs::write(folder.join("both.pem"), both)?;
    let serve = |name| openssl::Server::start(folder, name, &["-quiet"]);
    let (shop, other) = (serve("shop.internal")?, serve("other.internal")?);
    let health = |ca: &str| format!("kind: tls, server_name: shop.internal, ca: {}", folder.join(ca).display());

    let edge = edge(&[shop.address, other.address], &health("both.pem"))?;
    until(&edge, shop.address, "serving", "")?;
    until(&edge, other.address, "down", "the TLS handshake failed")?;

    let edge = self::edge(&[shop.address], &health("other.internal.pem"))?;
    until(&edge, shop.address, "down", "the TLS handshake failed")
}
