//! Backends that stall in the midst of a response, and those that only take their time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use lb_controller::config::{BackendProtocol, PoolConfig};
use lb_controller::pool::Timeouts;

use crate::support::client::{Raw, get};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::h2_client::with_connection;
use crate::support::h2_origin::{Call, H2Origin, answer, send};
use crate::support::origin::{Origin, ok};

const PAUSE: Duration = Duration::from_millis(600);

fn h2c(pool: &mut PoolConfig) {
    pool.protocol = BackendProtocol::H2c;
}

fn options(pool: Option<fn(&mut PoolConfig)>) -> Options {
    Options { pool, timeouts: Timeouts { response_body: PAUSE, ..Timeouts::default() }, ..Options::default() }
}

fn errors(edge: &Edge) -> u64 {
    edge.pools.list().iter().map(|backend| backend.errors).sum()
}

fn in_flight(edge: &Edge) -> u32 {
    edge.pools.list().iter().map(|backend| backend.in_flight).sum()
}

/// What a client over HTTP/2 got of a response: its bytes, and whether it ended well.
fn over_h2(edge: &Edge, path: &str) -> (Bytes, bool) {
    with_connection(edge, async |mut sender| {
        let request = Request::get(format!("https://shop.example{path}")).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut whole = Vec::new();
        loop {
            match body.data().await {
                Some(Ok(piece)) => whole.extend_from_slice(&piece),
                Some(Err(_)) => return (whole.into(), false),
                None => return (whole.into(), true),
            }
        }
    })
}

/// What came of a request for `/stall` is broken off in time; the next one is served.
fn is_left(edge: &Edge, what: &str) {
    let charged_before = errors(edge);
    for (client, by_h2) in [("HTTP/1.1", false), ("HTTP/2", true)] {
        let begin = Instant::now();
        match by_h2 {
            true => assert_eq!(over_h2(edge, "/stall"), (Bytes::from("some"), false), "{what}, {client}"),
            false => {
                let (status, answer) = get(edge, "/stall");
                assert!(status == 200 && answer.contains("some"), "{what}, {client}: {answer}");
                assert!(!answer.ends_with("0\r\n\r\n"), "{what}, {client}: it looks whole: {answer}");
            }
        }
        let took = begin.elapsed();
        assert!((PAUSE..5 * PAUSE).contains(&took), "{what}, {client}: {took:?}");
        assert_eq!(get(edge, "/good").0, 200, "{what}, {client}: after it");
    }
    eventually("nothing is under way", || in_flight(edge) == 0);
    assert_eq!(errors(edge) - charged_before, 2, "{what}: {:?}", edge.pools.list());
}

/// Writes the beginning of a response, and waits for the other end to close.
fn stall(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    matches!(stream.read(&mut [0; 64]), Ok(0))
}

#[test]
fn a_backend_that_stalls_in_the_midst_of_a_response_is_left() {
    let (left, is_left_by_edge) = channel();
    let left = Mutex::new(left);
    let origin = Origin::start(move |request, stream| match request.request_line().contains("/stall") {
        true => left.lock().unwrap().send(stall(stream)).is_err(),
        false => ok(stream, "hello"),
    });
    is_left(&Edge::with(&[origin.address], options(None)), "over HTTP/1.1");
    for _ in 0..2 {
        assert!(is_left_by_edge.recv_timeout(Duration::from_secs(10)).unwrap(), "its connection was kept");
    }
}

#[test]
fn of_a_backend_that_speaks_http2_the_one_stream_is_left_and_its_connection_goes_on() {
    let origin = H2Origin::start(|mut call: Call| async move {
        if call.request.uri().path() != "/stall" {
            return answer(&mut call, 200, "hello");
        }
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        send(&mut stream, Bytes::from("some")).await;
        // Until it is reset.
        let _ = std::future::poll_fn(|context| stream.poll_reset(context)).await;
    });
    is_left(&Edge::with(&[origin.address], options(Some(h2c))), "over HTTP/2");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_response_that_moves_now_and_then_takes_as_long_as_it_likes() {
    let origin = Origin::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        for piece in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            std::thread::sleep(PAUSE / 3);
            let _ = stream.write_all(piece.as_bytes());
        }
        true
    });
    let edge = Edge::with(&[origin.address], options(None));
    let begin = Instant::now();
    let (status, answer) = get(&edge, "/slow");
    assert!(status == 200 && answer.ends_with("abcdefgh"), "{answer}");
    assert!(begin.elapsed() > 2 * PAUSE, "it was no test: {:?}", begin.elapsed());
    assert_eq!(errors(&edge), 0);
}

/// Answers at once with a piece, and with another when the request has ended.
async fn answer_early(mut call: Call) {
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    send(&mut stream, Bytes::from("begun,")).await;
    let body = call.request.body_mut();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let _ = stream.send_data(Bytes::from("ended"), true);
}

#[test]
fn while_the_client_still_sends_its_request_the_response_may_wait() {
    let origin = H2Origin::start(answer_early);
    let edge = Edge::with(&[origin.address], options(Some(h2c)));
    for (what, pieces, answered) in [("it sends on", 8, "begun,ended"), ("it falls silent", 0, "begun,")] {
        let mut raw = Raw::connect(&edge);
        raw.write("POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        for _ in 0..pieces {
            std::thread::sleep(PAUSE / 3);
            raw.write("4\r\nmore\r\n");
        }
        if pieces > 0 {
            raw.write("0\r\n\r\n");
        }
        let answer = raw.read_to_end();
        let pieces: String = answer.split("\r\n").filter(|line| ["begun,", "ended"].contains(line)).collect();
        assert_eq!(pieces, answered, "{what}: {answer}");
        eventually("nothing is under way", || in_flight(&edge) == 0);
        assert_eq!(errors(&edge), 0, "{what}: the backend is not to blame");
    }
}
