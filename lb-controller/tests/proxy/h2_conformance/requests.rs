//! Requests in h2 (RFC 9113 §8): what is malformed, what would smuggle, and what bytes the backend gets of the rest.

use super::*;
use crate::support::frames::{field, fields};

#[test]
fn malformed_requests_reach_no_backend() {
    check([pseudo_headers(), headers(), lengths(), trailers()].into_iter().flatten().collect());
}

const USUAL: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "shop.example"), (":path", "/")];

fn with(lines: &[(&str, &str)]) -> Vec<Step> {
    sends(&[frame(kind::HEADERS, flag::WHOLE, 1, fields(lines))])
}

/// The usual fields with those of the same name replaced.
fn but(name: &str, value: &str) -> Vec<Step> {
    with(&USUAL.map(|(usual, its)| (usual, if usual == name { value } else { its })))
}

fn without(name: &str) -> Vec<Step> {
    let lines: Vec<_> = USUAL.into_iter().filter(|(usual, _)| *usual != name).collect();
    with(&lines)
}

fn and(more: &[(&str, &str)]) -> Vec<Step> {
    with(&[&USUAL, more].concat())
}

fn pseudo_headers() -> Vec<Row> {
    let refused = Then::Answers(400);
    let mut rows: Vec<Row> = vec![
        ("HEAD", but(":method", "HEAD"), Then::Answers(200), &["HEAD / HTTP/1.1"]),
        ("OPTIONS", but(":method", "OPTIONS"), Then::Answers(200), &["OPTIONS / HTTP/1.1"]),
        ("a query", but(":path", "/a?b=c"), Then::Answers(200), &["GET /a?b=c HTTP/1.1"]),
        ("a path in another spelling", but(":path", "/x/../%61?b"), Then::Answers(200), &["GET /a?b HTTP/1.1"]),
        ("no method", without(":method"), PROTOCOL, NOTHING),
        ("no path", without(":path"), PROTOCOL, NOTHING),
        ("no authority, and no host", without(":authority"), refused, NOTHING),
        ("an empty path", but(":path", ""), PROTOCOL, NOTHING),
        ("a path without its slash", but(":path", "admin"), PROTOCOL, NOTHING),
        ("a path of another scheme", but(":path", "http://other.example/"), PROTOCOL, NOTHING),
        ("a path with a blank", but(":path", "/a HTTP/1.1"), PROTOCOL, NOTHING),
        ("a path with a line's end", but(":path", "/ HTTP/1.1\r\nX: y"), PROTOCOL, NOTHING),
        ("a path with a NUL", but(":path", "/\0"), PROTOCOL, NOTHING),
        ("a path with an encoded separator", but(":path", "/a%2fb"), refused, NOTHING),
        ("a path beyond the root", but(":path", "/../a"), refused, NOTHING),
        ("an asterisk", but(":path", "*"), refused, NOTHING),
        ("a method with a blank", but(":method", "GET /admin"), PROTOCOL, NOTHING),
        ("a method with a line's end", but(":method", "GET\r\n"), PROTOCOL, NOTHING),
        ("a method in lower case", but(":method", "get"), Then::Answers(405), NOTHING),
        ("TRACE", but(":method", "TRACE"), Then::Answers(405), NOTHING),
        ("another authority than the handshake's", but(":authority", "elsewhere.example"), Then::Answers(421), NOTHING),
        ("a user in the authority", but(":authority", "other@shop.example"), refused, NOTHING),
        ("an authority with a path", but(":authority", "shop.example/admin"), PROTOCOL, NOTHING),
        ("an authority with a line's end", but(":authority", "shop.example\r\nX: y"), PROTOCOL, NOTHING),
        ("an empty authority", but(":authority", ""), PROTOCOL, NOTHING),
        ("an unknown pseudo-header", with(&[&USUAL[..], &[(":user", "root")]].concat()), PROTOCOL, NOTHING),
        ("a status in a request", with(&[&USUAL[..], &[(":status", "200")]].concat()), PROTOCOL, NOTHING),
        (
            "a pseudo-header after a header",
            with(&[USUAL[0], USUAL[1], USUAL[2], ("x", "y"), USUAL[3]]),
            PROTOCOL,
            NOTHING,
        ),
        ("CONNECT", with(&[(":method", "CONNECT"), (":authority", "shop.example:443")]), Then::Answers(405), NOTHING),
    ];
    let twice: [(&'static str, &'static str, &'static str); 4] = [
        ("two methods", ":method", "POST"),
        ("two schemes", ":scheme", "https"),
        ("two authorities", ":authority", "shop.example"),
        ("two paths", ":path", "/admin"),
    ];
    rows.extend(twice.map(|(what, name, value)| -> Row {
        (what, with(&[&USUAL[..], &[(name, value)]].concat()), PROTOCOL, NOTHING)
    }));
    rows
}

fn headers() -> Vec<Row> {
    let refused = Then::Answers(400);
    let either = Then::Refuses(&[code::PROTOCOL_ERROR]);
    vec![
        ("a name in capitals", and(&[("X-Name", "y")]), PROTOCOL, NOTHING),
        ("an empty name", and(&[("", "y")]), PROTOCOL, NOTHING),
        ("a name with a blank", and(&[("x y", "z")]), PROTOCOL, NOTHING),
        ("a name with a colon", and(&[("x:y", "z")]), PROTOCOL, NOTHING),
        ("a name with a line's end", and(&[("x\r\ny", "z")]), PROTOCOL, NOTHING),
        ("a value with a line's end", and(&[("x", "y\r\ntransfer-encoding: chunked")]), PROTOCOL, NOTHING),
        ("a value with a line feed", and(&[("x", "y\nhost: other.example")]), PROTOCOL, NOTHING),
        ("a value with a carriage return", and(&[("x", "y\rz")]), PROTOCOL, NOTHING),
        ("a value with a NUL", and(&[("x", "y\0z")]), PROTOCOL, NOTHING),
        ("a connection header", and(&[("connection", "close")]), PROTOCOL, NOTHING),
        (
            "a connection header that names another",
            and(&[("connection", "x-user"), ("x-user", "y")]),
            PROTOCOL,
            NOTHING,
        ),
        ("a coding", and(&[("transfer-encoding", "chunked")]), PROTOCOL, NOTHING),
        ("a keep-alive", and(&[("keep-alive", "timeout=5")]), PROTOCOL, NOTHING),
        ("a proxy's connection", and(&[("proxy-connection", "keep-alive")]), PROTOCOL, NOTHING),
        ("an upgrade", and(&[("upgrade", "websocket")]), PROTOCOL, NOTHING),
        ("the settings of h2c", and(&[("http2-settings", "AAMAAABk")]), refused, NOTHING),
        ("trailers that are welcome", and(&[("te", "trailers")]), Then::Answers(200), GET),
        ("other codings that are welcome", and(&[("te", "trailers, deflate")]), either, NOTHING),
        ("a host that is the authority", and(&[("host", "shop.example")]), Then::Answers(200), GET),
        ("a host that is another", and(&[("host", "other.example")]), refused, NOTHING),
        ("two hosts", and(&[("host", "shop.example"), ("host", "other.example")]), refused, NOTHING),
        ("cookies in crumbs", and(&[("cookie", "a=b"), ("cookie", "c=d")]), Then::Answers(200), GET),
        (
            "headers as large as they may be",
            and(&[("x", &"y".repeat(8_000)), ("z", &"y".repeat(7_000))]),
            Then::Answers(200),
            GET,
        ),
        ("an odd expectation", and(&[("expect", "magic")]), Then::Answers(417), NOTHING),
    ]
}

fn lengths() -> Vec<Row> {
    let post =
        |length: &str| frame(kind::HEADERS, flag::END_HEADERS, 1, request("POST", "/", &[("content-length", length)]));
    let data = |flags, text: &[u8]| frame(kind::DATA, flags, 1, text);
    let twice = frame(
        kind::HEADERS,
        flag::END_HEADERS,
        1,
        request("POST", "/", &[("content-length", "3"), ("content-length", "3")]),
    );
    let none = frame(kind::HEADERS, flag::WHOLE, 1, request("POST", "/", &[("content-length", "3")]));
    vec![
        ("a length that is right", sends(&[post("3"), data(1, b"abc")]), Then::Answers(200), POST),
        (
            "a length that is right over frames",
            sends(&[post("3"), data(0, b"a"), data(1, b"bc")]),
            Then::Answers(200),
            POST,
        ),
        ("a body shorter than its length", sends(&[post("4"), data(1, b"abc")]), PROTOCOL, NOTHING),
        ("a body longer than its length", sends(&[post("2"), data(1, b"abc")]), PROTOCOL, NOTHING),
        ("a body longer over frames", sends(&[post("3"), data(0, b"abc"), data(1, b"d")]), PROTOCOL, NOTHING),
        ("a length without a body", sends(&[none]), PROTOCOL, NOTHING),
        ("a length that is no number", sends(&[post("3x"), data(1, b"abc")]), PROTOCOL, NOTHING),
        ("a length with a sign", sends(&[post("+3"), data(1, b"abc")]), PROTOCOL, NOTHING),
        ("a length beyond 64 bits", sends(&[post("18446744073709551619"), data(1, b"abc")]), PROTOCOL, NOTHING),
        ("a list of lengths", sends(&[post("3, 3"), data(1, b"abc")]), PROTOCOL, NOTHING),
        ("one length twice", sends(&[twice, data(1, b"abc")]), Then::Answers(400), NOTHING),
    ]
}

fn trailers() -> Vec<Row> {
    let end = |lines: &[(&str, &str)]| frame(kind::HEADERS, flag::WHOLE, 1, fields(lines));
    let open = |lines: &[(&str, &str)]| frame(kind::HEADERS, flag::END_HEADERS, 1, fields(lines));
    let data = frame(kind::DATA, 0, 1, b"abc");
    let capital = frame(kind::HEADERS, flag::WHOLE, 1, field("X-Sum", "7"));
    vec![
        ("trailers after a body", sends(&[post(1), data.clone(), end(&[("x-sum", "7")])]), Then::Answers(200), POST),
        ("trailers without a body", sends(&[post(1), end(&[("x-sum", "7")])]), Then::Answers(200), POST),
        (
            "headers in the midst that end nothing",
            sends(&[post(1), data.clone(), open(&[("x-sum", "7")])]),
            PROTOCOL,
            NOTHING,
        ),
        (
            "a pseudo-header in trailers, which are not forwarded",
            sends(&[post(1), data.clone(), end(&[(":path", "/admin")])]),
            Then::Answers(200),
            POST,
        ),
        (
            "a status in trailers, which are not forwarded",
            sends(&[post(1), data.clone(), end(&[(":status", "200")])]),
            Then::Answers(200),
            POST,
        ),
        ("a trailer in capitals", sends(&[post(1), data, capital]), PROTOCOL, NOTHING),
    ]
}

#[test]
fn headers_with_two_readings_reach_no_backend() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut frames = Frames::connect(&edge);
    let odd = [
        ("content_length", "5"),
        ("transfer_encoding", "chunked"),
        ("x_forwarded_for", "10.0.0.1"),
        ("lb.user", "root"),
    ];
    frames.write(frame(kind::HEADERS, flag::WHOLE, 1, request("GET", "/", &odd)));
    comes(&mut frames, "odd names", Then::Answers(200));
    let head = origin.received()[0].head.to_ascii_lowercase();
    for (name, value) in odd {
        assert!(!head.contains(name), "{name}: {value} in {head}");
    }
}

