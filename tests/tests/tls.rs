//! TLS before the real controller, as OpenSSL sees it: which certificate, which protocols, which sessions are resumed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::authority::Authority;
use lb_tests::edge::{Edge, free_address, service_with};
use lb_tests::issued::{self, issue};
use lb_tests::openssl::connect;
use lb_tests::{level, origin};
use rcgen::{PKCS_ECDSA_P256_SHA256 as ECDSA, PKCS_RSA_SHA256 as RSA, date_time_ymd};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(20);
const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";

/// An edge whose configuration goes on with `more`.
fn start(more: String) -> Result<Edge> {
    start_at(free_address()?, ROUTES, more)
}

fn start_at(address: SocketAddr, routes: &str, more: String) -> Result<Edge> {
    let backend = origin::start_aside()?;
    let text = service_with(address, backend, routes) + &more;
    Edge::start_at(address, &text)
}

fn listed(edge: &Edge) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&edge.command(&["certificates", "--json"])?)?)
}

/// The first certificate in the list, once it `is` as wanted.
fn first_once(edge: &Edge, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let first = listed(edge)?.into_iter().next().context("there is none")?;
        if is(&first) {
            return Ok(first);
        }
        ensure!(Instant::now() < deadline, "not {what}: {first:#}\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_clients_say_in_handshakes_writes_no_line_into_the_log() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let edge = start(String::new())?;
    for name in ["127.0.0.1", "no name at all", "shop.test"] {
        let seen = connect(edge.address, "shop.test", "/", &["-servername", name])?;
        ensure!(name != "shop.test" || seen.status()? == 200, "{}", seen.text());
    }
    let log = edge.log();
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("rustls")).collect();
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

#[test]
fn the_name_and_the_clients_signature_schemes_choose_the_certificate() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let names = ["shop.example", "*.shop.example"];
    let first = issue(folder.path(), "first", &ECDSA, &["first.example"], |_| ())?;
    let ecdsa = issue(folder.path(), "ecdsa", &ECDSA, &names, |_| ())?;
    let rsa = issue(folder.path(), "rsa", &RSA, &names, |_| ())?;
    let exact = issue(folder.path(), "exact", &ECDSA, &["api.shop.example"], |_| ())?;
    let lines: String = [&first, &rsa, &ecdsa, &exact].iter().map(|issued| issued.line()).collect();
    let edge = start(format!("certificates:\n{lines}"))?;
    let rows: [(&str, &[&str], _, &str); 9] = [
        ("first.example", &[], &first, "ECDSA"),
        ("shop.example", &[], &ecdsa, "ECDSA"),
        ("shop.example", &["-sigalgs", "RSA-PSS+SHA256"], &rsa, "RSA-PSS"),
        ("shop.example", &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], &rsa, "RSA-PSS"),
        ("shop.example", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], &ecdsa, "ECDSA"),
        ("www.shop.example", &[], &ecdsa, "ECDSA"),
        ("api.shop.example", &[], &exact, "ECDSA"),
        ("a.b.shop.example", &[], &first, "ECDSA"),
        ("stranger.example", &[], &first, "ECDSA"),
    ];
    for (name, options, expected, signed) in rows {
        let seen = connect(edge.address, name, "/", &[&["-servername", name], options].concat())?;
        ensure!(seen.certificate()? == expected.der, "{name} {options:?}: {}", seen.text());
        ensure!(seen.says("Peer signature type") == Some(signed), "{name} {options:?}: {}", seen.text());
        ensure!(seen.status()? == 200, "{name}: {}", seen.text());
    }
    let nameless = connect(edge.address, "first.example", "/", &["-noservername"])?;
    ensure!(nameless.certificate()? == first.der && nameless.status()? == 200, "{}", nameless.text());
    let list = listed(&edge)?;
    ensure!(list.len() == 4 && list[0]["is_default"] == true && list[1]["key_type"] == "RSA 2048", "{list:#?}");
    ensure!(list[2]["names"] == serde_json::json!(names) && list[2]["source"] == "files", "{list:#?}");
    let table = edge.command(&["certificates"])?;
    ensure!(table.contains("first.example (default)") && table.contains("ECDSA P-256"), "{table}");
    Ok(())
}

