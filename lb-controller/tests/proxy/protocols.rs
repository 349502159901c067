//! HTTP/1.1, h2 and WebSocket through the edge, streamed both ways.

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;

use crate::support::client::{Raw, get, h2, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

#[test]
fn one_client_connection_serves_many_requests_over_one_backend_connection() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    for number in 0..5 {
        raw.write(format!("POST /{number} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc"));
        let (head, body) = raw.read_response();
        assert_eq!((status(&head), &*body), (200, &b"hello"[..]));
    }
    let received = origin.received();
    assert_eq!(received.len(), 5);
    assert!(received.iter().all(|request| request.connection == 0 && request.body == b"abc"), "{received:?}");
}

#[test]
fn h2_requests_reach_an_http1_backend() {
    let origin = Origin::start(|request, stream| ok(stream, &String::from_utf8_lossy(&request.body)));
    let edge = Edge::start(&[origin.address]);
    let body = Bytes::from("x".repeat(300_000));
    let request = http::Request::post("https://shop.example/echo").body(body.clone()).unwrap();
    let responses = h2(&edge, vec![request.clone(), request]);
    assert!(responses.iter().all(|response| response.body() == &body), "bodies came back whole");
    assert_eq!(origin.received()[0].values("content-length"), ["300000"]);
}

#[test]
fn bodies_are_framed_as_they_were() {
    for (what, framing, body, name, value) in [
        ("a length", "Content-Length: 3", "abc", "content-length", "3"),
        (
            "chunks",
            "Transfer-Encoding: chunked",
            "1\r\na\r\n2\r\nbc\r\n0\r\nX-Sum: 1\r\n\r\n",
            "transfer-encoding",
            "chunked",
        ),
    ] {
        let origin = Origin::answering("hello");
        let edge = Edge::start(&[origin.address]);
        let mut raw = Raw::connect(&edge);
        raw.write(format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{framing}\r\n\r\n{body}"));
        assert_eq!(status(&raw.read_response().0), 200, "{what}");
        let received = &origin.received()[0];
        assert_eq!((&*received.body, received.values(name)), (&b"abc"[..], vec![value]), "{what}");
    }
}

#[test]
fn a_response_streams_while_the_backend_is_still_writing_it() {
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
        wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    raw.read_until("first");
    go_on.send(()).unwrap();
    assert!(raw.read_to_end().contains("second"));
}

#[test]
fn a_request_streams_and_is_answered_before_its_end() {
    let origin = Origin::start(|_, _| panic!("never reads a whole request"));
    drop(origin);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = Edge::start(&[listener.local_addr().unwrap()]);
    let mut raw = Raw::connect(&edge);
    raw.write("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\nbeginning");
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"beginning") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!").unwrap();
    let (head, body) = raw.read_response();
    assert_eq!((status(&head), &*body), (413, &b"no!"[..]));
}

#[test]
fn a_continue_is_sent_when_the_body_is_wanted_and_not_before() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write("POST / HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(raw.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    raw.write("abc");
    assert_eq!(status(&raw.read_response().0), 200);
    assert_eq!(origin.received()[0].values("expect"), [""; 0]);

    // A refused request is refused before its body is asked for.
    let mut raw = Raw::connect(&edge);
    raw.write("POST / HTTP/1.1\r\nHost: other.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(status(&raw.read_response().0), 421);
}

#[test]
fn head_has_the_length_but_no_body() {
    let origin =
        Origin::start(|_, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n").is_ok());
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write("HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\nHEAD / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    let answer = raw.read_to_end();
    assert_eq!(answer.matches("content-length: 12345").count(), 2, "{answer}");
}

#[test]
fn informational_responses_go_before_the_response_and_trailers_behind_it() {
    let origin = Origin::start(|_, stream| {
        let head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLB-Session: forged\r\nKeep-Alive: x\r\n\
                    Content-Length: 7\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
                    Trailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
        stream.write_all(head.as_bytes()).is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    for (version, expected) in [("1.1", 103), ("1.0", 200)] {
        let mut raw = Raw::connect(&edge);
        raw.write(format!(
            "GET / HTTP/{version}\r\nHost: shop.example\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"
        ));
        let answer = raw.read_to_end();
        assert_eq!(status(&answer), expected, "{answer}");
        if expected == 103 {
            let (hints, rest) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>");
            let (processing, rest) = rest.split_once("\r\n\r\n").unwrap();
            assert_eq!(processing, "HTTP/1.1 102 Processing");
            assert!(status(rest) == 200 && rest.to_ascii_lowercase().contains("x-sum: 7"), "{rest}");
        }
    }
    // What cannot be passed on is no harm.
    let request = http::Request::get("https://shop.example/").body(Bytes::new()).unwrap();
    assert_eq!(h2(&edge, vec![request])[0].body(), "ok");
}

#[test]
fn hints_come_while_the_backend_still_thinks_and_never_without_end() {
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").unwrap();
        wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        ok(stream, "at last")
    });
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.read_until("\r\n\r\n"), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    go_on.send(()).unwrap();
    assert!(raw.read_to_end().ends_with("at last"));

    let endless = Origin::start(|_, stream| {
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {}
        false
    });
    let edge = Edge::start(&[endless.address]);
    let answer = get(&edge, "/").1;
    assert!(
        answer.contains("HTTP/1.1 502 "),
        "hints without end are no answer: {}",
        &answer[answer.len().saturating_sub(500)..]
    );
}

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A backend that switches protocols and shouts everything back.
fn shouting() -> Origin {
    Origin::start(|request, stream| {
        assert_eq!((request.values("upgrade"), request.values("connection")), (vec!["websocket"], vec!["upgrade"]));
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
            .unwrap();
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..read].to_ascii_uppercase()).unwrap();
        }
        false
    })
}

