//! Which backend a request comes to, and which client stays where.

use std::collections::BTreeMap;

use lb_controller::config::{Balance, HashKey, StickyConfig};

use crate::support::client::{Raw, get, status};
use crate::support::edge::{Edge, Options};
use crate::support::origin::Origin;

/// Three backends that say who they are, and an edge in front of them.
fn three(pool: fn(&mut lb_controller::config::PoolConfig)) -> (Vec<Origin>, Edge) {
    let origins: Vec<Origin> = ["a", "b", "c"].into_iter().map(Origin::answering).collect();
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let edge = Edge::with(&addresses, Options { pool: Some(pool), ..Options::default() });
    (origins, edge)
}

/// A GET with these header lines; the answer's head and body.
fn ask(raw: &mut Raw, headers: &str) -> (String, String) {
    raw.write(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n"));
    let (head, body) = raw.read_response();
    assert_eq!(status(&head), 200, "{head}");
    (head, String::from_utf8(body).unwrap())
}

/// The `Set-Cookie` lines of a head.
fn cookies_set(head: &str) -> Vec<&str> {
    head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect()
}

#[test]
fn weights_are_shares_of_requests() {
    let (_origins, edge) = three(|pool| {
        pool.balance = Balance::RoundRobin;
        pool.backends[0].weight = 4;
        pool.backends[2].weight = 0;
    });
    let mut raw = Raw::connect(&edge);
    let mut counts = BTreeMap::<String, usize>::new();
    (0..50).for_each(|_| *counts.entry(ask(&mut raw, "").1).or_default() += 1);
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 40), ("b".to_owned(), 10)]));
    let requests: Vec<u64> = edge.pools.list().iter().map(|backend| backend.requests).collect();
    assert_eq!(requests, [40, 10, 0]);
}

#[test]
fn requests_with_the_same_header_come_to_the_same_backend() {
    let (_origins, edge) = three(|pool| pool.balance = Balance::Hash(HashKey::Header("x-tenant".parse().unwrap())));
    let mut raw = Raw::connect(&edge);
    let mut owners = BTreeMap::<String, usize>::new();
    for tenant in 0..30 {
        let header = format!("X-Tenant: {tenant}\r\n");
        let owner = ask(&mut raw, &header).1;
        assert_eq!(ask(&mut raw, &header).1, owner, "tenant {tenant}");
        *owners.entry(owner).or_default() += 1;
    }
    assert_eq!(owners.len(), 3, "{owners:?}");
}

#[test]
fn a_client_gets_a_cookie_once_and_stays_and_forged_values_are_nobodys() {
    let (_origins, edge) = three(|pool| pool.sticky = Some(StickyConfig { cookie: "at".into(), key: None }));
    let mut raw = Raw::connect(&edge);
    let (head, first) = ask(&mut raw, "");
    let set = cookies_set(&head);
    assert_eq!(set.len(), 1, "{head}");
    assert!(head.contains("cache-control: private"), "no cache may hand it to others: {head}");
    let cookie = set[0].split(';').next().unwrap().to_owned();
    for _ in 0..8 {
        let (head, body) = ask(&mut raw, &format!("Cookie: x=1; {cookie}\r\n"));
        assert_eq!((&body, cookies_set(&head).len()), (&first, 0), "{head}");
    }
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let (head, body) = ask(&mut raw, "Cookie: at=AAAAAAAAAAAAAAAA\r\n");
        assert_eq!(cookies_set(&head).len(), 1, "it is replaced: {head}");
        others.insert(body);
    }
    assert_eq!(others.len(), 3, "it names nobody");
}

#[test]
fn what_shared_caches_may_keep_carries_no_cookie() {
    let origin = Origin::start(|_, stream| {
        use std::io::Write;
        write!(stream, "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 1\r\n\r\na").is_ok()
    });
    let pool = |pool: &mut lb_controller::config::PoolConfig| {
        pool.sticky = Some(StickyConfig { cookie: "at".into(), key: None });
    };
    let edge = Edge::with(&[origin.address], Options { pool: Some(pool), ..Options::default() });
    let (_, answer) = get(&edge, "/");
    assert!(!answer.contains("set-cookie") && !answer.contains("private"), "{answer}");
}

#[test]
fn a_client_whose_backend_is_out_gets_another_and_a_new_cookie() {
    let (_origins, edge) = three(|pool| pool.sticky = Some(StickyConfig { cookie: "at".into(), key: None }));
    let mut raw = Raw::connect(&edge);
    let (head, first) = ask(&mut raw, "");
    let cookie = cookies_set(&head)[0].split(';').next().unwrap().to_owned();
    let index = usize::from(first.as_bytes()[0] - b'a');
    edge.pools.get("web").unwrap().backends()[index].set_healthy(false, None);
    let (head, second) = ask(&mut raw, &format!("Cookie: {cookie}\r\n"));
    assert_ne!(second, first);
    assert_eq!(cookies_set(&head).len(), 1, "{head}");
}