#[test]
fn cookies_in_crumbs_reach_the_backend_as_one_line() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let mut frames = Frames::connect(&edge);
    let crumbs = [("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")];
    frames.write(frame(kind::HEADERS, flag::WHOLE, 1, request("GET", "/", &crumbs)));
    comes(&mut frames, "crumbs", Then::Answers(200));
    assert_eq!(origin.received()[0].values("cookie"), ["a=b; c=d; e=f"]);
}

#[test]
fn bodies_reach_the_backend_framed_once() {
    let request = |more: &[(&str, &str)]| frame(kind::HEADERS, flag::END_HEADERS, 1, request("POST", "/", more));
    let hidden = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let length = hidden.len().to_string();
    for (what, head, framing) in [
        ("without a length", request(&[]), ("transfer-encoding", "chunked")),
        ("with a length", request(&[("content-length", &length)]), ("content-length", &*length)),
    ] {
        let origin = Origin::answering("hello");
        let edge = Edge::start(&[origin.address]);
        let mut frames = Frames::connect(&edge);
        frames.write(
            [head, frame(kind::DATA, 0, 1, &hidden[..9]), frame(kind::DATA, flag::END_STREAM, 1, &hidden[9..])]
                .concat(),
        );
        comes(&mut frames, what, Then::Answers(200));
        let received = origin.received();
        assert_eq!((received.len(), &*received[0].body), (1, &hidden[..]), "{what}");
        assert_eq!(received[0].values(framing.0), [framing.1], "{what}");
        assert_eq!(
            received[0].values("content-length").len() + received[0].values("transfer-encoding").len(),
            1,
            "{what}"
        );
    }
}

