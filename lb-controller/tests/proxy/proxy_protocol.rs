//! The PROXY protocol, from tiers before the edge and to backends behind it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lb_controller::config::{Config, PoolConfig, ProxyVersion};
use lb_controller::health::HealthChecks;
use lb_controller::proxy_protocol::{Carried, Ends, of_client, of_nobody, read};
use lb_controller::serve::accept::Limits;

use crate::support::client::{Raw, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::Origin;

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

/// An edge that takes loopback for its tier.
fn behind_a_tier(origin: &Origin) -> Edge {
    let trust: fn(&mut _) = |config: &mut Config| {
        config.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let limits = Limits { handshake: Duration::from_secs(2), ..Limits::default() };
    Edge::with(&[origin.address], Options { config: Some(trust), limits, ..Options::default() })
}

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v4() -> Ends {
    ends("203.0.113.9:5000", "198.51.100.10:443")
}

fn count(edge: &Edge, line: &str) -> bool {
    edge.metrics.render().lines().any(|shown| shown == line)
}

#[test]
fn backends_learn_whom_the_tier_speaks_for() {
    let origin = Origin::answering("hello");
    let edge = behind_a_tier(&origin);
    let v6 = ends("[2001:db8::9]:5000", "[2001:db8:100::10]:443");
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("version 1", of_client(ProxyVersion::V1, v4()), "203.0.113.9"),
        ("version 2", of_client(ProxyVersion::V2, v4()), "203.0.113.9"),
        ("version 2 of IPv6", of_client(ProxyVersion::V2, v6), "2001:db8::9"),
        ("UNKNOWN", of_nobody(ProxyVersion::V1).to_vec(), "127.0.0.1"),
        ("LOCAL", of_nobody(ProxyVersion::V2).to_vec(), "127.0.0.1"),
    ];
    for (what, header, client) in rows {
        let mut raw = Raw::connect_after(&edge, &[&header]);
        raw.write(GET);
        assert_eq!(status(&raw.read_to_end()), 200, "{what}");
        assert_eq!(origin.received().last().unwrap().values("x-forwarded-for"), [client], "{what}");
    }
    assert!(count(&edge, "lb_proxy_headers_total{result=\"client\"} 3"), "{}", edge.metrics.render());
    assert!(count(&edge, "lb_proxy_headers_total{result=\"nobody\"} 2"), "{}", edge.metrics.render());
}

#[test]
fn a_header_may_come_byte_by_byte_and_the_handshake_right_behind_it() {
    let origin = Origin::answering("hello");
    let edge = behind_a_tier(&origin);
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = of_client(version, v4());
        let bytes: Vec<&[u8]> = header.chunks(1).collect();
        let mut raw = Raw::connect_after(&edge, &bytes);
        raw.write(GET);
        assert_eq!(status(&raw.read_to_end()), 200, "{version:?}");
    }
    for received in origin.received() {
        assert_eq!(received.values("x-forwarded-for"), ["203.0.113.9"]);
    }
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn who_is_trusted_must_say_whose_it_is_and_who_is_not_cannot() {
    let origin = Origin::answering("hello");
    let edge = behind_a_tier(&origin);
    let closes = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(edge.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).map_err(|error| assert!(!is_late(&error), "it was left open"));
    };
    closes(b"\x16\x03\x01\x00\x05hello");
    closes(b"PROXY TCP4 203.0.113.9 198.51.100.10 5000\r\n");
    closes(b"PROXY TCP4 203.0.113.9");
    assert_eq!(origin.received().len(), 0);
    eventually("all are counted", || count(&edge, "lb_proxy_headers_total{result=\"refused\"} 2"));

    let plain = Edge::start(&[origin.address]);
    let mut raw = Raw::connect_after(&plain, &[&of_client(ProxyVersion::V1, v4())]);
    raw.write(GET);
    assert_eq!(raw.read_to_end(), "", "from anybody else a header is a handshake that fails");
    assert_eq!(origin.received().len(), 0);
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// A backend that reads a PROXY header and then requests; what came on each connection.
fn told() -> (SocketAddr, Receiver<(usize, Carried, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let sender = sender.clone();
            std::thread::spawn(move || answer(stream, number, &sender));
        }
    });
    (address, receiver)
}

fn answer(mut stream: TcpStream, number: usize, told: &std::sync::mpsc::Sender<(usize, Carried, String)>) {
    let (mut bytes, mut carried) = (Vec::new(), None);
    let mut piece = [0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..got]);
        if carried.is_none()
            && let Some((found, length)) = read(&bytes).unwrap()
        {
            carried = Some(found);
            bytes.drain(..length);
        }
        if let (Some(carried), true) = (carried, bytes.ends_with(b"\r\n\r\n")) {
            let line = String::from_utf8_lossy(&bytes).lines().next().unwrap().to_owned();
            // Nobody listens once the test is over.
            let _ = told.send((number, carried, line));
            bytes.clear();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    }
}

#[test]
fn a_backend_that_wants_to_be_told_gets_each_client_on_a_connection_of_its_own() {
    type Change = fn(&mut PoolConfig);
    let rows: [(&str, Change); 2] = [
        ("version 1", |pool| pool.send_proxy_protocol = Some(ProxyVersion::V1)),
        ("version 2", |pool| pool.send_proxy_protocol = Some(ProxyVersion::V2)),
    ];
    for (what, pool) in rows {
        let (backend, told) = told();
        let edge = Edge::with(&[backend], Options { pool: Some(pool), ..Options::default() });
        let mut connections = Vec::new();
        for path in ["/first", "/second"] {
            let mut raw = Raw::connect(&edge);
            raw.write(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
            assert_eq!(status(&raw.read_response().0), 200, "{what}");
            let (connection, carried, line) = told.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(line, format!("GET {path} HTTP/1.1"), "{what}");
            let client = raw.local_address();
            assert_eq!(carried, Carried::Client(Ends { source: client, destination: edge.address }), "{what}");
            connections.push(connection);
        }
        assert_eq!(connections, [0, 1], "{what}: what one client's connection began with, no other's request follows");
    }
}

#[test]
fn what_a_tier_says_goes_on_to_backends() {
    let (backend, told) = told();
    let pool: fn(&mut _) = |pool: &mut PoolConfig| {
        pool.send_proxy_protocol = Some(ProxyVersion::V2);
    };
    let trust: fn(&mut _) = |config: &mut Config| {
        config.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    };
    let edge = Edge::with(&[backend], Options { pool: Some(pool), config: Some(trust), ..Options::default() });
    let mut raw = Raw::connect_after(&edge, &[&of_client(ProxyVersion::V1, v4())]);
    raw.write(GET);
    assert_eq!(status(&raw.read_to_end()), 200);
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap().1, Carried::Client(v4()));
}

#[test]
fn health_checks_say_that_they_are_nobodys() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (backend, told) = told();
        let pool: fn(&mut _) = match version {
            ProxyVersion::V1 => |pool: &mut PoolConfig| {
                pool.health.send_proxy_protocol = Some(ProxyVersion::V1);
            },
            ProxyVersion::V2 => |pool: &mut PoolConfig| {
                pool.health.send_proxy_protocol = Some(ProxyVersion::V2);
            },
        };
        let edge = Edge::with(&[backend], Options { pool: Some(pool), ..Options::default() });
        let checks = HealthChecks::start(|_| {}).unwrap();
        checks.watch(&edge.pools);
        let (_, carried, line) = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((carried, &*line), (Carried::Nobody, "GET /health HTTP/1.1"), "{version:?}");
    }
}