#[test]
fn new_files_are_served_and_a_pair_that_does_not_match_is_not() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let old = issue(folder.path(), "shop", &ECDSA, &["shop.example"], |_| ())?;
    let edge = start(format!("certificates:\n{}", old.line()))?;
    let shown = || connect(edge.address, "shop.example", "/", &["-servername", "shop.example"])?.certificate();
    ensure!(shown()? == old.der);
    // A certificate whose key has not come along.
    let key = fs::read_to_string(&old.key)?;
    let new = issue(folder.path(), "shop", &ECDSA, &["shop.example", "new.example"], |_| ())?;
    let new_key = fs::read_to_string(&new.key)?;
    issued::put(&new.key, &key)?;
    let first = first_once(&edge, "refused", |first| first["refused"].is_string())?;
    ensure!(first["refused"].as_str().is_some_and(|why| why.contains("does not belong to")), "{first:#}");
    ensure!(shown()? == old.der, "the old one goes on");
    ensure!(edge.log().contains("new certificate refused, the old one goes on"), "{}", edge.log());
    ensure!(edge.metrics()?.value("lb_certificates_refused") == 1.0);
    ensure!(edge.metrics()?.value("lb_certificate_changes_total{result=\"refused\"}") == 1.0);

    issued::put(&new.key, &new_key)?;
    first_once(&edge, "taken", |first| first["refused"].is_null() && first["names"][1] == "new.example")?;
    ensure!(shown()? == new.der);
    let metrics = edge.metrics()?;
    ensure!(metrics.value("lb_certificates_refused") == 0.0);
    ensure!(metrics.value("lb_certificate_changes_total{result=\"taken\"}") == 1.0);
    let expiry = metrics.sum("lb_certificate_expiry_timestamp_seconds");
    ensure!(expiry == listed(&edge)?[0]["not_after"].as_f64().context("no end")?, "{expiry}");
    Ok(())
}

#[test]
fn check_names_each_bad_certificate_at_its_line() -> Result<()> {
    let Some(program) = std::env::var_os("LB_CONTROLLER") else {
        level::is_skipped("peers", Edge::lacking());
        return Ok(());
    };
    let folder = TempDir::new()?;
    let good = issue(folder.path(), "good", &ECDSA, &["a.example"], |_| ())?;
    let over = issue(folder.path(), "over", &ECDSA, &["a.example"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    })?;
    let early = issue(folder.path(), "early", &ECDSA, &["a.example"], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
    })?;
    let mixed = format!("  - {{certificate: {}, key: {}}}\n", good.certificate.display(), over.key.display());
    let least = "pools: {name: shop, backends: \"10.0.0.1:80\"}\nroutes: {path: /**, pool: shop}\n";
    let check = |lines: &[String]| -> Result<(Option<i32>, String)> {
        let file = folder.path().join("lb.yaml");
        fs::write(&file, format!("{least}certificates:\n{}", lines.concat()))?;
        let output = Command::new(&program).arg("check").arg(&file).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, said) = check(&[good.line()])?;
    ensure!(code == Some(0), "{said}");
    let (code, said) = check(&[good.line(), over.line(), early.line(), mixed])?;
    ensure!(code == Some(10), "{said}");
    for (line, what, remedy) in [
        (5, "expired on 2020-02-01", "help: renew it"),
        (6, "not valid before 2090-01-01", "check this machine's clock"),
        (7, "does not belong to the certificate", "give the key it was issued for"),
    ] {
        ensure!(said.contains(&format!("lb.yaml:{line}:")) && said.contains(what) && said.contains(remedy), "{said}");
    }
    ensure!(!said.contains("lb.yaml:4:"), "{said}");
    Ok(())
}

/// Options that keep a session in `file`, or take it up again.
fn session<'a>(option: &'a str, file: &'a Path) -> Result<[&'a str; 4]> {
    Ok(["-servername", "shop.example", option, file.to_str().context("no UTF-8")?])
}

