//! Certificates ordered by the real controller from a real authority: Let's Encrypt's Pebble, from Debian.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::{Edge, free_address, service_with};
use lb_tests::issued::issue;
use lb_tests::openssl::connect;
use lb_tests::pebble::{Pebble, Settings};
use lb_tests::{level, origin};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(40);
const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";

fn is_skipped() -> bool {
    level::is_skipped("peers", Edge::lacking().or(Pebble::lacking()))
}

/// Where an edge speaks HTTPS and plain HTTP.
fn addresses() -> Result<(SocketAddr, SocketAddr)> {
    Ok((free_address()?, free_address()?))
}

/// The section `acme` for an authority, in which `more` stands too.
fn orders(directory: &str, ca: &Path, names: &[&str], more: &str) -> String {
    let (ca, names) = (ca.display(), names.join(", "));
    format!(
        "acme:\n  directory: {directory}\n  ca: {ca}\n  contact: ops@shop.example\n  terms_agreed: true\n  certificates: \
         [{{names: [{names}]}}]\n{more}"
    )
}

fn start((https, http): (SocketAddr, SocketAddr), orders: &str) -> Result<Edge> {
    let backend = origin::start_aside()?;
    let text = service_with(https, backend, ROUTES) + orders;
    let arguments = ["--listen-http".to_owned(), http.to_string()];
    Edge::start_with(https, &text, &arguments)
}

/// What is ordered, once it `is` as wanted.
fn ordered_once(edge: &Edge, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let list: Vec<Value> = serde_json::from_str(&edge.command(&["certificates", "--json"])?)?;
        let ordered = list.into_iter().find(|listed| listed["source"] == "acme").context("nothing is ordered")?;
        if is(&ordered) {
            return Ok(ordered);
        }
        ensure!(Instant::now() < deadline, "not {what}: {ordered:#}\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has_come(ordered: &Value) -> bool {
    !ordered["not_after"].is_null()
}

fn has_failed(ordered: &Value) -> bool {
    ordered["order"]["failures"].as_u64() > Some(0)
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn now() -> Result<u64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())
}

#[test]
fn a_certificate_comes_by_either_challenge_and_until_then_there_is_a_self_signed_one() -> Result<()> {
    if is_skipped() {
        return Ok(());
    }
    for kind in ["tls-alpn-01", "http-01"] {
        let own = addresses()?;
        let mut pebble = Pebble::new(&Settings::asking(own.0, own.1))?;
        let more = format!("  challenges: {kind}\n");
        let names = ["shop.example", "www.shop.example"];
        let edge = start(own, &orders(&pebble.directory(), &pebble.ca(), &names, &more))?;
        let shown = |name: &str| connect(own.0, name, "/", &["-servername", name]);
        let first = shown("shop.example")?;
        ensure!(first.status()? == 200 && first.text().contains("lb self-signed"), "{}", first.text());
        let ordered = ordered_once(&edge, "waiting for an authority that is down", has_failed)?;
        let why = ordered["order"]["last_error"].as_str().unwrap_or_default();
        ensure!(why.contains("cannot be reached"), "{why}");

        pebble.run()?;
        let ordered = ordered_once(&edge, "there", has_come)?;
        ensure!(ordered["names"] == serde_json::json!(names), "{ordered:#}");
        ensure!(ordered["is_default"] == true && ordered["order"]["failures"] == 0, "{ordered:#}");
        for name in names {
            let seen = shown(name)?;
            ensure!(seen.status()? == 200 && seen.text().contains("Pebble Intermediate CA"), "{}", seen.text());
        }
        let metrics = edge.metrics()?;
        ensure!(metrics.value("lb_acme_orders_total{result=\"issued\"}") == 1.0, "{metrics:?}");
        ensure!(metrics.value("lb_acme_orders_total{result=\"failed\"}") >= 1.0, "{metrics:?}");
        let answered = |kind: &str| metrics.value(&format!("lb_acme_challenges_answered_total{{type=\"{kind}\"}}"));
        let others = ["tls-alpn-01", "http-01"].map(|other| if other == kind { 0.0 } else { answered(other) });
        ensure!(answered(kind) >= 2.0 && others == [0.0, 0.0], "{metrics:?}");

        // What is kept is its owner's alone, and answers are gone.
        let folder = edge.state_dir().join("acme");
        ensure!(mode(&folder)? == 0o700 && mode(Path::new(ordered["file"].as_str().context("a file")?))? == 0o600);
        let accounts = files(&folder.join("accounts"))?;
        ensure!(accounts.len() == 1 && mode(&accounts[0])? == 0o600, "{accounts:?}");
        ensure!(files(&folder.join("challenges"))?.is_empty() && files(&folder.join("attempts"))?.is_empty());
        ensure!(!shown("shop.example")?.text().contains("acme"), "no trace of challenges is left");
        let strange = connect(own.0, "shop.example", "/", &["-servername", "shop.example", "-alpn", "acme-tls/1"])?;
        ensure!(!strange.is_made(), "nobody is asked any more: {}", strange.text());
    }
    Ok(())
}

