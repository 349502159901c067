//! Backends that fail in every way, and what the client sees of it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_controller::health::{HealthChange, HealthChecks};
use lb_controller::pool::Timeouts;

use crate::support::client::{Raw, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_backend_that_refuses_connections_is_passed_over() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[nobody(), origin.address]);
    for _ in 0..4 {
        assert_eq!(get(&edge, "/").0, 200);
    }
    let dead = &edge.pools.list()[0];
    assert!(dead.errors > 0 && dead.last_error.as_deref().unwrap().contains("cannot connect"), "{dead:?}");
}

#[test]
fn without_a_backend_the_answer_is_a_problem_document() {
    for (what, backends, expected) in [("nobody answers", vec![nobody()], 502), ("none is configured", vec![], 503)] {
        let edge = Edge::start(&backends);
        let (status, answer) = get(&edge, "/");
        assert_eq!(status, expected, "{what}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("urn:lb:problem:"), "{what}: {answer}");
    }
}

#[test]
fn a_backend_that_dies_before_answering_is_502_and_not_asked_twice() {
    let origin = Origin::start(|_, _| false);
    let edge = Edge::start(&[origin.address]);
    assert_eq!(get(&edge, "/").0, 502);
    assert_eq!(origin.received().len(), 1, "a new connection that dies is not tried again");
}

#[test]
fn a_backend_that_dies_in_the_middle_never_looks_like_a_whole_response() {
    for (what, head) in [("a length", "Content-Length: 100"), ("chunks", "Transfer-Encoding: chunked")] {
        let (die, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let origin = Origin::start(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n").unwrap();
            wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
            false
        });
        let edge = Edge::start(&[origin.address]);
        let mut raw = Raw::connect(&edge);
        raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        raw.read_until("abc");
        die.send(()).unwrap();
        let rest = raw.read_to_end();
        assert!(rest.len() < 97 && !rest.contains("0\r\n\r\n"), "{what}: {rest:?}");
        eventually("the backend is charged with it", || edge.pools.list()[0].errors == 1);
    }
}

/// A backend that closes each connection instead of answering the second request on it, as one does whose keep-alive
/// time runs out in that moment.
fn closing_at_the_second_request() -> Origin {
    let used = Mutex::new(std::collections::HashSet::new());
    Origin::start(move |request, stream| used.lock().unwrap().insert(request.connection) && ok(stream, "hello"))
}

#[test]
fn an_idle_connection_that_dies_is_replaced_only_where_sending_twice_is_safe() {
    for (request, expected, sent) in [
        ("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", 200, 3),
        ("PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n", 200, 3),
        ("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n", 502, 2),
        ("PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc", 502, 2),
    ] {
        let origin = closing_at_the_second_request();
        let edge = Edge::start(&[origin.address]);
        let mut raw = Raw::connect(&edge);
        raw.write(request);
        assert_eq!(status(&raw.read_response().0), 200, "the first {request}");
        raw.write(request);
        assert_eq!(status(&raw.read_response().0), expected, "the second {request}");
        assert_eq!(origin.received().len(), sent, "{request}");
    }
}

#[test]
fn a_connection_that_the_backend_closed_while_idle_costs_nothing() {
    let origin = Origin::start(|_, stream| {
        ok(stream, "hello");
        false
    });
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    for _ in 0..5 {
        raw.write("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(status(&raw.read_response().0), 200);
        // Until the FIN is here nothing tells a closed connection from an open one.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn slowness_is_charged_to_whoever_is_slow() {
    let short = Timeouts {
        connect: Duration::from_secs(3),
        response: Duration::from_millis(200),
        request_body: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let origin = Origin::start(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    for (what, request, expected) in [
        ("a backend that does not answer", "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n", 504),
        ("a client that does not go on", "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 9\r\n\r\nabc", 408),
    ] {
        let edge = Edge::with(&[origin.address], Options { timeouts: short, ..Options::default() });
        let mut raw = Raw::connect(&edge);
        raw.write(request);
        let answer = raw.read_to_end();
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert_eq!(edge.pools.list()[0].errors, u64::from(expected == 504), "{what}");
    }
}

#[test]
fn garbage_from_a_backend_is_a_bad_gateway() {
    for (what, garbage) in [
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("a header without end", &format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(200_000))),
    ] {
        let garbage = garbage.to_owned();
        let origin = Origin::start(move |_, stream| {
            let _ = stream.write_all(garbage.as_bytes());
            false
        });
        let edge = Edge::start(&[origin.address]);
        assert_eq!(get(&edge, "/").0, 502, "{what}");
    }
}

#[test]
fn health_checks_take_a_backend_out_and_back_in_without_a_failed_request() {
    let sick = Arc::new(AtomicBool::new(false));
    let is_sick = sick.clone();
    let origin = Origin::start(move |_, stream| {
        let status = if is_sick.load(Ordering::Relaxed) { "503 Unwell" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let other = Origin::answering("hello");
    let edge = Edge::start(&[origin.address, other.address]);
    let (changes, seen) = channel();
    let checks = HealthChecks::start(move |change| changes.send(change).unwrap()).unwrap();
    checks.watch(&edge.pools);
    let change = |healthy| HealthChange { pool: "web".into(), backend: origin.address, healthy };

    sick.store(true, Ordering::Relaxed);
    assert_eq!(seen.recv_timeout(Duration::from_secs(10)).unwrap(), change(false));
    for _ in 0..6 {
        assert_eq!(get(&edge, "/").0, 200, "after detection no request fails");
    }
    let view = &edge.pools.list()[0];
    assert!(!view.healthy && view.last_error.as_deref().unwrap().contains("answered 503"), "{view:?}");

    sick.store(false, Ordering::Relaxed);
    assert_eq!(seen.recv_timeout(Duration::from_secs(10)).unwrap(), change(true));
    for _ in 0..4 {
        get(&edge, "/back");
    }
    assert!(origin.request_lines().contains(&"GET /back HTTP/1.1".to_owned()), "it takes requests again");
}

#[test]
fn a_backend_that_is_gone_or_silent_is_unhealthy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [nobody(), silent.local_addr().unwrap()];
    let edge = Edge::start(&addresses);
    let checks = HealthChecks::start(|_| {}).unwrap();
    checks.watch(&edge.pools);
    eventually("both are down", || edge.pools.list().iter().all(|backend| !backend.healthy));
    assert_eq!(get(&edge, "/").0, 503);
}
