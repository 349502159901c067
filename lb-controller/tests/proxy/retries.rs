//! When a request is sent again, to whom, how often, and when not.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lb_controller::config::{PoolConfig, RetryBudget, RetryConfig, RetryOn};
use lb_controller::health::HealthChecks;

use crate::support::client::{Raw, exchange, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

const ALL: RetryOn = RetryOn {
    refused_stream: true,
    connect: true,
    reset_before_response: true,
    bad_gateway: true,
    service_unavailable: true,
    gateway_timeout: true,
};

fn with_retries(pool: &mut PoolConfig) {
    pool.retries = RetryConfig { attempts: 3, on: ALL };
    pool.retry_budget = RetryBudget { percent: 20, minimum_per_second: 100 };
}

/// What it is called, a backend that fails so, and what the client gets then.
type Failing = (&'static str, fn() -> Origin, u16);

/// Answers so whatever it is asked, except by health checks.
fn answering(status: &'static str) -> Origin {
    Origin::start(move |request, stream| {
        let status = if request.request_line().contains("/health") { "200 OK" } else { status };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nbad").is_ok()
    })
}

fn value(edge: &Edge, series: &str) -> u64 {
    let text = edge.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

fn retries(edge: &Edge) -> u64 {
    value(edge, "lb_pool_retries_total{pool=\"web\"}")
}

#[test]
fn what_may_be_sent_twice_goes_to_another_backend_and_what_may_not_does_not() {
    let get = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    let put = "PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let body = "PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    let failing: [Failing; 5] = [
        ("502", || answering("502 Bad"), 502),
        ("503", || answering("503 Bad"), 503),
        ("504", || answering("504 Bad"), 504),
        ("a reset", || Origin::start(|_, _| false), 502),
        ("a status that is its own business", || answering("500 Bad"), 500),
    ];
    for (what, failing, own) in failing {
        for (request, may_be_sent_twice) in [(get, true), (put, true), (post, false), (body, false)] {
            let (bad, good) = (failing(), Origin::answering("good"));
            let edge =
                Edge::with(&[bad.address, good.address], Options { pool: Some(with_retries), ..Options::default() });
            let answer = exchange(&edge, request);
            let again = may_be_sent_twice && own != 500;
            assert_eq!(status(&answer), if again { 200 } else { own }, "{what}, {request}: {answer}");
            assert_eq!((bad.received().len(), good.received().len()), (1, usize::from(again)), "{what}, {request}");
            assert_eq!(retries(&edge), u64::from(again), "{what}, {request}");
        }
    }
}

#[test]
fn without_being_asked_for_only_a_connection_is_tried_elsewhere() {
    let (bad, good) = (answering("503 Bad"), Origin::answering("good"));
    let edge = Edge::start(&[bad.address, good.address]);
    assert_eq!(get(&edge, "/").0, 503);
    assert_eq!((retries(&edge), good.received().len()), (0, 0));
}

#[test]
fn when_all_fail_the_last_answer_stands_and_each_was_asked_once() {
    let origins = [answering("503 Bad"), answering("503 Bad"), answering("503 Bad"), answering("503 Bad")];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let edge = Edge::with(&addresses, Options { pool: Some(with_retries), ..Options::default() });
    let (status, answer) = get(&edge, "/");
    assert!(status == 503 && answer.ends_with("bad"), "the backend's own: {answer}");
    let received: Vec<usize> = origins.iter().map(|origin| origin.received().len()).collect();
    assert_eq!(received, [1, 1, 1, 0], "three attempts in turn");
}

#[test]
fn without_another_backend_nothing_is_sent_again() {
    let bad = answering("503 Bad");
    let edge = Edge::with(&[bad.address], Options { pool: Some(with_retries), ..Options::default() });
    assert_eq!(get(&edge, "/").0, 503);
    assert_eq!((bad.received().len(), retries(&edge)), (1, 0));
}

#[test]
fn a_storm_of_failures_is_hardly_made_worse() {
    let origins = [answering("503 Bad"), answering("503 Bad"), answering("503 Bad")];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let pool = |pool: &mut PoolConfig| {
        pool.retries = RetryConfig { attempts: 3, on: ALL };
        pool.retry_budget = RetryBudget { percent: 20, minimum_per_second: 5 };
    };
    let edge = Edge::with(&addresses, Options { pool: Some(pool), ..Options::default() });
    let checks = HealthChecks::start(|_| {}).unwrap();
    checks.watch(&edge.pools);
    let (begin, sent) = (Instant::now(), 200);
    let mut raw = Raw::connect(&edge);
    for _ in 0..sent {
        raw.write("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(status(&raw.read_response().0), 503);
    }
    let received: usize =
        origins.iter().flat_map(|origin| origin.request_lines()).filter(|line| !line.contains("/health")).count();
    // A second's worth to begin with, and the time that it took.
    let allowed = sent as f64 * 1.2 + 5.0 * (1.0 + begin.elapsed().as_secs_f64()) + 1.0;
    assert!(received as f64 <= allowed, "{received} for {sent}, {allowed} were allowed");
    assert!(received > sent, "some were sent again");
    assert_eq!(received - sent, retries(&edge) as usize);
    assert!(value(&edge, "lb_pool_retries_denied_total{pool=\"web\"}") > 0);
}

#[test]
fn a_slow_backend_is_given_up_for_another_and_the_whole_has_an_end() {
    let slow = || {
        Origin::start(|_, _| {
            std::thread::sleep(Duration::from_secs(5));
            false
        })
    };
    let pool = |pool: &mut PoolConfig| {
        with_retries(pool);
        pool.timeouts.response = Duration::from_millis(200);
    };
    let (first, good) = (slow(), Origin::answering("good"));
    let edge = Edge::with(&[first.address, good.address], Options { pool: Some(pool), ..Options::default() });
    assert_eq!(get(&edge, "/").0, 200);
    assert_eq!((retries(&edge), edge.pools.list()[0].errors), (1, 1));

    let pool = |pool: &mut PoolConfig| {
        with_retries(pool);
        pool.timeouts.response = Duration::from_secs(60);
        pool.timeouts.overall = Some(Duration::from_millis(300));
    };
    let edge = Edge::with(&[first.address, good.address], Options { pool: Some(pool), ..Options::default() });
    assert_eq!(get(&edge, "/").0, 504, "no try is over, and the whole is");
    eventually("nothing is under way any more", || edge.pools.list()[0].in_flight == 0);
}

#[test]
fn a_second_backend_is_asked_when_the_first_takes_long_and_the_first_answer_counts() {
    let (is_slow, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (slow, count) = (is_slow.clone(), asked.clone());
    let first = Origin::start(move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        if slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(5));
        }
        ok(stream, "first")
    });
    let second = Origin::answering("second");
    let pool = |pool: &mut PoolConfig| {
        with_retries(pool);
        pool.timeouts.hedge_after = Some(Duration::from_millis(100));
    };
    let edge = Edge::with(&[first.address, second.address], Options { pool: Some(pool), ..Options::default() });
    let (status, answer) = get(&edge, "/");
    assert!(status == 200 && answer.ends_with("second"), "{answer}");
    let hedges = |edge: &Edge| value(edge, "lb_pool_hedges_total{pool=\"web\"}");
    assert_eq!((hedges(&edge), retries(&edge), asked.load(Ordering::Relaxed)), (1, 1, 1));
    eventually("the slow one is given up", || edge.pools.list()[0].in_flight == 0);
    is_slow.store(false, Ordering::Relaxed);
    let post = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(exchange(&edge, post).contains("200 OK"));
    assert_eq!(hedges(&edge), 1, "what may not be sent twice is not");
}