fn write_secrets(file: &Path, letters: &[&str]) -> Result<()> {
    use base64::Engine as _;
    let line = |letter: &&str| base64::engine::general_purpose::STANDARD.encode(letter.repeat(32)) + "\n";
    let aside = file.with_extension("aside");
    fs::write(&aside, letters.iter().map(line).collect::<String>())?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
    Ok(fs::rename(aside, file)?)
}

/// Waits until the edge has said `text` as often.
fn said(edge: &Edge, text: &str, times: usize) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    while edge.log().matches(text).count() < times {
        ensure!(Instant::now() < deadline, "it has not said {text:?} {times} times:\n{}", edge.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn hosts_of_a_fleet_resume_each_others_sessions_until_the_secret_is_gone() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let (secrets, saved) = (folder.path().join("secrets"), folder.path().join("session"));
    write_secrets(&secrets, &["a"])?;
    let own = issue(folder.path(), "shop", &ECDSA, &["shop.example"], |_| ())?;
    let tls = format!("tls: {{ticket_keys: {}}}\ncertificates:\n{}", secrets.display(), own.line());
    let (one, two) = (start(tls.clone())?, start(tls)?);
    let alone = start(format!("certificates:\n{}", own.line()))?;
    // With a first guess at the key exchange that is none of ours, the edge asks for another first message.
    let guesses_wrong = ["-tls1_3", "-groups", "P-521:X25519", "-msg"];
    for (how, hellos) in [(&["-tls1_3", "-msg"][..], 1), (&["-tls1_2", "-msg"], 1), (&guesses_wrong, 2)] {
        let keep = [&session("-sess_out", &saved)?[..], how].concat();
        let resume = [&session("-sess_in", &saved)?[..], how].concat();
        let first = connect(one.address, "shop.example", "/", &keep)?;
        ensure!(first.is_made() && !first.is_resumed() && first.status()? == 200, "{}", first.text());
        ensure!(first.server_hellos()? == hellos, "{how:?}: {}", first.text());
        for (edge, expected, what) in
            [(&one, true, "the same"), (&two, true, "its sister"), (&alone, false, "a stranger")]
        {
            let again = connect(edge.address, "shop.example", "/", &resume)?;
            ensure!(again.is_resumed() == expected && again.status()? == 200, "{how:?} {what}: {}", again.text());
            ensure!(again.server_hellos()? == hellos, "{how:?} {what}: {}", again.text());
        }
    }
    let moved = two.metrics()?;
    ensure!(moved.sum_of(|series| series.contains("kind=\"resumed\"")) == 3.0, "{moved:?}");
    // No request can be replayed: nothing is taken before the handshake's end.
    let early = folder.path().join("early");
    fs::write(&early, "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
    let keep = session("-sess_out", &saved)?;
    let first = connect(one.address, "shop.example", "/", &keep)?;
    ensure!(first.text().contains("Max Early Data: 0"), "{}", first.text());

    // One rotation by hand, and then another.
    let resume = session("-sess_in", &saved)?;
    for (number, (letters, expected)) in [(["b", "a"], true), (["c", "b"], false)].into_iter().enumerate() {
        write_secrets(&secrets, &letters)?;
        said(&two, "new secrets of session tickets in force", number + 1)?;
        let again = connect(two.address, "shop.example", "/", &resume)?;
        ensure!(again.is_resumed() == expected && again.status()? == 200, "{letters:?}: {}", again.text());
    }
    Ok(())
}

#[test]
fn a_resumed_session_keeps_its_client_certificate_and_no_more() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let (authority, other, folder) = (Authority::new()?, Authority::new()?, TempDir::new()?);
    let file = |name: &str| folder.path().join(name);
    fs::write(file("ca.pem"), authority.pem()?)?;
    fs::write(file("other.pem"), other.pem()?)?;
    let own = authority.client("alice", |_| ())?;
    fs::write(file("own.der"), &own.certificate)?;
    fs::write(file("own.key"), own.key.secret_der())?;
    let (saved, bare) = (file("with"), file("without"));
    let path = |path: &Path| path.display().to_string();
    let (certificate, key) = (path(&file("own.der")), path(&file("own.key")));
    let shown = ["-cert", &certificate, "-certform", "DER", "-key", &key, "-keyform", "DER"];

    let backend = origin::start_aside()?;
    let address = free_address()?;
    let routes = "  - {path: /machines/**, pool: shop, public: true, client_certificate: required}\n";
    let configuration = |ca: &str| format!("client_certificates: {{ca: {}}}\n", path(&file(ca)));
    let text = |ca: &str| service_with(address, backend, routes) + &configuration(ca);
    let first = text("ca.pem");
    let edge = Edge::start_at(address, &first)?;
    let get = |options: &[&str]| connect(address, "shop.example", "/machines/1", options);

    for version in ["-tls1_3", "-tls1_2"] {
        let with = get(&[&session("-sess_out", &saved)?[..], &shown, &[version]].concat())?;
        ensure!(with.status()? == 200 && !with.is_resumed(), "{}", with.text());
        let without = get(&[&session("-sess_out", &bare)?[..], &[version]].concat())?;
        ensure!(without.status()? == 403, "{}", without.text());
        let rows: [(&Path, &[&str], u16); 3] = [(&saved, &[], 200), (&bare, &[], 403), (&bare, &shown, 403)];
        for (session_file, options, expected) in rows {
            let again = get(&[&session("-sess_in", session_file)?[..], options, &[version]].concat())?;
            ensure!(again.is_resumed() && again.status()? == expected, "{session_file:?}: {}", again.text());
        }
    }
    // Its authority is trusted no more: neither the session nor the certificate is.
    edge.reconfigure(&text("other.pem"))?;
    let again = get(&[&session("-sess_in", &saved)?[..], &["-tls1_3"]].concat())?;
    ensure!(!again.is_resumed() && again.status()? == 403, "{}", again.text());
    Ok(())
}

#[test]
fn versions_protocols_and_key_exchange_are_as_configured_and_counted() -> Result<()> {
    if level::is_skipped("peers", Edge::lacking()) {
        return Ok(());
    }
    let address = free_address()?;
    let backend = origin::start_aside()?;
    let text = service_with(address, backend, ROUTES);
    let first = text.clone();
    let edge = Edge::start_at(address, &first)?;
    let get = |options: &[&str]| connect(address, "127.0.0.1", "/", options);
    for (options, protocol) in [
        (&["-alpn", "h2,http/1.1"][..], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-tls1_2"], "Protocol  : TLSv1.2"),
        (&["-tls1_3"], "New, TLSv1.3"),
    ] {
        let seen = get(options)?;
        ensure!(seen.text().contains(protocol), "{options:?}: {}", seen.text());
    }
    for options in [&["-tls1_1"][..], &["-alpn", "acme-tls/1"], &["-alpn", "spdy/3"]] {
        let seen = get(options)?;
        ensure!(!seen.is_made(), "{options:?}: {}", seen.text());
    }
    let before = edge.metrics()?;
    let classical = get(&["-msg", "-groups", "X25519:P-256"])?;
    ensure!(classical.server_hellos()? == 1, "a classical client pays no round trip: {}", classical.text());
    let pays = get(&["-msg", "-groups", "X448:P-256"])?;
    ensure!(pays.server_hellos()? == 2, "one that guesses wrong does: {}", pays.text());
    let moved = edge.metrics()?.moved_since(&before, &["lb_tls_handshakes"]);
    let series = |kind: &str, group: &str| {
        format!("lb_tls_handshakes_total{{version=\"1.3\",kind=\"{kind}\",key_exchange=\"{group}\"}}")
    };
    let expected = [(series("full", "X25519"), 1.0), (series("retried", "secp256r1"), 1.0)];
    ensure!(moved == expected.into(), "{moved:?}");

    edge.reconfigure(&format!("{text}tls: {{minimum_version: 1.3, alpn: [http/1.1]}}\n"))?;
    ensure!(!get(&["-tls1_2"])?.is_made());
    ensure!(get(&["-tls1_3"])?.status()? == 200);
    ensure!(!get(&["-alpn", "h2"])?.is_made());
    ensure!(get(&["-alpn", "h2,http/1.1"])?.status()? == 200);
    Ok(())
}