#[test]
fn plain_http_leads_to_https_and_nowhere_else() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let own = addresses()?;
    let edge = start(own, "")?;
    let answer = |request: &str| -> Result<String> {
        let mut stream = std::net::TcpStream::connect(own.1)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        // It closes while a pipelined request is still unread.
        let _ = stream.read_to_string(&mut text);
        Ok(text)
    };
    let https = own.0.port();
    for (request, status, location) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\n\r\n", 308, "/a?b=c"),
        ("POST /a HTTP/1.1\r\nHost: shop.example:80\r\nContent-Length: 1000000\r\n\r\n", 308, "/a"),
        ("GET /a HTTP/1.0\r\nHost: SHOP.example\r\n\r\n", 308, "/a"),
        ("GET /a HTTP/1.1\r\n\r\n", 400, ""),
        ("GET /a HTTP/1.1\r\nHost: shop.example\r\nHost: other.example\r\n\r\n", 400, ""),
        ("GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: shop.example\r\n\r\n", 404, ""),
    ] {
        let text = answer(request)?;
        ensure!(
            text.starts_with(&format!("HTTP/1.{} {status}", if request.contains("1.0") { 0 } else { 1 })),
            "{text}"
        );
        let expected = format!("location: https://shop.example:{https}{location}\r\n");
        ensure!((status != 308) || text.contains(&expected), "{request}: {text}");
        ensure!(text.matches("HTTP/1.").count() == 1, "{text}");
    }
    let two = "GET /1 HTTP/1.1\r\nHost: shop.example\r\n\r\n".repeat(2);
    ensure!(answer(&two)?.matches("HTTP/1.1").count() == 1, "one request a connection");
    ensure!(answer("\x16\x03\x01\x02\x00")?.matches("308").count() == 0, "no TLS is spoken there");
    let metrics = edge.metrics()?;
    ensure!(metrics.value("lb_plain_http_requests_total{result=\"redirected\"}") == 4.0, "{metrics:?}");
    ensure!(metrics.value("lb_plain_http_requests_total{result=\"refused\"}") == 3.0, "{metrics:?}");
    Ok(())
}

#[test]
fn certificates_are_renewed_in_time_even_by_an_authority_that_forgot_the_account() -> Result<()> {
    if is_skipped() {
        return Ok(());
    }
    let own = addresses()?;
    let settings = Settings { valid_for: Duration::from_secs(12), ..Settings::asking(own.0, own.1) };
    let mut pebble = Pebble::start(&settings)?;
    let edge = start(own, &orders(&pebble.directory(), &pebble.ca(), &["shop.example"], ""))?;
    let first = ordered_once(&edge, "there", has_come)?;
    let due = first["order"]["next_attempt_at"].as_u64().context("it will be renewed")?;
    let ends = first["not_after"].as_u64().context("it ends")?;
    ensure!(due < ends && due + 6 > ends, "in its last third: {first:#}");
    let file = Path::new(first["file"].as_str().context("a file")?).to_owned();
    let first_bytes = fs::read(&file)?;
    // Renewed while it is still good, without a handshake that fails or meets what is over.
    let is_newer = |ordered: &Value| ordered["not_after"].as_u64() > Some(ends);
    let second = ordered_once(&edge, "renewed", is_newer)?;
    ensure!(now()? <= ends, "before its end");
    ensure!(fs::read(&file)? != first_bytes && pebble.orders() == 2, "{}", pebble.log());
    let ends = second["not_after"].as_u64().context("it ends")?;

    // It begins anew, and knows nobody.
    pebble.stop();
    pebble.run()?;
    ordered_once(&edge, "renewed again", |ordered| ordered["not_after"].as_u64() > Some(ends))?;
    ensure!(edge.log().contains("does not know our account any more"), "{}", edge.log());
    Ok(())
}

#[test]
fn an_authority_that_refuses_is_left_in_peace_and_told_of() -> Result<()> {
    if is_skipped() {
        return Ok(());
    }
    let (own, nowhere) = (addresses()?, addresses()?);
    let blocked = Settings { blocked: vec!["shop.example".to_owned()], ..Settings::asking(own.0, own.1) };
    let asks_elsewhere = Settings::asking(nowhere.0, nowhere.1);
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let knows = Settings { customer: Some(("kid-1".to_owned(), key.to_owned())), ..Settings::asking(own.0, own.1) };
    for (settings, reason) in [
        (&blocked, "rejectedIdentifier"),
        (&asks_elsewhere, "does not believe that the names are ours: shop.example: "),
        (&knows, "externalAccountRequired"),
    ] {
        let pebble = Pebble::start(settings)?;
        let edge = start(own, &orders(&pebble.directory(), &pebble.ca(), &["shop.example"], ""))?;
        let failed = ordered_once(&edge, "refused", has_failed)?;
        let why = failed["order"]["last_error"].as_str().unwrap_or_default();
        ensure!(why.contains(reason), "{reason}: {why}");
        let next = failed["order"]["next_attempt_at"].as_u64().context("a time")?;
        ensure!(next >= now()? + 290, "five minutes at least: {failed:#}");
        let metrics = edge.metrics()?;
        ensure!(metrics.value("lb_acme_failures_in_a_row{name=\"shop.example\"}") == 1.0, "{metrics:?}");
        let table = edge.command(&["certificates"])?;
        ensure!(table.contains("order failed for shop.example") && table.contains("self_signed"), "{table}");
        let seen = connect(own.0, "shop.example", "/", &["-servername", "shop.example"])?;
        ensure!(seen.status()? == 200, "served all the same: {}", seen.text());
    }
    // The third with the customer's key.
    let pebble = Pebble::start(&knows)?;
    let account = format!("  external_account: {{key_id: kid-1, hmac_key: {key}}}\n");
    let edge = start(own, &orders(&pebble.directory(), &pebble.ca(), &["shop.example"], &account))?;
    ordered_once(&edge, "there", has_come)?;
    Ok(())
}

