//! Smuggling: bytes that two readers could cut into different requests. Each row says what the edge answers and what
//! the backend has seen by then.

use crate::support::client::{exchange, get, status};
use crate::support::edge::Edge;
use crate::support::origin::Origin;

/// What the attacker wants the backend to see.
const HIDDEN: &str = "GET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n";

#[test]
fn doubtful_requests_are_refused_and_nothing_of_them_is_forwarded() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let post =
        |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n{body}{HIDDEN}");
    let bare = |text: &str| format!("{text}{HIDDEN}");
    for (what, bytes, expected) in [
        ("length, then chunked", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("chunked, then length", post("Transfer-Encoding: chunked\r\nContent-Length: 50\r\n", "0\r\n\r\n"), 400),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), 400),
        ("a coding list", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400),
        ("a coding with a tab before it", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400),
        ("a space before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        ("an underscored coding", post("Transfer_Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("a folded coding", post("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n", ""), 400),
        ("one length twice", post("Content-Length: 0\r\nContent-Length: 0\r\n", ""), 400),
        ("a list of lengths", post("Content-Length: 0, 0\r\n", ""), 400),
        ("a signed length", post("Content-Length: +0\r\n", ""), 400),
        ("an underscored length", post("Content_Length: 50\r\n", ""), 400),
        ("a dotted coding", post("Transfer.Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("a quoted coding", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), 400),
        ("a coding with a parameter", post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), 400),
        ("an empty coding", post("Transfer-Encoding:\r\n", "0\r\n\r\n"), 400),
        ("a hexadecimal length", post("Content-Length: 0x0\r\n", ""), 400),
        ("a negative length", post("Content-Length: -1\r\n", ""), 400),
        ("a length in two words", post("Content-Length: 0 0\r\n", ""), 400),
        ("an empty length", post("Content-Length:\r\n", ""), 400),
        ("a length without end", post("Content-Length: 18446744073709551616\r\n", ""), 400),
        ("a header without a name", post(": 0\r\n", ""), 400),
        ("a header without a colon", post("Content-Length 0\r\n", ""), 400),
        ("a control character in a name", post("Content-\x01Length: 0\r\n", ""), 400),
        ("a first header that continues nothing", bare("GET / HTTP/1.1\r\n\tHost: shop.example\r\n\r\n"), 400),
        ("two blanks before the target", bare("GET  / HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        ("a blank within the target", bare("GET /a b HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        ("a tab for a blank", bare("GET\t/ HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        ("a version of two digits", bare("GET / HTTP/1.10\r\nHost: shop.example\r\n\r\n"), 400),
        ("a lower-case version", bare("GET / http/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        (
            "a chunked upgrade",
            post("Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", ""),
            400,
        ),
        ("an upgrade with a body", post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 9\r\n", ""), 400),
        (
            "a target with another port",
            bare("GET https://shop.example:444/ HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
            400,
        ),
        ("bare line feeds", bare("GET / HTTP/1.1\nHost: shop.example\n\n"), 400),
        ("one bare line feed", bare("GET / HTTP/1.1\r\nHost: shop.example\nX: y\r\n\r\n"), 400),
        ("a bare carriage return", bare("GET / HTTP/1.1\r\nHost: shop.example\r\nX: a\rb\r\n\r\n"), 400),
        ("a NUL in a header", bare("GET / HTTP/1.1\r\nHost: shop.example\r\nX: a\0b\r\n\r\n"), 400),
        ("chunks in HTTP/1.0", bare("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("two hosts", bare("GET / HTTP/1.1\r\nHost: shop.example\r\nHost: other.example\r\n\r\n"), 400),
        ("no host", bare("GET / HTTP/1.1\r\nX: y\r\n\r\n"), 400),
        ("a target for another host", bare("GET https://other.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        ("a plain-text target", bare("GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        ("a user in the host", bare("GET / HTTP/1.1\r\nHost: other.example@shop.example\r\n\r\n"), 400),
        ("no target at all", bare("GET HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        (
            "bytes after an upgrade",
            bare("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            400,
        ),
        ("h2c", bare("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"), 400),
        ("h2c settings", bare("GET / HTTP/1.1\r\nHost: shop.example\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"), 400),
        ("an encoded separator", bare("GET /a%2f..%2fadmin HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
        ("an encoded NUL", bare("GET /a%00 HTTP/1.1\r\nHost: shop.example\r\n\r\n"), 400),
    ] {
        let answer = exchange(&edge, bytes);
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what} got more than one answer: {answer}");
        assert_eq!(origin.request_lines(), [""; 0], "{what} reached the backend");
    }
    // Whatever went on above, the edge serves on.
    assert_eq!(get(&edge, "/").0, 200);
    assert_eq!(origin.request_lines(), ["GET / HTTP/1.1"]);
}

#[test]
fn what_passes_reaches_the_backend_as_the_one_request_it_is() {
    let chunked =
        |chunks: String| format!("POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: CHUNKED\r\n\r\n{chunks}");
    let size = HIDDEN.len();
    for (what, bytes, body) in [
        (
            "a request within a body",
            format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {size}\r\n\r\n{HIDDEN}"),
            HIDDEN.to_owned(),
        ),
        ("a request within a chunk", chunked(format!("{size:x}\r\n{HIDDEN}\r\n0\r\n\r\n")), HIDDEN.to_owned()),
        ("a size with zeros before it", chunked("0003\r\nabc\r\n000\r\n\r\n".into()), "abc".into()),
        ("a size in capitals", chunked("A\r\n0123456789\r\n0\r\n\r\n".into()), "0123456789".into()),
        ("a trailer that would be a length", chunked("1\r\na\r\n0\r\nContent-Length: 50\r\n\r\n".into()), "a".into()),
        ("empty lines before a request", format!("\r\n\r\n{}", chunked("1\r\na\r\n0\r\n\r\n".into())), "a".into()),
    ] {
        let origin = Origin::answering("hello");
        let edge = Edge::start(&[origin.address]);
        let last = "GET /last HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
        let answer = exchange(&edge, bytes + last);
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{what}: {answer}");
        assert_eq!(origin.request_lines(), ["POST / HTTP/1.1", "GET /last HTTP/1.1"], "{what}");
        let received = &origin.received()[0];
        assert_eq!(String::from_utf8_lossy(&received.body), body, "{what}");
        let framing = [received.values("content-length").len(), received.values("transfer-encoding").len()];
        assert_eq!(framing.iter().sum::<usize>(), 1, "{what}: {}", received.head);
    }
}

#[test]
fn a_chunked_body_that_turns_foul_never_ends_at_the_backend() {
    for (what, body) in [
        ("a chunk extension", "3;x=y\r\nabc\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("a size that is no number", "zz\r\nabc\r\n0\r\n\r\n"),
        ("a bare line feed after a chunk", "3\r\nabc\n0\r\n\r\n"),
    ] {
        let origin = Origin::answering("hello");
        let edge = Edge::start(&[origin.address]);
        let head = "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = exchange(&edge, format!("{head}{body}{HIDDEN}"));
        assert!(matches!(status(&answer), 0 | 400), "{what}: {answer}");
        assert_eq!(origin.request_lines(), [""; 0], "{what}");
    }
}

#[test]
fn requests_in_a_pipeline_are_answered_in_order() {
    let origin = Origin::start(|request, stream| {
        let path = request.request_line().split(' ').nth(1).unwrap().to_owned();
        crate::support::origin::ok(stream, &path)
    });
    let edge = Edge::start(&[origin.address]);
    let one = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{more}\r\n");
    let answer = exchange(&edge, one("/1", "") + &one("/2", "") + &one("/3", "Connection: close\r\n"));
    let bodies: Vec<&str> = answer.split("\r\n\r\n").skip(1).map(|part| &part[..2]).collect();
    assert_eq!(bodies, ["/1", "/2", "/3"], "{answer}");
}

#[test]
fn targets_reach_the_backend_in_the_one_spelling_that_was_judged() {
    for (sent, forwarded) in [
        ("//admin", "/admin"),
        ("/./admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/x/%2e%2e/admin", "/admin"),
        ("/admin/", "/admin/"),
        ("/a?x=//..%2f", "/a?x=//..%2F"),
        ("/a?%61ll=%31&off=5%", "/a?all=1&off=5%25"),
        ("/100%25", "/100%25"),
    ] {
        let origin = Origin::answering("hello");
        let edge = Edge::start(&[origin.address]);
        assert_eq!(get(&edge, sent).0, 200, "{sent}");
        assert_eq!(origin.request_lines(), [format!("GET {forwarded} HTTP/1.1")], "{sent}");
    }
}

#[test]
fn odd_methods_and_expectations_are_refused() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    for (line, more, expected) in [
        ("get / HTTP/1.1", "", 405),
        ("TRACE / HTTP/1.1", "", 405),
        ("PROPFIND / HTTP/1.1", "", 405),
        ("CONNECT shop.example:443 HTTP/1.1", "", 405),
        ("OPTIONS * HTTP/1.1", "", 400),
        ("GET / HTTP/1.1", "Expect: magic\r\n", 417),
    ] {
        let answer = exchange(&edge, format!("{line}\r\nHost: shop.example\r\nConnection: close\r\n{more}\r\n"));
        assert_eq!(status(&answer), expected, "{line}: {answer}");
    }
    assert_eq!(origin.request_lines(), [""; 0]);
}

#[test]
fn a_head_without_end_is_431() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let answer = exchange(&edge, format!("GET / HTTP/1.1\r\nHost: shop.example\r\nX: {}\r\n\r\n", "a".repeat(80_000)));
    assert_eq!(status(&answer), 431, "{answer}");
}
