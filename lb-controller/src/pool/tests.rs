use std::collections::BTreeSet;

use super::*;
use crate::config::{EjectionConfig, HashKey};

pub(super) fn config(name: &str, ports: &[u16]) -> PoolConfig {
    let backend = |port: &u16| SocketAddr::from(([127, 0, 0, 1], *port)).into();
    PoolConfig { name: name.into(), backends: ports.iter().map(backend).collect(), ..PoolConfig::default() }
}

/// One pool, as a test wants it.
pub(super) fn pool(ports: &[u16], change: impl FnOnce(&mut PoolConfig)) -> Arc<Pool> {
    let mut config = config("web", ports);
    change(&mut config);
    Arc::clone(Pools::build(&[config], None).get("web").unwrap())
}

/// The ports of the next `count` picks, each of which is over before the next.
fn picks(pool: &Pool, count: usize) -> Vec<u16> {
    (0..count)
        .filter_map(|_| pool.pick(&Wish::default(), &[]).ok())
        .map(|picked| picked.backend().address.port())
        .collect()
}

fn ports_of(picks: Vec<u16>) -> BTreeSet<u16> {
    picks.into_iter().collect()
}

fn take_out(pool: &Pool, index: usize) {
    pool.backends()[index].set_healthy(false, Some("refused".into()));
}

