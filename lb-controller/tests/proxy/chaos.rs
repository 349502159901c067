//! Backends that break in the midst of things: what the client gets, which counts move, and that the next request is served
//! as if nothing had been.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_controller::pool::Timeouts;

use crate::support::client::{exchange, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

/// What a backend does with its first request of a path that is not `/good`.
type Misdeed = fn(&mut TcpStream) -> bool;

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn says(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// Ends the connection with a RST in place of a FIN.
fn reset(stream: &TcpStream) -> bool {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    false
}

struct Row {
    what: &'static str,
    misdeed: Misdeed,
    /// Of the client's answer; 0: whatever it began with, it broke off.
    status: u16,
    /// What the backend is charged with.
    errors: u64,
    /// By class of status.
    counted: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        what: "resets the connection instead of answering",
        misdeed: |stream| reset(stream),
        status: 502,
        errors: 1,
        counted: "5xx",
    },
    Row {
        what: "resets it in the midst of the head",
        misdeed: |stream| {
            says(stream, "HTTP/1.1 200 OK\r\nContent-Le");
            reset(stream)
        },
        status: 502,
        errors: 1,
        counted: "5xx",
    },
    Row {
        what: "announces more than it sends",
        misdeed: |stream| {
            says(stream, &format!("{OK}Content-Length: 100\r\n\r\nonly this"));
            false
        },
        status: 0,
        errors: 1,
        counted: "2xx",
    },
    Row {
        what: "sends more than it announced",
        misdeed: |stream| {
            says(
                stream,
                &format!("{OK}Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            );
            true
        },
        status: 200,
        errors: 0,
        counted: "2xx",
    },
    Row {
        what: "resets it in the midst of a body",
        misdeed: |stream| {
            says(stream, &format!("{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"));
            // So that this is read before the reset makes the kernel forget it.
            std::thread::sleep(Duration::from_millis(200));
            reset(stream)
        },
        status: 0,
        errors: 1,
        counted: "2xx",
    },
    Row {
        what: "sends a chunk that is none",
        misdeed: |stream| {
            says(stream, &format!("{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n"));
            true
        },
        status: 0,
        errors: 1,
        counted: "2xx",
    },
    Row {
        what: "says nothing for too long",
        misdeed: |_| {
            std::thread::sleep(Duration::from_secs(2));
            false
        },
        status: 504,
        errors: 1,
        counted: "5xx",
    },
    Row {
        what: "stalls in the midst of a body",
        misdeed: |stream| {
            says(stream, &format!("{OK}Content-Length: 100\r\n\r\nonly this"));
            std::thread::sleep(Duration::from_secs(3));
            false
        },
        status: 0,
        errors: 1,
        counted: "2xx",
    },
    Row {
        what: "stalls between two chunks",
        misdeed: |stream| {
            says(stream, &format!("{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"));
            std::thread::sleep(Duration::from_secs(3));
            false
        },
        status: 0,
        errors: 1,
        counted: "2xx",
    },
    Row {
        what: "answers in another language",
        misdeed: |stream| {
            says(stream, "220 mail.example ESMTP\r\n\r\n");
            true
        },
        status: 502,
        errors: 1,
        counted: "5xx",
    },
];

fn value(edge: &Edge, series: &str) -> u64 {
    let text = edge.metrics.render();
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn whatever_a_backend_does_to_one_request_is_counted_once_and_the_next_is_served() {
    for row in ROWS {
        let (what, misdeed) = (row.what, row.misdeed);
        let did_it = AtomicBool::new(false);
        let origin = Origin::start(move |request, stream| {
            if request.request_line().contains("/bad") && !did_it.swap(true, Ordering::Relaxed) {
                return misdeed(stream);
            }
            ok(stream, "hello")
        });
        let patience = Duration::from_millis(700);
        let timeouts = Timeouts { response: patience, response_body: patience, ..Timeouts::default() };
        let edge = Edge::with(&[origin.address], Options { timeouts, ..Options::default() });
        assert_eq!(get(&edge, "/good").0, 200, "{what}: before");

        // Not idempotent, so that no second try hides the first.
        let answer = exchange(
            &edge,
            "POST /bad HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        match row.status {
            0 => assert!(
                !answer.ends_with("0\r\n\r\n") && !answer.ends_with("hello"),
                "{what}: it looks whole: {answer}"
            ),
            expected => assert_eq!(status(&answer), expected, "{what}: {answer}"),
        }
        assert!(!answer.contains("evil"), "{what}: {answer}");
        for number in 0..3 {
            let (status, answer) = get(&edge, "/good");
            assert!(status == 200 && answer.ends_with("hello"), "{what}: {number} after it: {answer}");
        }

        let requests = |class: &str| value(&edge, &format!("lb_requests_total{{route=\"*/**\",status=\"{class}\"}}"));
        let of_backend =
            |name: &str| value(&edge, &format!("lb_backend_{name}{{pool=\"web\",backend=\"{}\"}}", origin.address));
        let bad = |class: &str| u64::from(class == row.counted);
        eventually("everything has ended", || requests("2xx") + requests("5xx") == 5);
        assert_eq!((requests("2xx"), requests("5xx")), (4 + bad("2xx"), bad("5xx")), "{what}");
        assert_eq!(of_backend("errors_total"), row.errors, "{what}: {:?}", edge.pools.list());
        assert_eq!(of_backend("requests_total"), 5, "{what}");
        assert_eq!(of_backend("in_flight"), 0, "{what}");
        assert_eq!(value(&edge, "lb_requests_in_flight{route=\"*/**\"}"), 0, "{what}");
        let answered = 4 + u64::from(row.counted == "2xx");
        assert_eq!(of_backend("response_seconds_count"), answered, "{what}: heads that came");
    }
}
