//! Backends that are left alone after failures, and those that have as much as they may have.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_controller::config::{EjectionConfig, PoolConfig, PoolLimits};
use lb_controller::health::HealthChecks;

use crate::support::client::{Raw, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};

/// Answers 503 while the first is true.
fn moody() -> (Arc<AtomicBool>, Origin) {
    let sick = Arc::new(AtomicBool::new(true));
    let is_sick = sick.clone();
    let origin = Origin::start(move |request, stream| {
        // Its health checks know nothing of it.
        let fails = is_sick.load(Ordering::Relaxed) && !request.request_line().contains("/health");
        let status = if fails { "503 Unwell" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nsick").is_ok()
    });
    (sick, origin)
}

fn shows(edge: &Edge, line: &str) -> bool {
    edge.metrics.render().lines().any(|shown| shown == line)
}

#[test]
fn a_backend_that_fails_requests_is_left_alone() {
    let (_, origin) = moody();
    let well = Origin::answering("well");
    let pool = |pool: &mut PoolConfig| {
        pool.ejection = Some(EjectionConfig {
            consecutive_failures: 3,
            time: Duration::from_secs(3600),
            ..EjectionConfig::default()
        });
    };
    let edge = Edge::with(&[origin.address, well.address], Options { pool: Some(pool), ..Options::default() });
    let checks = HealthChecks::start(|_| {}).unwrap();
    checks.watch(&edge.pools);
    let failed = (0..20).filter(|_| get(&edge, "/").0 == 503).count();
    assert_eq!(failed, 3, "in turn, until it is left alone");
    let view = &edge.pools.list()[0];
    assert_eq!((view.state, view.healthy), ("ejected", true), "{view:?}");
    assert!(view.last_error.as_deref().unwrap().contains("3 failures in a row"), "{view:?}");
    let of_it = format!("{{pool=\"web\",backend=\"{}\"}}", origin.address);
    assert!(shows(&edge, &format!("lb_backend_ejected{of_it} 1")), "{}", edge.metrics.render());
    assert!(shows(&edge, &format!("lb_backend_ejections_total{of_it} 1")));
}

#[test]
fn a_backend_that_was_left_alone_is_tried_again() {
    let (sick, origin) = moody();
    let well = Origin::answering("well");
    let pool = |pool: &mut PoolConfig| {
        let time = Duration::from_millis(100);
        pool.ejection =
            Some(EjectionConfig { consecutive_failures: 1, time, longest_time: time, ..EjectionConfig::default() });
    };
    let edge = Edge::with(&[origin.address, well.address], Options { pool: Some(pool), ..Options::default() });
    let checks = HealthChecks::start(|_| {}).unwrap();
    checks.watch(&edge.pools);
    eventually("it is left alone", || get(&edge, "/").0 == 503);
    sick.store(false, Ordering::Relaxed);
    eventually("it is tried again", || get(&edge, "/").1.ends_with("sick"));
    let of_it = format!("{{pool=\"web\",backend=\"{}\"}}", origin.address);
    assert!(shows(&edge, &format!("lb_backend_ejected{of_it} 0")) && shows(&edge, &format!("lb_backend_up{of_it} 1")));
}

#[test]
fn the_last_backends_are_never_left_alone() {
    let sick = [moody().1, moody().1, moody().1];
    let addresses: Vec<_> = sick.iter().map(|origin| origin.address).collect();
    let pool = |pool: &mut PoolConfig| {
        pool.ejection = Some(EjectionConfig { consecutive_failures: 1, ..EjectionConfig::default() });
    };
    let edge = Edge::with(&addresses, Options { pool: Some(pool), ..Options::default() });
    for _ in 0..12 {
        let (status, answer) = get(&edge, "/");
        assert!(status == 503 && answer.ends_with("sick"), "the backend's own answer: {answer}");
    }
    let ejected = edge.pools.list().iter().filter(|view| view.state == "ejected").count();
    assert_eq!(ejected, 1, "half of three at most");
}

/// A backend that answers one request for each message, and tells of each that came.
fn held() -> (Sender<()>, Origin) {
    let (go, gone) = channel();
    let gone = Mutex::new(gone);
    let origin = Origin::start(move |_, stream| {
        gone.lock().unwrap().recv_timeout(Duration::from_secs(10)).is_ok() && ok(stream, "at last")
    });
    (go, origin)
}

fn one_at_a_time(queue_length: u32, queue_timeout: Duration) -> PoolLimits {
    PoolLimits { requests_per_backend: Some(1), queue_length, queue_timeout, ..PoolLimits::default() }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

#[test]
fn beyond_its_limit_a_backend_gets_nothing_and_the_line_is_bounded() {
    let (go, origin) = held();
    let pool = |pool: &mut PoolConfig| pool.limits = one_at_a_time(1, Duration::from_secs(10));
    let edge = Edge::with(&[origin.address], Options { pool: Some(pool), ..Options::default() });
    let (mut first, mut second) = (Raw::connect(&edge), Raw::connect(&edge));
    first.write(GET);
    eventually("the first is under way", || origin.received().len() == 1);
    second.write(GET);
    eventually("the second waits", || shows(&edge, "lb_pool_waiting{pool=\"web\"} 1"));
    let (status_, answer) = get(&edge, "/");
    assert_eq!(status_, 503, "{answer}");
    assert!(answer.contains("retry-after: 1") && answer.contains("urn:lb:problem:overloaded"), "{answer}");
    assert_eq!(origin.received().len(), 1, "the backend saw neither of them");
    go.send(()).unwrap();
    assert_eq!(status(&first.read_to_end()), 200);
    eventually("the second is under way", || origin.received().len() == 2);
    go.send(()).unwrap();
    assert_eq!(status(&second.read_to_end()), 200);
    eventually("nobody waits", || shows(&edge, "lb_pool_waiting{pool=\"web\"} 0"));
    assert_eq!(edge.pools.list()[0].errors, 0);
}

#[test]
fn who_waits_too_long_is_sent_away_and_whoever_goes_leaves_no_gap() {
    let (go, origin) = held();
    let pool = |pool: &mut PoolConfig| pool.limits = one_at_a_time(8, Duration::from_millis(200));
    let edge = Edge::with(&[origin.address], Options { pool: Some(pool), ..Options::default() });
    let (mut first, mut gone) = (Raw::connect(&edge), Raw::connect(&edge));
    first.write(GET);
    eventually("the first is under way", || origin.received().len() == 1);
    gone.write(GET);
    eventually("another waits", || shows(&edge, "lb_pool_waiting{pool=\"web\"} 1"));
    drop(gone);
    let (status_, answer) = get(&edge, "/");
    assert!(status_ == 503 && answer.contains("urn:lb:problem:overloaded"), "{answer}");
    eventually("nobody waits", || shows(&edge, "lb_pool_waiting{pool=\"web\"} 0"));
    go.send(()).unwrap();
    assert_eq!(status(&first.read_to_end()), 200);
    go.send(()).unwrap();
    assert_eq!(get(&edge, "/").0, 200);
    assert_eq!(edge.pools.list()[0].in_flight, 0);
}

#[test]
fn one_client_with_many_requests_in_line_delays_nobody_else_by_more_than_one_of_them() {
    let (go, origin) = held();
    let pool = |pool: &mut PoolConfig| pool.limits = one_at_a_time(12, Duration::from_secs(10));
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = Edge::with(&[origin.address], Options { pool: Some(pool), trusted_proxies, ..Options::default() });
    let ask = |client: u8, path: &str| {
        let mut raw = Raw::connect(&edge);
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n");
        raw.write(format!("{head}X-Forwarded-For: 192.0.2.{client}\r\n\r\n"));
        raw
    };
    let waiting = |count: usize| {
        eventually("it waits", || shows(&edge, &format!("lb_pool_waiting{{pool=\"web\"}} {count}")));
    };
    let mut first = ask(1, "/first");
    eventually("the first is under way", || origin.received().len() == 1);
    let mut greedy: Vec<Raw> = (1..=12)
        .map(|number| {
            let raw = ask(1, "/greedy");
            waiting(number);
            raw
        })
        .collect();
    // The line is full, and has room for somebody else all the same.
    let mut modest = ask(2, "/modest");
    assert_eq!(status(&greedy.pop().unwrap().read_to_end()), 503, "the last of those who have most makes room");
    assert_eq!(status(&ask(1, "/greedy").read_to_end()), 503, "for others, not for more of its own");
    waiting(12);
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    assert_eq!(status(&first.read_to_end()), 200);
    assert_eq!(status(&modest.read_to_end()), 200);
    let paths: Vec<String> =
        origin.request_lines().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths[..3], ["/first", "/greedy", "/modest"]);
    for _ in 0..10 {
        go.send(()).unwrap();
    }
    assert!(greedy.iter_mut().all(|raw| status(&raw.read_to_end()) == 200));
    waiting(0);
    assert_eq!(edge.pools.list()[0].in_flight, 0);
}

#[test]
fn while_one_is_full_others_take_its_requests() {
    let (go, origin) = held();
    let other = Origin::answering("other");
    let pool = |pool: &mut PoolConfig| pool.limits = one_at_a_time(0, Duration::ZERO);
    let edge = Edge::with(&[origin.address, other.address], Options { pool: Some(pool), ..Options::default() });
    let mut first = Raw::connect(&edge);
    first.write(GET);
    eventually("the first is under way", || origin.received().len() == 1);
    for _ in 0..6 {
        assert_eq!(get(&edge, "/").0, 200);
    }
    assert_eq!(other.received().len(), 6);
    go.send(()).unwrap();
    assert_eq!(status(&first.read_to_end()), 200);
}

#[test]
fn connections_of_all_workers_together_stay_within_the_limit() {
    let origin = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(20));
        ok(stream, "hello")
    });
    let pool = |pool: &mut PoolConfig| {
        pool.limits = PoolLimits {
            connections_per_backend: Some(2),
            queue_length: 100,
            queue_timeout: Duration::from_secs(10),
            ..PoolLimits::default()
        };
    };
    let options = Options { pool: Some(pool), more_workers: 2, ..Options::default() };
    let edge = Edge::with(&[origin.address], options);
    let of_it = format!("lb_backend_connections{{pool=\"web\",backend=\"{}\"}} ", origin.address);
    let open = |edge: &Edge| -> u32 {
        let metrics = edge.metrics.render();
        metrics.lines().find_map(|line| line.strip_prefix(&*of_it)?.parse().ok()).unwrap()
    };
    // At once, from many connections, so that each worker has some; then one after the other, so that each worker in turn needs
    // what another keeps idle.
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert_eq!(get(&edge, "/").0, 200));
        }
        for _ in 0..20 {
            assert!(open(&edge) <= 3, "no more than the limit, and one that was counted and given back");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    for _ in 0..12 {
        assert_eq!(get(&edge, "/").0, 200);
    }
    assert!(open(&edge) <= 2);
    let accepted = edge.metrics.workers();
    assert!(accepted.len() == 3, "{accepted:?}");
    assert_eq!(edge.pools.list()[0].errors, 0);
}

#[test]
fn a_full_backend_is_no_failure_of_its_own() {
    let (go, origin) = held();
    let pool = |pool: &mut PoolConfig| {
        pool.limits = PoolLimits { connections_per_backend: Some(1), ..PoolLimits::default() };
    };
    let edge = Edge::with(&[origin.address], Options { pool: Some(pool), ..Options::default() });
    let mut first = Raw::connect(&edge);
    first.write(GET);
    eventually("the first is under way", || origin.received().len() == 1);
    let (status_, answer) = get(&edge, "/");
    assert!(status_ == 503 && answer.contains("urn:lb:problem:overloaded"), "{answer}");
    go.send(()).unwrap();
    assert_eq!(status(&first.read_to_end()), 200);
    assert_eq!(edge.pools.list()[0].errors, 0);
}
