//! Backends behind TLS, and those that only say that they are the ones that are meant.

use std::io::Write;
use std::sync::Arc;

use lb_controller::config::{BackendTls, HealthKind, PoolConfig, TlsVersion};
use lb_controller::health::HealthChecks;
use rcgen::date_time_ymd;
use rustls::SupportedProtocolVersion;
use rustls_pki_types::ServerName;

use crate::support::authority::Authority;
use crate::support::client::{Raw, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::tls_origin::{Seen, Terms, TlsOrigin};

const NAME: &str = "backend.internal";

type Versions = &'static [&'static SupportedProtocolVersion];
static TLS12: Versions = &[&rustls::version::TLS12];
static TLS13: Versions = &[&rustls::version::TLS13];

/// Wants certificates of `authority` for [`NAME`].
fn tls(authority: &Authority) -> BackendTls {
    BackendTls {
        server_name: Some(ServerName::try_from(NAME).unwrap()),
        authorities: vec![authority.certificate.clone()],
        ..BackendTls::default()
    }
}

fn edge(backends: &[&TlsOrigin], tls: BackendTls) -> Edge {
    let backends: Vec<_> = backends.iter().map(|origin| origin.address).collect();
    Edge::with(&backends, Options { backend_tls: Some(tls), ..Options::default() })
}

fn shown(edge: &Edge, result: &str) -> u64 {
    let metrics = edge.metrics.render();
    let of_result = format!("result=\"{result}\"}} ");
    let lines = metrics.lines().filter(|line| line.starts_with("lb_backend_tls_handshakes_total"));
    lines.filter_map(|line| line.split_once(&of_result)?.1.parse::<u64>().ok()).sum()
}

#[test]
fn a_backend_that_proves_its_name_is_spoken_to_over_tls_on_kept_connections() {
    let authority = Authority::new();
    let origin = TlsOrigin::start(authority.issue(NAME));
    let edge = edge(&[&origin], tls(&authority));
    for _ in 0..3 {
        let (status, answer) = get(&edge, "/");
        assert!(status == 200 && answer.ends_with("hello"), "{answer}");
    }
    let first = Seen::Handshake { server_name: Some(NAME.to_owned()), is_resumed: false, shows_certificate: false };
    assert_eq!(origin.seen(), [first], "one connection for all");
    assert_eq!(origin.requests().len(), 3);
    assert_eq!((shown(&edge, "full"), shown(&edge, "untrusted")), (1, 0));
    let opened = format!("lb_backend_connections_opened_total{{pool=\"web\",backend=\"{}\"}} 1", origin.address);
    assert!(edge.metrics.render().contains(&opened));
}

#[test]
fn a_backend_that_proves_nothing_gets_no_byte_of_a_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let over = |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    for (what, certificate) in [
        ("another authority's", stranger.issue(NAME)),
        ("another name's", authority.issue("other.internal")),
        ("one that is over", authority.issue_changed(NAME, over)),
    ] {
        let origin = TlsOrigin::start(certificate);
        let edge = edge(&[&origin], tls(&authority));
        let (status, answer) = get(&edge, "/secret");
        assert!(status == 502 && answer.contains("urn:lb:problem:backend-untrusted"), "{what}: {answer}");
        assert!(origin.requests().is_empty(), "{what}");
        assert!(origin.seen().iter().all(|seen| matches!(seen, Seen::None(_))), "{what}: {:?}", origin.seen());
        let view = &edge.pools.list()[0];
        assert!(view.errors >= 1 && view.last_error.as_deref().unwrap().contains("did not prove"), "{what}: {view:?}");
        assert!(shown(&edge, "untrusted") >= 1, "{what}");
    }
}

#[test]
fn a_backend_that_speaks_no_tls_is_never_asked_in_plain() {
    let plain = Origin::answering("in plain");
    let authority = Authority::new();
    let edge = Edge::with(&[plain.address], Options { backend_tls: Some(tls(&authority)), ..Options::default() });
    let (status, answer) = get(&edge, "/secret");
    assert!(status == 502 && answer.contains("urn:lb:problem:backend-failed"), "{answer}");
    assert!(plain.received().iter().all(|received| !received.head.contains("secret")));
    assert_eq!(shown(&edge, "failed"), 1);
}

#[test]
fn a_request_goes_on_to_a_backend_that_proves_what_the_first_did_not() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (bad, good) = (TlsOrigin::start(stranger.issue(NAME)), TlsOrigin::start(authority.issue(NAME)));
    let edge = edge(&[&bad, &good], tls(&authority));
    for _ in 0..4 {
        assert_eq!(get(&edge, "/").0, 200);
    }
    assert_eq!((bad.requests().len(), good.requests().len()), (0, 4));
}

#[test]
fn without_a_name_the_certificate_must_be_for_the_address() {
    let authority = Authority::new();
    for (certificate, expected) in [("127.0.0.1", 200), ("127.0.0.2", 502), (NAME, 502)] {
        let origin = TlsOrigin::start(authority.issue(certificate));
        let tls = BackendTls { server_name: None, ..tls(&authority) };
        assert_eq!(get(&edge(&[&origin], tls), "/").0, expected, "a certificate for {certificate}");
    }
}

