//! What backends are told, what clients are told, and what neither may say.

use crate::support::client::{Raw, exchange, h2, status};
use crate::support::edge::{Edge, Options};
use crate::support::origin::Origin;

/// Sends a GET with `lines`; the backend's view of it.
fn forwarded(options: Options, lines: &str) -> crate::support::origin::Received {
    let origin = Origin::answering("hello");
    let edge = Edge::with(&[origin.address], options);
    let answer = exchange(&edge, format!("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{lines}\r\n"));
    assert_eq!(status(&answer), 200, "{answer}");
    origin.received().remove(0)
}

#[test]
fn identity_headers_of_clients_never_arrive_in_any_spelling() {
    let names = [
        "Lb-Assertion",
        "Lb-User",
        "X-Forwarded-User",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Original-Method",
        "X-Rewrite-URL",
        "X-Client-IP",
        "True-Client-IP",
        "X-Auth-Request-User",
        "Remote-User",
    ];
    let mut lines = String::new();
    for name in names {
        for separator in ["-", "_", "."] {
            let name = name.replace('-', separator);
            for name in [name.clone(), name.to_lowercase(), name.to_uppercase()] {
                lines += &format!("{name}: forged\r\n");
                lines += &format!("{name}: 6.6.6.6\r\n");
            }
        }
    }
    // A hundred headers are taken in a request.
    let lines: Vec<&str> = lines.split_inclusive("\r\n").collect();
    for lines in lines.chunks(80) {
        let received = forwarded(Options::default(), &lines.concat());
        assert!(!received.head.contains("forged") && !received.head.contains("6.6.6.6"), "{}", received.head);
        assert_eq!(received.values("x-forwarded-for"), ["127.0.0.1"]);
    }
}

#[test]
fn a_header_that_names_another_method_is_refused_and_one_that_names_the_same_does_not_arrive() {
    for (name, value, status) in [
        ("X-HTTP-Method-Override", "DELETE", 400),
        ("x_http_method", "PUT", 400),
        ("X.Method.Override", "nonsense", 400),
        ("X-HTTP-Method-Override", "GET", 200),
    ] {
        let origin = Origin::answering("hello");
        let edge = Edge::start(&[origin.address]);
        let head = format!("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{name}: {value}\r\n\r\n");
        assert_eq!(crate::support::client::status(&exchange(&edge, head)), status, "{name}: {value}");
        let heads: Vec<String> = origin.received().into_iter().map(|received| received.head.to_lowercase()).collect();
        assert!(heads.iter().all(|head| !head.contains("override") && !head.contains("x-http")), "{heads:?}");
    }
}

#[test]
fn the_backend_learns_who_asked_for_what() {
    let options = Options { assertion: Some("signed".parse().unwrap()), ..Options::default() };
    let received = forwarded(options, "Cookie: cart=1; __Host-lb=secret\r\nAccept: */*\r\n");
    for (name, expected) in [
        ("host", "shop.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=127.0.0.1;host=\"shop.example\";proto=https"),
        ("lb-assertion", "signed"),
        ("cookie", "cart=1"),
        ("accept", "*/*"),
    ] {
        assert_eq!(received.values(name), [expected], "{name} in\n{}", received.head);
    }
}

#[test]
fn hop_by_hop_headers_end_here() {
    let received = forwarded(
        Options::default(),
        "Connection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic x\r\n",
    );
    for name in ["connection", "x-secret", "keep-alive", "te", "proxy-connection", "proxy-authorization"] {
        assert_eq!(received.values(name), [""; 0], "{name} in\n{}", received.head);
    }
}

#[test]
fn connection_cannot_remove_what_the_rules_saw() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    for name in ["Host", "Cookie", "Authorization", "Lb-Assertion", "X-Forwarded-For", "Content-Type"] {
        let answer =
            exchange(&edge, format!("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close, {name}\r\n\r\n"));
        assert_eq!(status(&answer), 400, "{name}: {answer}");
    }
    assert_eq!(origin.request_lines(), [""; 0]);
}

#[test]
fn only_a_trusted_proxy_is_believed_and_only_its_addresses() {
    let trusting = || Options { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..Options::default() };
    let lines = "X-Forwarded-For: 6.6.6.6, 198.51.100.7\r\nX-Forwarded-Proto: gopher\r\nX-Real-IP: 6.6.6.6\r\n";
    let received = forwarded(trusting(), lines);
    assert_eq!(received.values("x-forwarded-for"), ["198.51.100.7"]);
    assert_eq!(received.values("x-forwarded-proto"), ["https"]);
    assert_eq!(received.values("x-real-ip"), [""; 0]);
    assert_eq!(forwarded(Options::default(), lines).values("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn a_backend_can_set_neither_our_headers_nor_our_cookies() {
    let origin = Origin::start(|_, stream| {
        use std::io::Write;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nLb-Assertion: x\r\nlb_session: x\r\nKeep-Alive: timeout=9\r\n\
                    Connection: X-Internal\r\nX-Internal: 1\r\nSet-Cookie: __Host-lb=fixed; Path=/\r\nSet-Cookie: cart=1\r\n\r\n";
        stream.write_all(head.as_bytes()).is_ok()
    });
    let edge = Edge::start(&[origin.address]);
    let answer =
        exchange(&edge, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").to_ascii_lowercase();
    assert_eq!(status(&answer), 200);
    for gone in ["lb-assertion", "lb_session", "keep-alive", "x-internal", "__host-lb"] {
        assert!(!answer.contains(gone), "{gone} in\n{answer}");
    }
    assert!(answer.contains("set-cookie: cart=1"), "{answer}");
}

#[test]
fn a_request_for_another_host_than_the_handshake_is_misdirected() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    for (server_name, host, expected) in [
        ("shop.example", "shop.example", 200),
        ("shop.example", "SHOP.example.:443", 200),
        ("shop.example", "other.example", 421),
        ("127.0.0.1", "other.example", 200),
    ] {
        let mut raw = Raw::connect_to(&edge, server_name);
        raw.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        let answer = raw.read_to_end();
        assert_eq!(status(&answer), expected, "{host} on {server_name}: {answer}");
    }
}

#[test]
fn h2_is_held_to_the_same_rules() {
    let origin = Origin::answering("hello");
    let edge = Edge::start(&[origin.address]);
    let request = |uri: &str, lines: &[(&str, &str)]| {
        let mut request = http::Request::get(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(bytes::Bytes::new()).unwrap()
    };
    let responses = h2(
        &edge,
        vec![
            request(
                "https://shop.example/x/../a",
                &[("x_forwarded_for", "6.6.6.6"), ("cookie", "a=1"), ("cookie", "__Host-lb=x")],
            ),
            request("https://shop.example/", &[("host", "other.example")]),
            request("https://other.example/", &[]),
            request("https://shop.example/%2e%2e/", &[]),
        ],
    );
    assert_eq!(responses.iter().map(|response| response.status().as_u16()).collect::<Vec<_>>(), [200, 400, 421, 400]);
    assert_eq!(responses[0].body(), "hello");
    let received = &origin.received()[0];
    assert_eq!(origin.request_lines(), ["GET /a HTTP/1.1"]);
    assert_eq!((received.values("host"), received.values("cookie")), (vec!["shop.example"], vec!["a=1"]));
    assert!(!received.head.contains("6.6.6.6"));
}
