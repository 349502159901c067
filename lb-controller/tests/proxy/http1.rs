//! What the reader and writer of HTTP/1.1 owe to clients and backends beside framing: connections that live on or close as
//! announced, answers that are read although their request is still on its way, bodies of any size.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::client::{Raw, exchange, status};
use crate::support::edge::Edge;
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

#[test]
fn a_connection_goes_on_for_whoever_may_expect_it() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    for (what, head, goes_on, says) in [
        ("HTTP/1.1", "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", true, ""),
        (
            "HTTP/1.1 that closes",
            "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Close\r\n\r\n",
            false,
            "connection: close",
        ),
        ("HTTP/1.0", "GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n", false, "connection: close"),
        (
            "HTTP/1.0 that asks for it",
            "GET / HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n",
            true,
            "connection: keep-alive",
        ),
        ("nobody's version", "GET / HTTP/1.2\r\nHost: shop.example\r\n\r\n", false, "HTTP/1.1 505"),
        ("what is no HTTP", "\x16\x03\x01\r\n\r\n", false, "HTTP/1.1 400"),
    ] {
        let mut raw = Raw::connect(&edge);
        raw.write(head);
        let (answer, _) = raw.read_response();
        assert!(answer.contains(says), "{what}: {answer}");
        assert_eq!(answer.contains("connection: close"), !goes_on, "{what}: {answer}");
        if goes_on {
            raw.write(head);
            assert_eq!(status(&raw.read_response().0), 200, "{what}");
        } else {
            assert_eq!(raw.read_to_end(), "", "{what}");
        }
    }
}

#[test]
fn an_answer_is_read_by_a_client_that_is_still_sending() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    // More than the socket buffers hold: closing at once would reset the connection, and lose the answer.
    raw.write("POST / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 900000\r\n\r\n");
    raw.write(vec![b'x'; 900_000]);
    let answer = raw.read_to_end();
    assert_eq!(status(&answer), 421, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(origin.request_lines(), [""; 0]);
}

#[test]
fn trailers_go_to_whoever_reads_them() {
    let origin = Origin::start(|_, stream| {
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nLb-Sum: 8\r\n\r\n",
            )
            .is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    for (options, reads) in
        [("Connection: close, TE\r\nTE: gzip, trailers\r\n", true), ("Connection: close\r\n", false)]
    {
        let answer = exchange(&edge, format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{options}\r\n"));
        let expected = if reads { "2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n" } else { "2\r\nok\r\n0\r\n\r\n" };
        assert!(answer.ends_with(expected), "{answer}");
    }
}

#[test]
fn bodies_of_every_size_pass_unchanged_in_both_directions() {
    let origin = Origin::start(|request, stream| {
        let length = request.body.len();
        match request.values("x-answer")[0] {
            "length" => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").unwrap(),
            _ => write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n").unwrap(),
        }
        stream.write_all(&request.body).unwrap();
        request.values("x-answer")[0] == "length" || length == 0 || stream.write_all(b"\r\n0\r\n\r\n").is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    for length in [1, 4_095, 4_096, 4_097, 16_384, 65_535, 65_536, 65_537, 300_000] {
        let body: Vec<u8> = (0..length).map(|index: u32| (index * 31 % 251) as u8).collect();
        raw.write(format!(
            "POST / HTTP/1.1\r\nHost: shop.example\r\nX-Answer: length\r\nContent-Length: {length}\r\n\r\n"
        ));
        raw.write(&body);
        assert!(raw.read_response().1 == body, "{length} bytes by length");
        raw.write("POST / HTTP/1.1\r\nHost: shop.example\r\nX-Answer: chunks\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(50_000) {
            raw.write(format!("{:x}\r\n", piece.len()));
            raw.write(piece);
            raw.write("\r\n");
        }
        raw.write("0\r\n\r\n");
        raw.read_until("\r\n\r\n");
        assert!(raw.read_chunks() == body, "{length} bytes in chunks");
    }
    assert_eq!(origin.received().last().unwrap().connection, 0, "one connection served all");
}

#[test]
fn responses_without_an_announced_end_close_the_connection_or_come_in_chunks() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end").unwrap();
        false
    });
    let edge = Edge::start(&[origin.address]);
    let answer = exchange(&edge, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\na\r\nto the end\r\n0\r\n\r\n"), "{answer}");
    let answer = exchange(&edge, "GET / HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nto the end"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[test]
fn a_backend_hears_that_its_client_is_gone() {
    let (gone, is_gone) = std::sync::mpsc::channel();
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").unwrap();
        let read = stream.read(&mut [0; 8]);
        gone.send(matches!(read, Ok(0) | Err(_))).unwrap();
        false
    });
    let edge = Edge::start(&[origin.address]);
    let mut raw = Raw::connect(&edge);
    raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    raw.read_until("1\r\nx\r\n");
    drop(raw);
    assert!(is_gone.recv_timeout(std::time::Duration::from_secs(10)).unwrap(), "nothing more is asked of it");
}

#[test]
fn a_client_that_goes_in_the_midst_of_both_bodies_leaves_nothing_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let backend = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        let mut piece = [0; 1024];
        while !received.ends_with(b"3\r\nabc\r\n") {
            let read = stream.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..read]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").unwrap();
        stream.read(&mut piece)
    });
    let edge = Edge::start(&[address]);
    let mut raw = Raw::connect(&edge);
    raw.write("POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    raw.read_until("1\r\nx\r\n");
    let under_way = || edge.pools.get("web").unwrap().backends()[0].in_flight();
    assert_eq!(under_way(), 1);
    drop(raw);
    assert!(matches!(backend.join().unwrap(), Ok(0) | Err(_)), "the backend hears of it");
    eventually("it is no more under way", || under_way() == 0);
    assert_eq!(edge.pools.get("web").unwrap().backends()[0].errors(), 0, "and is not to blame");
}

#[test]
fn a_response_with_two_readings_is_a_bad_gateway_and_its_connection_serves_nobody_else() {
    let origin = Origin::start(|request, stream| {
        let answer = match request.request_line().split(' ').nth(1).unwrap() {
            "/both" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "/lengths" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "/switched" => "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "/coded" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            // A second response, which nobody asked for.
            "/more" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            }
            _ => return ok(stream, "good"),
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    for (path, expected) in [("/both", 502), ("/lengths", 502), ("/coded", 502), ("/switched", 502), ("/more", 200)] {
        let mut raw = Raw::connect(&edge);
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        assert_eq!(status(&raw.read_response().0), expected, "{path}");
        raw.write("GET /next HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(raw.read_response().1, b"good", "after {path}");
    }
}

#[test]
fn a_client_that_reads_nothing_before_it_has_sent_all_is_not_kept_from_sending() {
    // More than the socket buffers on the way hold, in both directions.
    const BYTES: usize = 12 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let backend = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut answers = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
            answers.write_all(&vec![b'x'; BYTES]).unwrap();
        });
        let (mut received, mut piece) = (Vec::new(), [0; 16 * 1024]);
        // All of it: whoever closes with something unread takes back what is still on its way.
        let head_end = |received: &[u8]| received.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
        while head_end(&received).is_none_or(|end| received.len() < end + BYTES) {
            let count = stream.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..count]);
        }
        writing.join().unwrap();
    });
    let edge = Edge::start(&[address]);
    let mut raw = Raw::connect(&edge);
    raw.write(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {BYTES}\r\n\r\n"));
    raw.write(vec![b'y'; BYTES]);
    assert_eq!(raw.read_response().1.len(), BYTES);
    backend.join().unwrap();
}