#[test]
fn a_websocket_ends_with_the_login_it_was_opened_by() {
    let origin = shouting();
    let options = Options::default();
    let login_over = options.login_over.clone();
    let edge = Edge::with(&[origin.address], options);
    let mut raw = Raw::connect(&edge);
    raw.write(WEBSOCKET);
    raw.read_until("\r\n\r\n");
    raw.write(b"\x81\x05hello");
    raw.read_until("HELLO");
    login_over.notify_waiters();
    assert_eq!(raw.read_to_end(), "\u{fffd}\x13\x0b\u{fffd}the login is over", "a Close frame of code 3000");
    eventually("the backend is free", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn a_websocket_carries_bytes_both_ways_once_the_backend_agreed() {
    let origin = shouting();
    let mut edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write(WEBSOCKET);
    let head = raw.read_until("\r\n\r\n").to_ascii_lowercase();
    assert_eq!(status(&head), 101, "{head}");
    assert!(head.contains("sec-websocket-accept: x") && head.contains("upgrade: websocket"), "{head}");
    raw.write("hello ");
    raw.read_until("HELLO ");
    raw.write("GET /admin HTTP/1.1\r\n\r\n");
    raw.read_until("GET /ADMIN HTTP/1.1\r\n\r\n");
    assert_eq!(edge.pools.list()[0].in_flight, 1, "a tunnel counts as in flight");
    edge.shutdown(Duration::ZERO);
    eventually("the tunnel has ended with the edge", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn a_websocket_that_the_backend_refuses_is_an_ordinary_response_and_ends_the_connection() {
    let origin =
        Origin::start(|_, stream| stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").is_ok());
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write(WEBSOCKET);
    let answer = raw.read_to_end();
    assert_eq!(status(&answer), 403, "{answer}");
    assert!(answer.contains("connection: close") && answer.ends_with("no"), "{answer}");
}

#[test]
fn a_backend_that_switches_to_something_else_is_a_bad_gateway() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write(WEBSOCKET);
    assert_eq!(status(&raw.read_to_end()), 502);
}

#[test]
fn a_shutdown_lets_the_request_under_way_finish() {
    let (arrived, has_arrived) = channel();
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        arrived.send(()).unwrap();
        wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        ok(stream, "finished")
    });
    let mut edge = Edge::start(&[origin.address]);
    let address = edge.address;
    let mut idle = Raw::connect(&edge);
    idle.write("");
    let mut raw = Raw::connect(&edge);
    raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    has_arrived.recv_timeout(Duration::from_secs(10)).unwrap();
    let stopping = std::thread::spawn(move || edge.shutdown(Duration::from_secs(10)));
    eventually("new connections are refused", || std::net::TcpStream::connect(address).is_err());
    go_on.send(()).unwrap();
    let answer = raw.read_to_end();
    assert!(answer.ends_with("finished") && answer.contains("connection: close"), "{answer}");
    drop(idle);
    stopping.join().unwrap();
}

#[test]
fn requests_are_counted_with_their_status() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    get(&edge, "/");
    get(&edge, "/a%2fb");
    let shows = |line: &str| edge.metrics.render().lines().any(|shown| shown == line);
    eventually("the good one", || shows(r#"lb_requests_total{route="*/**",status="2xx"} 1"#));
    eventually("the refused one", || shows(r#"lb_requests_total{route="none",status="4xx"} 1"#));
    assert!(shows(r#"lb_connections_accepted_total{worker="0"} 2"#));
}