#[test]
fn backends_in_turn_take_turns() {
    let pool = pool(&[1, 2, 3], |config| config.balance = Balance::RoundRobin);
    assert_eq!(picks(&pool, 6), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn an_unhealthy_backend_is_passed_over_at_once_and_by_every_way_of_choosing() {
    for balance in [Balance::LeastRequest, Balance::Latency, Balance::RoundRobin, Balance::Hash(HashKey::Source)] {
        let pool = pool(&[1, 2, 3], |config| config.balance = balance.clone());
        take_out(&pool, 0);
        let of = |hash| pool.pick(&Wish { hash, stuck_to: None }, &[]).unwrap().backend().address.port();
        let before: BTreeSet<u16> = (0..100).map(|hash| of(Some(hash))).collect();
        pool.refresh();
        let after: BTreeSet<u16> = (0..100).map(|hash| of(Some(hash))).collect();
        assert_eq!((before, after), (BTreeSet::from([2, 3]), BTreeSet::from([2, 3])), "{balance:?}");
    }
}

#[test]
fn a_busier_backend_is_passed_over() {
    let pool = pool(&[1, 2], |_| {});
    let _held = InFlight::begin(&pool.backends()[0]);
    assert_eq!(ports_of(picks(&pool, 100)), BTreeSet::from([2]));
}

#[test]
fn thousands_that_go_at_once_are_laid_out_a_few_times_and_nobody_is_sent_to_them() {
    let ports: Vec<u16> = (1..=3_000).collect();
    let pool = pool(&ports, |_| {});
    for index in 1..3_000 {
        take_out(&pool, index);
        pool.refresh_soon();
    }
    assert_eq!(ports_of(picks(&pool, 20)), BTreeSet::from([1]));
    pool.tend();
    assert_eq!(pool.selection.load().members.len(), 1);
}

#[test]
fn a_large_pool_is_tended_in_turns() {
    let ports: Vec<u16> = (1..=3_000).collect();
    let at_once = EjectionConfig { consecutive_failures: 1, time: Duration::ZERO, ..EjectionConfig::default() };
    let pool = pool(&ports, |config| config.ejection = Some(at_once));
    let (first, last) = (&pool.backends()[0], &pool.backends()[2_999]);
    [first, last].iter().for_each(|backend| backend.failed("reset".into()));
    let ejected = || [first.is_ejected(), last.is_ejected()];
    assert_eq!(ejected(), [true, true]);
    let tended = |_| {
        pool.tend();
        ejected()
    };
    let after: Vec<_> = (0..3).map(tended).collect();
    assert_eq!(after, [[false, true], [false, true], [false, false]]);
}

#[test]
fn without_a_healthy_backend_there_is_no_pick() {
    let pool = pool(&[1], |_| {});
    assert!(pool.pick(&Wish::default(), &[pool.backends()[0].clone()]).is_err(), "the only one is avoided");
    take_out(&pool, 0);
    assert!(pool.pick(&Wish::default(), &[]).is_err(), "the only one is down");
    let empty = Pools::build(&[config("none", &[])], None);
    assert!(empty.get("none").unwrap().pick(&Wish::default(), &[]).is_err(), "no backend is configured");
}

#[test]
fn a_backend_lives_on_where_pool_and_address_stay() {
    let before = Pools::build(&[config("web", &[1, 2])], None);
    before.get("web").unwrap().backends()[1].set_healthy(false, Some("refused".into()));
    let after = Pools::build(&[config("web", &[2, 3]), config("api", &[2])], Some(&before));
    let health = |pool: &str| {
        let pool = after.get(pool).unwrap();
        pool.backends().iter().map(|backend| (backend.address.port(), backend.is_healthy())).collect::<Vec<_>>()
    };
    assert_eq!(health("web"), [(2, false), (3, true)]);
    assert_eq!(health("api"), [(2, true)], "the same address in another pool is another backend");
}

#[test]
fn a_draining_backend_and_one_without_weight_get_nothing_new() {
    let pool = pool(&[1, 2, 3], |config| {
        config.backends[0].drain = true;
        config.backends[1].weight = 0;
    });
    assert_eq!(ports_of(picks(&pool, 50)), BTreeSet::from([3]));
    let states: Vec<&str> = pool.views().iter().map(|view| view.state).collect();
    assert_eq!(states, ["draining", "standby", "serving"]);
}

#[test]
fn backups_stand_in_without_a_lost_request_and_stand_back() {
    let pool = pool(&[1, 2, 9], |config| config.backends[2].backup = 1);
    assert_eq!(ports_of(picks(&pool, 50)), BTreeSet::from([1, 2]));
    take_out(&pool, 0);
    take_out(&pool, 1);
    // Nobody has refreshed it: the first request that finds nobody does.
    assert_eq!(picks(&pool, 3), [9, 9, 9]);
    assert_eq!(pool.reach(), Reach::Backups);
    pool.backends()[0].set_healthy(true, None);
    pool.tend();
    assert_eq!(picks(&pool, 3), [1, 1, 1]);
}

#[test]
fn in_panic_all_are_used_and_shown_so() {
    let pool = pool(&[1, 2], |config| config.panic_threshold_percent = 60);
    take_out(&pool, 0);
    pool.tend();
    assert_eq!(ports_of(picks(&pool, 100)), BTreeSet::from([1, 2]));
    let states: Vec<&str> = pool.views().iter().map(|view| view.state).collect();
    assert_eq!(states, ["panic", "serving"]);
}

#[test]
fn who_comes_back_starts_slowly_and_ends_with_its_whole_share() {
    let pool = pool(&[1, 2], |config| config.slow_start = Duration::from_secs(60));
    let first = &pool.backends()[0];
    assert_eq!(pool.sixteenths(first, now_ms() + 1), WHOLE, "at the start of the edge all are warm");
    take_out(&pool, 0);
    first.set_healthy(true, None);
    let back_ms = now_ms();
    let sixteenths = |after_s: u64| pool.sixteenths(first, back_ms + after_s * 1_000);
    assert_eq!([0, 15, 30, 60, 600].map(sixteenths), [1, 4, 8, 16, 16]);
    pool.refresh();
    let mut counts = [0; 3];
    picks(&pool, 1_700).into_iter().for_each(|port| counts[usize::from(port)] += 1);
    // One sixteenth against sixteen: a seventeenth of all, 100.
    assert!((50..200).contains(&counts[1]), "{counts:?}");
    assert_eq!(pool.views()[0].state, "slow_start");
}

#[test]
fn one_that_joins_others_starts_slowly_too() {
    let slow = |ports: &[u16]| PoolConfig { slow_start: Duration::from_secs(60), ..config("web", ports) };
    let before = Pools::build(&[slow(&[1])], None);
    let after = Pools::build(&[slow(&[1, 2])], Some(&before));
    let states: Vec<&str> = after.list().iter().map(|view| view.state).collect();
    assert_eq!(states, ["serving", "slow_start"]);
}

#[test]
fn a_client_stays_until_its_backend_is_out() {
    let pool = pool(&[1, 2, 3], |config| {
        config.sticky = Some(crate::config::StickyConfig { cookie: "at".into(), key: None });
    });
    let cookie =
        pool.sticky_cookie(&pool.backends()[2]).unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
    let headers: HeaderMap = [(http::header::COOKIE, HeaderValue::try_from(cookie).unwrap())].into_iter().collect();
    let stuck = |avoid: &[Arc<Backend>]| {
        let wish = Wish { hash: None, stuck_to: pool.stuck_to(&headers) };
        let picks = (0..30).map(|_| pool.pick(&wish, avoid).unwrap().backend().address.port());
        picks.collect::<BTreeSet<u16>>()
    };
    let _busy = InFlight::begin(&pool.backends()[2]);
    assert_eq!(stuck(&[]), BTreeSet::from([3]), "also while it is the busiest");
    assert_eq!(stuck(&[pool.backends()[2].clone()]), BTreeSet::from([1, 2]), "unless it was tried just now");
    take_out(&pool, 2);
    assert_eq!(stuck(&[]), BTreeSet::from([1, 2]), "or is down");
}

#[test]
fn a_draining_backend_keeps_no_clients() {
    let sticky = |drain| {
        let mut config = config("web", &[1, 2]);
        config.backends[0].drain = drain;
        config.sticky = Some(crate::config::StickyConfig { cookie: "at".into(), key: None });
        config
    };
    let before = Pools::build(&[sticky(false)], None);
    let after = Pools::build(&[sticky(true)], Some(&before));
    let (before, after) = (before.get("web").unwrap(), after.get("web").unwrap());
    let cookie = before.sticky_cookie(&before.backends()[0]).unwrap().to_str().unwrap().to_owned();
    let headers: HeaderMap = [(http::header::COOKIE, HeaderValue::try_from(cookie).unwrap())].into_iter().collect();
    assert!(before.stuck_to(&headers).is_some(), "the key stays over a reload");
    assert!(after.stuck_to(&headers).is_none());
}

#[test]
fn metrics_show_the_backends() {
    let metrics = crate::metrics::Metrics::default();
    let shows = |line: &str| metrics.render().lines().any(|shown| shown == line);
    let pools = Pools::build(&[config("web", &[80])], None);
    metrics.show_pools(&pools);
    assert!(shows(r#"lb_backend_up{pool="web",backend="127.0.0.1:80"} 1"#));
    assert!(shows(r#"lb_backend_requests_total{pool="web",backend="127.0.0.1:80"} 0"#));
    pools.get("web").unwrap().backends()[0].set_healthy(false, None);
    assert!(shows(r#"lb_backend_up{pool="web",backend="127.0.0.1:80"} 0"#), "{}", metrics.render());
}