#[test]
fn sessions_are_resumed_where_a_connection_was_not_kept() {
    for versions in [TLS13, TLS12] {
        let authority = Authority::new();
        let close = |stream: &mut _| {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            Write::write_all(stream, answer).is_ok() && Write::flush(stream).is_err()
        };
        let origin =
            TlsOrigin::with(authority.issue(NAME), Terms { versions, script: Arc::new(close), ..Terms::default() });
        let edge = edge(&[&origin], tls(&authority));
        for _ in 0..3 {
            assert_eq!(get(&edge, "/").0, 200);
        }
        let resumed = |seen: &Seen| matches!(seen, Seen::Handshake { is_resumed: true, .. });
        assert_eq!(origin.seen().iter().filter(|seen| resumed(seen)).count(), 2, "{:?}", origin.seen());
        assert_eq!((shown(&edge, "full"), shown(&edge, "resumed")), (1, 2));
    }
}

#[test]
fn the_edge_shows_its_certificate_to_backends_that_ask() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (what, identity, expected) in [
        ("one that is known", Some(authority.identity("edge")), 200),
        ("one of a stranger", Some(stranger.identity("edge")), 502),
        ("none", None, 502),
    ] {
        let terms = Terms { clients: Some(&authority), ..Terms::default() };
        let origin = TlsOrigin::with(authority.issue(NAME), terms);
        let edge = edge(&[&origin], BackendTls { identity, ..tls(&authority) });
        let (status, answer) = get(&edge, "/");
        assert_eq!(status, expected, "{what}: {answer}");
        assert_eq!(origin.requests().len(), usize::from(expected == 200), "{what}");
    }
}

#[test]
fn a_version_that_is_too_old_is_not_spoken() {
    let authority = Authority::new();
    for (minimum_version, expected) in [(TlsVersion::V1_2, 200), (TlsVersion::V1_3, 502)] {
        let terms = Terms { versions: TLS12, ..Terms::default() };
        let origin = TlsOrigin::with(authority.issue(NAME), terms);
        let edge = edge(&[&origin], BackendTls { minimum_version, ..tls(&authority) });
        assert_eq!(get(&edge, "/").0, expected, "{minimum_version:?}");
    }
}

#[test]
fn only_who_says_so_believes_any_certificate() {
    let stranger = Authority::new();
    let origin = TlsOrigin::start(stranger.issue("whoever.example"));
    let any = BackendTls { accepts_any_certificate: true, ..BackendTls::default() };
    assert_eq!(get(&edge(&[&origin], any), "/").0, 200);
    assert_eq!(
        get(&edge(&[&origin], BackendTls::default()), "/").0,
        502,
        "this host's trust store knows no such authority"
    );
}

#[test]
fn a_response_that_tls_does_not_end_is_not_whole() {
    let authority = Authority::new();
    let cut = |stream: &mut _| {
        // Until the connection closes, which an attacker can do; a goodbye of TLS only the backend.
        let _ = Write::write_all(stream, b"HTTP/1.1 200 OK\r\n\r\nall of it?");
        Write::flush(stream).is_err()
    };
    let origin = TlsOrigin::with(authority.issue(NAME), Terms { script: Arc::new(cut), ..Terms::default() });
    let edge = edge(&[&origin], tls(&authority));
    let mut raw = Raw::connect(&edge);
    raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    let answer = raw.read_to_end();
    assert!(status(&answer) == 200 && !answer.contains("0\r\n\r\n"), "{answer}");
    eventually("the backend is charged with it", || edge.pools.list()[0].errors == 1);
}

#[test]
fn checks_go_over_tls_where_requests_do() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    type Change = fn(&mut PoolConfig);
    let kinds: [(&str, Change); 2] = [("http", |_| ()), ("tls", |pool| pool.health.kind = HealthKind::Tls(None))];
    for (kind, pool) in kinds {
        let (good, bad) = (TlsOrigin::start(authority.issue(NAME)), TlsOrigin::start(stranger.issue(NAME)));
        let backend_tls = Some(tls(&authority));
        let options = Options { backend_tls, pool: Some(pool), ..Options::default() };
        let edge = Edge::with(&[good.address, bad.address], options);
        let checks = HealthChecks::start(|_| {}).unwrap();
        checks.watch(&edge.pools);
        eventually("the impostor is down", || !edge.pools.list()[1].healthy);
        let view = &edge.pools.list()[1];
        assert!(view.last_error.as_deref().unwrap().contains("TLS handshake failed"), "{kind}: {view:?}");
        eventually("the other was asked", || good.seen().len() > 1);
        assert!(edge.pools.list()[0].healthy, "{kind}");
        assert!(good.requests().iter().all(|head| head.starts_with("GET /health ")), "{kind}");
    }
}

#[test]
fn checks_can_stay_in_plain() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let requests = TlsOrigin::start(stranger.issue(NAME));
    let pool: fn(&mut PoolConfig) = |pool| pool.health.tls = false;
    let plain = Origin::answering("well");
    let options = Options { backend_tls: Some(tls(&authority)), pool: Some(pool), ..Options::default() };
    let edge = Edge::with(&[plain.address], options);
    let checks = HealthChecks::start(|_| {}).unwrap();
    checks.watch(&edge.pools);
    eventually("it was asked", || plain.request_lines().len() > 2);
    assert!(edge.pools.list()[0].healthy && requests.seen().is_empty());
}
