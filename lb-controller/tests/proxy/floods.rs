//! Floods of connections, and of frames on one.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb_controller::config::{Config, ConnectionLimits};
use lb_controller::serve::accept::Limits;

use crate::support::client::{Raw, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::frames::{Frames, flag, frame, kind, request};
use crate::support::origin::Origin;

/// RFC 9113 §7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

fn shows(edge: &Edge, line: &str) -> bool {
    edge.metrics.render().lines().any(|shown| shown == line)
}

#[test]
fn whoever_floods_an_h2_connection_is_told_to_be_calm_and_nobody_else_notices() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let head = |stream: u32, flags: u8| frame(kind::HEADERS, flags, stream, request("POST", "/", &[]));
    let cancel = |stream: u32| frame(kind::RST_STREAM, 0, stream, 8_u32.to_be_bytes());
    let rows: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("pings", vec![], frame(kind::PING, 0, 0, [7; 8])),
        ("settings", vec![], frame(kind::SETTINGS, 0, 0, [])),
        ("empty data", head(1, flag::END_HEADERS), frame(kind::DATA, 0, 1, [])),
        ("data that is padding", head(1, flag::END_HEADERS), frame(kind::DATA, flag::PADDED, 1, [3, 0, 0, 0])),
        ("windows, byte by byte", vec![], frame(kind::WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes())),
        ("priorities", vec![], frame(kind::PRIORITY, 0, 3, [0, 0, 0, 0, 1])),
        ("frames of no known type", vec![], frame(0xfa, 0, 0, [])),
    ];
    for (what, first, flood) in rows {
        let mut frames = Frames::connect(&edge);
        frames.write([first, flood.repeat(1_500)].concat());
        let goodbye = frames.find(|frame| frame.kind == kind::GOAWAY).expect(what);
        assert_eq!(goodbye.error(), Some(ENHANCE_YOUR_CALM), "{what}");
        assert_eq!(get(&edge, "/").0, 200, "{what}: another connection");
    }
    let resets: Vec<u8> =
        (0..2_000).flat_map(|n| [head(2 * n + 1, flag::END_HEADERS), cancel(2 * n + 1)].concat()).collect();
    let continuations =
        [frame(kind::HEADERS, 0, 1, request("GET", "/", &[])), frame(kind::CONTINUATION, 0, 1, []).repeat(2_000)];
    for (what, flood) in [("resets", resets), ("continuations", continuations.concat())] {
        let mut frames = Frames::connect(&edge);
        frames.write(flood);
        let goodbye = frames.find(|frame| frame.kind == kind::GOAWAY);
        assert!(goodbye.is_none_or(|goodbye| goodbye.error() == Some(ENHANCE_YOUR_CALM)), "{what}");
        assert_eq!(get(&edge, "/").0, 200, "{what}: another connection");
    }
    // Whether we noticed first or the reader of frames beneath, which has limits of its own.
    eventually("each is counted", || shows(&edge, "lb_h2_floods_total 9"));
    eventually("nothing is left under way", || edge.pools.list()[0].in_flight == 0);
}

/// A connection of `client`, whom a tier speaks for, once it has had an answer; `None`: it was reset.
fn client_of(edge: &Edge, client: &str) -> Option<Raw> {
    let header = format!("PROXY TCP4 {client} 198.51.100.10 5000 443\r\n");
    let mut raw = Raw::connect_after(edge, &[header.as_bytes()]);
    raw.certificate()?;
    Some(raw)
}

fn limited(config: &mut Config) {
    config.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    config.connections = ConnectionLimits { per_source: Some(2), per_verified_source: Some(4) };
}

#[test]
fn a_source_holds_as_many_connections_as_it_may_and_others_theirs() {
    let origin = Origin::answering("hello");
    let edge = Edge::with(&[origin.address], Options { config: Some(limited), ..Options::default() });
    let held: Vec<Raw> = (0..2).map(|_| client_of(&edge, "203.0.113.9").unwrap()).collect();
    assert!(client_of(&edge, "203.0.113.9").is_none(), "a third one");
    let mut other = client_of(&edge, "203.0.113.10").expect("somebody else's");
    other.write("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&other.read_to_end()), 200);
    assert!(shows(&edge, "lb_connections_refused_total{reason=\"source_limit\"} 1"), "{}", edge.metrics.render());
    drop(held);
    eventually("its places are free again", || client_of(&edge, "203.0.113.9").is_some());
}

#[test]
fn where_somebody_was_verified_there_is_room_for_more() {
    let origin = Origin::answering("hello");
    let config: fn(&mut Config) = |config| {
        config.connections = ConnectionLimits { per_source: Some(2), per_verified_source: Some(4) };
    };
    let options = Options { config: Some(config), is_verified: true, ..Options::default() };
    let edge = Edge::with(&[origin.address], options);
    let connect = || {
        let mut raw = Raw::connect(&edge);
        raw.certificate().map(|_| raw)
    };
    let held: Vec<Raw> = (0..4).map(|_| connect().unwrap()).collect();
    assert!(connect().is_none(), "a fifth one");
    drop(held);
}

#[test]
fn of_what_a_tier_says_nobody_is_verified() {
    let origin = Origin::answering("hello");
    let options = Options { config: Some(limited), is_verified: true, ..Options::default() };
    let edge = Edge::with(&[origin.address], options);
    let _held: Vec<Raw> = (0..2).map(|_| client_of(&edge, "203.0.113.9").unwrap()).collect();
    assert!(client_of(&edge, "203.0.113.9").is_none());
}

/// Whether the edge closes it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    match stream.read(&mut [0; 8]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn slow_plain_http_takes_places_of_its_own_alone() {
    let origin = Origin::answering("hello");
    let limits = Limits { connections: 4, plain_http_connections: 2, ..Limits::default() };
    let options = Options { limits, speaks_plain_http: true, ..Options::default() };
    let edge = Edge::with(&[origin.address], options);
    let plain: SocketAddr = edge.plain.unwrap();
    let mut slow: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(plain).unwrap()).collect();
    eventually("all but two are closed", || slow.iter_mut().map(is_closed).filter(|closed| *closed).count() == 10);
    for _ in 0..3 {
        assert_eq!(get(&edge, "/").0, 200, "HTTPS has its places");
    }
    assert!(shows(&edge, "lb_connections_refused_total{reason=\"plain_http_full\"} 10"), "{}", edge.metrics.render());
    drop(slow);
    eventually("its places are free again", || {
        let mut stream = TcpStream::connect(plain).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_to_string(&mut answer).is_ok_and(|_| status(&answer) == 308)
    });
}