#[test]
fn headers_beyond_what_they_may_be_are_431_and_a_list_without_end_is_cut_off() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let long = "y".repeat(8_000);
    let block = request("GET", "/", &[("x", &*long); 9]);
    let mut pieces = block.chunks(16_000);
    let mut bytes = frame(kind::HEADERS, flag::END_STREAM, 1, pieces.next().unwrap());
    let last = pieces.next_back().unwrap();
    bytes.extend(pieces.flat_map(|piece| frame(kind::CONTINUATION, 0, 1, piece)));
    bytes.extend(frame(kind::CONTINUATION, flag::END_HEADERS, 1, last));
    let mut frames = Frames::connect(&edge);
    frames.write(bytes);
    comes(&mut frames, "72 KB of headers", Then::Answers(431));

    let mut frames = Frames::connect(&edge);
    frames.write(frame(kind::HEADERS, flag::END_STREAM, 1, request("GET", "/", &[])));
    for _ in 0..1_000 {
        frames.write(frame(kind::CONTINUATION, 0, 1, field("x", &"y".repeat(8_000))));
    }
    // Of what it is told, its own bytes that are still under way may leave nothing.
    while let Some(frame) = frames.next() {
        assert_eq!(frame.status(), None, "{frame:?}");
    }
    assert!(frames.has_ended);
    assert_eq!(origin.request_lines(), [""; 0]);
}