/// Answers every connection with the same bytes; its address, and who vouches for it.
fn answering(folder: &Path, answer: String) -> Result<SocketAddr> {
    let own = issue(folder, "bad", &rcgen::PKCS_ECDSA_P256_SHA256, &["127.0.0.1"], |_| ())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&own.certificate)?],
            PrivateKeyDer::from_pem_file(&own.key)?,
        )?;
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0")?);
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(session) = rustls::ServerConnection::new(config.clone()) else { return };
            let mut stream = rustls::StreamOwned::new(session, stream);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    Ok(address)
}

#[test]
fn an_authority_that_answers_badly_is_waited_for_as_long_as_it_asks() -> Result<()> {
    if is_skipped() {
        return Ok(());
    }
    let whole = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n{body}", body.len())
    };
    let limited = "{\"type\":\"urn:ietf:params:acme:error:rateLimited\",\"detail\":\"too many orders\"}";
    let huge = "x".repeat(2 * 1024 * 1024);
    for (answer, reason, least_seconds) in [
        (whole("200 OK", "", "<html>It works!</html>"), "answers badly", 290),
        (whole("429 Too Many Requests", "Retry-After: 7200\r\n", limited), "answers badly", 7_100),
        (whole("503 Service Unavailable", "Retry-After: 86400\r\n", "down"), "answers badly", 86_000),
        (whole("200 OK", "", &huge), "answered badly", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".to_owned(), "answered badly", 1),
        ("not HTTP at all\r\n\r\n".to_owned(), "cannot be reached", 1),
    ] {
        // Others may have taken the port of an edge that is gone.
        let (own, folder) = (addresses()?, TempDir::new()?);
        let address = answering(folder.path(), answer.clone())?;
        let directory = format!("https://{address}/dir");
        let edge = start(own, &orders(&directory, &folder.path().join("bad.crt"), &["shop.example"], ""))?;
        let failed = ordered_once(&edge, "refused", has_failed)?;
        let shown = &answer[..answer.len().min(120)];
        let why = failed["order"]["last_error"].as_str().unwrap_or_default();
        ensure!(why.contains(reason), "{shown}: {why}");
        let next = failed["order"]["next_attempt_at"].as_u64().context("a time")?;
        ensure!(next >= now()? + least_seconds - 1, "{shown}: {failed:#}");
    }
    Ok(())
}

#[test]
fn hosts_that_share_a_folder_order_once_and_answer_for_each_other() -> Result<()> {
    if is_skipped() {
        return Ok(());
    }
    let shared = TempDir::new()?;
    // The authority asks the first host only, whichever of them ordered; and it is not there before they all are.
    let own = [addresses()?, addresses()?, addresses()?];
    let mut pebble = Pebble::new(&Settings::asking(own[0].0, own[0].1))?;
    let more = format!("  storage: {}\n", shared.path().display());
    let text = orders(&pebble.directory(), &pebble.ca(), &["shop.example"], &more);
    let edges = [start(own[0], &text)?, start(own[1], &text)?, start(own[2], &text)?];
    ordered_once(&edges[2], "waiting", has_failed)?;
    pebble.run()?;
    let mut files = Vec::new();
    for edge in &edges {
        files.push(ordered_once(edge, "there", has_come)?["file"].clone());
    }
    ensure!(pebble.orders() == 1, "{} orders:\n{}", pebble.orders(), pebble.log());
    ensure!(files.iter().all(|file| *file == files[0]), "{files:?}");
    let mut issued = 0.0;
    for (edge, (https, _)) in edges.iter().zip(own) {
        let seen = connect(https, "shop.example", "/", &["-servername", "shop.example"])?;
        ensure!(seen.status()? == 200 && seen.text().contains("Pebble Intermediate CA"), "{}", seen.text());
        issued += edge.metrics()?.value("lb_acme_orders_total{result=\"issued\"}");
    }
    ensure!(issued == 1.0, "{issued}");
    let answered = edges[0].metrics()?.value("lb_acme_challenges_answered_total{type=\"tls-alpn-01\"}");
    ensure!(answered >= 1.0, "the first answered");
    Ok(())
}
