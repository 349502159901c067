//! What a client may take of time and connections, and certificates that change under way.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lb_controller::serve::accept::Limits;
use lb_controller::serve::tls::self_signed;

use crate::support::client::{Raw, get, status};
use crate::support::edge::{Edge, Options, served};
use crate::support::eventually;
use crate::support::origin::Origin;

/// The payload of the PING with which the h2 implementation says goodbye.
const GOODBYE: &[u8] = b"\x0b\x7b\xa2\xf0\x8b\x9b\xfe\x54";

const SOON: Duration = Duration::from_millis(200);

fn edge(origin: &Origin, limits: Limits) -> Edge {
    Edge::with(&[origin.address], Options { limits, ..Options::default() })
}

#[test]
fn whoever_dawdles_is_disconnected() {
    let origin = Origin::answering("hello");
    let edge = edge(&origin, Limits { handshake: SOON, head: SOON, h2_idle: SOON, ..Limits::default() });
    let begin = Instant::now();

    let mut silent = TcpStream::connect(edge.address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(silent.read(&mut [0; 8]), Ok(0) | Err(_)), "no handshake");

    let mut half = Raw::connect(&edge);
    half.write("GET / HTTP/1.1\r\nHost: shop");
    assert!(matches!(status(&half.read_to_end()), 0 | 408), "half a head");

    let mut idle = Raw::connect(&edge);
    idle.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(status(&idle.read_response().0), 200);
    assert_eq!(idle.read_to_end(), "", "idle between requests");

    let mut idle = Raw::connect_h2(&edge);
    idle.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // The goodbye (RFC 9113 §6.8) is a GOAWAY and a PING, whose answer says that no request crossed it on its way.
    idle.read_until(GOODBYE);
    idle.write([b"\0\0\x08\x06\x01\0\0\0\0", GOODBYE].concat());
    idle.read_to_end();
    assert!(begin.elapsed() < Duration::from_secs(9), "all of them long before the usual limits");
}

#[test]
fn a_flood_of_h2_pings_ends_its_connection_and_no_other() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect_h2(&edge);
    raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let ping = b"\0\0\x08\x06\0\0\0\0\0lb-pings";
    raw.write(ping.repeat(1_500));
    // Fails when the edge goes on answering instead of closing.
    raw.read_to_end();
    assert_eq!(get(&edge, "/").0, 200);
}

#[test]
fn a_target_too_long_to_keep_in_memory_is_414() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    for (length_bytes, expected) in [(8 * 1024, 200), (8 * 1024 + 1, 414)] {
        let target = format!("/?{}", "a".repeat(length_bytes - 2));
        assert_eq!(get(&edge, &target).0, expected, "{length_bytes} bytes");
    }
}

#[test]
fn connections_beyond_the_limit_wait_until_one_closes() {
    let origin = Origin::answering("hello");
    let edge = edge(&origin, Limits { connections: 1, ..Limits::default() });
    let mut first = Raw::connect(&edge);
    first.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    first.read_response();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| get(&edge, "/second").0);
        let accepted = || edge.metrics.workers()[0].accepted;
        assert_eq!(accepted(), 1);
        drop(first);
        assert_eq!(second.join().unwrap(), 200);
        assert_eq!(accepted(), 2);
    });
}

#[test]
fn a_failed_handshake_is_counted() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut plain = TcpStream::connect(edge.address).unwrap();
    std::io::Write::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    eventually("it is counted", || edge.metrics.workers()[0].handshakes_failed == 1);
    eventually("its place is free", || edge.metrics.workers()[0].open == 0);
}

#[test]
fn a_new_certificate_is_shown_without_dropping_a_connection() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut old = Raw::connect(&edge);
    assert_eq!(old.certificate(), Some(edge.certificate.clone()));
    let elsewhere = tempfile::tempdir().unwrap();
    let files = self_signed(elsewhere.path(), &["shop.example".to_owned()]).unwrap();
    edge.certificates.put(served(files));
    assert_eq!(Raw::connect(&edge).certificate(), None, "the client does not trust the new certificate yet");
    old.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(status(&old.read_response().0), 200);
}
