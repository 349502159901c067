//! Backends behind TLS and HTTP/2, before servers that others wrote.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, free_address};
use lb_tests::grpc_echo::{self, GrpcEcho};
use lb_tests::grpc_health::GrpcHealth;
use lb_tests::{level, openssl};

/// An edge whose only pool has one backend and `more` keys.
fn edge(backend: SocketAddr, more: &str) -> Result<Edge> {
    let address = free_address()?;
    let text = format!(
        "services: [{{name: shop, vips: [127.0.0.1], port: {}}}]\npools:\n  - name: shop\n    backends: [\"{backend}\"]\n{more}\
         routes: [{{path: /**, pool: shop, public: true}}]\n",
        address.port(),
    );
    Edge::start_at(address, &text)
}

/// The status and the text of an answer.
fn get(edge: &Edge, path: &str) -> Result<(String, String)> {
    let mut curl = Command::new("curl");
    let output = curl.args(["-sk", "--max-time", "20", "-w", "\n%{http_code}", &edge.url(path)]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, status) = said.rsplit_once('\n').context("curl says nothing")?;
    Ok((status.to_owned(), text.to_owned()))
}

/// Asks until the status is this one.
fn until(edge: &Edge, status: &str, words: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (last, text) = get(edge, "/hello.txt")?;
        if last == status && text.contains(words) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{last} {text} instead of {status}; the log:\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn openssl_lacking() -> Option<&'static str> {
    Command::new("openssl").arg("version").output().is_err().then_some("needs openssl")
}

/// Puts one file in the place of another, as whoever renews certificates should.
fn replace(folder: &Path, from: &str, to: &str) -> Result<()> {
    fs::copy(folder.join(from), folder.join("next"))?;
    Ok(fs::rename(folder.join("next"), folder.join(to))?)
}

#[test]
fn a_backend_of_openssl_is_believed_as_long_as_its_authority_is() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking().or(openssl_lacking())) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for name in ["shop.internal", "other.internal", "edge.internal"] {
        openssl::certify(folder, name)?;
    }
    fs::write(folder.join("hello.txt"), "hello from openssl\n")?;
    replace(folder, "shop.internal.pem", "ca.pem")?;
    let wants_client = ["-WWW", "-Verify", "1", "-verify_return_error", "-CAfile", "edge.internal.pem"];
    let server = openssl::Server::start(folder, "shop.internal", &wants_client)?;
    let of = |name: &str| folder.join(name).display().to_string();
    let tls = format!(
        "    tls: {{server_name: shop.internal, ca: {}, client_certificate: {}, client_key: {}}}\n    health: {{kind: tcp}}\n",
        of("ca.pem"),
        of("edge.internal.pem"),
        of("edge.internal.key"),
    );
    let edge = edge(server.address, &tls)?;
    until(&edge, "200", "hello from openssl")?;

    replace(folder, "other.internal.pem", "ca.pem")?;
    until(&edge, "502", "urn:lb:problem:backend-untrusted")?;
    let shown = edge.metrics()?;
    let untrusted =
        |series: &str| series.starts_with("lb_backend_tls_handshakes_total") && series.contains("untrusted");
    ensure!(shown.sum_of(untrusted) >= 1.0, "{shown:?}");
    // Access lines are written a moment later.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !edge.log().contains("the backend did not prove who it is") {
        ensure!(Instant::now() < deadline, "{}", edge.log());
        std::thread::sleep(Duration::from_millis(50));
    }

    replace(folder, "shop.internal.pem", "ca.pem")?;
    until(&edge, "200", "hello from openssl")
}

#[test]
fn grpc_goes_end_to_end_with_streams_both_ways() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking().or(GrpcHealth::lacking()).or(openssl_lacking())) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    openssl::certify(folder.path(), "shop.internal")?;
    let (certificate, key) = (folder.path().join("shop.internal.pem"), folder.path().join("shop.internal.key"));
    let tls = format!("    tls: {{server_name: shop.internal, ca: {}}}\n", certificate.display());
    for (pair, pool) in [
        (None, "    protocol: h2c\n".to_owned()),
        (Some((&*certificate, &*key)), format!("{tls}    protocol: h2\n")),
        (Some((&*certificate, &*key)), format!("{tls}    protocol: auto\n")),
    ] {
        let mut server = GrpcEcho::start(pair)?;
        let edge = edge(server.address, &format!("{pool}    health: {{kind: tcp}}\n"))?;
        let said = grpc_echo::call(edge.address, &edge.state_dir().join("self-signed.crt"))
            .with_context(|| format!("{pool}; the log:\n{}", edge.log()))?;
        let expected = "once 300000 300000\nboth FIRST\nboth SECOND\nboth THIRD\nboth OK reached\n\
                        fail FAILED_PRECONDITION not today\nwait begun\nwait CANCELLED\n";
        ensure!(said == expected, "{pool}: {said}");
        ensure!(server.says()? == "given up", "the server learns that its client is gone");
    }
    Ok(())
}
