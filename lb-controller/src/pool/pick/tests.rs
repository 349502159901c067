use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use proptest::prelude::*;

use super::super::tests::pool;
use super::*;
use crate::config::HashKey;

/// How many of `count` picks each backend got, by its port.
fn counts(pool: &Pool, count: usize, mut wish: impl FnMut(usize) -> Wish<'static>) -> BTreeMap<u16, usize> {
    let mut random = Rng::with_seed(7);
    let mut counts = BTreeMap::new();
    for number in 0..count {
        let picked = pool.pick_from(&pool.selection.load(), &wish(number), &[], &mut random).unwrap();
        *counts.entry(picked.backend().address.port()).or_default() += 1;
    }
    counts
}

fn weigh(config: &mut crate::config::PoolConfig, weights: &[u8]) {
    config.backends.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = *weight);
}

#[test]
fn without_load_the_shares_are_the_weights_within_five_percent() {
    for balance in [Balance::LeastRequest, Balance::Latency, Balance::RoundRobin, Balance::Hash(HashKey::Path)] {
        for weights in [&[1, 1][..], &[1, 2, 3], &[10, 1], &[50, 100, 150, 200], &[1; 40]] {
            let ports: Vec<u16> = (1..=weights.len() as u16).collect();
            let pool = pool(&ports, |config| {
                config.balance = balance.clone();
                weigh(config, weights);
            });
            let total = 200_000;
            let counts =
                counts(&pool, total, |number| Wish { hash: Some(hash_of(&number.to_be_bytes())), stuck_to: None });
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (port, weight) in ports.iter().zip(weights) {
                let share = counts.get(port).copied().unwrap_or(0) as f64 / total as f64;
                let off = share / (f64::from(*weight) / sum) - 1.0;
                assert!(off.abs() < 0.05, "{balance:?} {weights:?}: backend {port} is off by {off:.3}");
            }
        }
    }
}

#[test]
fn what_is_under_way_follows_the_weights() {
    let pool = pool(&[1, 2, 3], |config| weigh(config, &[1, 3, 6]));
    let mut random = Rng::with_seed(11);
    let mut held = std::collections::VecDeque::new();
    for _ in 0..20_000 {
        held.push_back(pool.pick_from(&pool.selection.load(), &Wish::default(), &[], &mut random).unwrap());
        if held.len() > 100 {
            held.pop_front();
        }
    }
    let in_flight: Vec<u32> = pool.backends().iter().map(|backend| backend.in_flight()).collect();
    for (found, expected) in in_flight.iter().zip([10, 30, 60]) {
        assert!(found.abs_diff(expected) <= 6, "{in_flight:?} of 100");
    }
}

#[test]
fn a_slow_backend_gets_few_requests_by_what_is_under_way_and_fewer_by_latency() {
    // In ticks of the simulation: the third takes ten times as long.
    let shares = [Balance::LeastRequest, Balance::Latency].map(|balance| {
        let pool = pool(&[1, 2, 3], |config| config.balance = balance.clone());
        let mut random = Rng::with_seed(5);
        let (mut held, mut sent_to_slow) = (Vec::new(), 0);
        for tick in 0..30_000_usize {
            held.retain(|(until, _)| *until > tick);
            let picked = pool.pick_from(&pool.selection.load(), &Wish::default(), &[], &mut random).unwrap();
            let takes = if picked.backend().address.port() == 3 { 100 } else { 10 };
            sent_to_slow += usize::from(takes == 100);
            picked.backend().latency().observe(now_ms(), Duration::from_millis(takes as u64));
            held.push((tick + takes, picked));
        }
        sent_to_slow as f64 / 30_000.0
    });
    assert!(shares[0] < 0.1 && shares[1] < shares[0], "{shares:?}");
}

#[test]
fn one_of_unknown_latency_is_asked_once_before_it_is_asked_more() {
    let pool = pool(&[1, 2], |config| config.balance = Balance::Latency);
    pool.backends()[0].latency().observe(now_ms(), Duration::from_millis(5));
    let pick = || pool.pick(&Wish::default(), &[]).unwrap();
    let first = pick();
    assert_eq!(first.backend().address.port(), 2, "nothing is known of it");
    let others: Vec<InFlight> = (0..20).map(|_| pick()).collect();
    assert!(others.iter().all(|other| other.backend().address.port() == 1), "its first answer is still to come");
}

#[test]
fn a_backend_that_fails_fast_is_no_quick_one() {
    let pool = pool(&[1, 2], |config| config.balance = Balance::Latency);
    let observe = |index: usize, ms| pool.backends()[index].latency().observe(now_ms(), Duration::from_millis(ms));
    observe(0, 20);
    observe(1, 1);
    pool.backends()[1].failed("reset".into());
    assert!((0..50).all(|_| pool.pick(&Wish::default(), &[]).unwrap().backend().address.port() == 1));
}

#[test]
fn requests_without_what_they_are_spread_by_are_spread_all_the_same() {
    let pool = pool(&[1, 2], |config| config.balance = Balance::Hash(HashKey::User));
    let counts = counts(&pool, 10_000, |_| Wish::default());
    assert!(counts.values().all(|count| (4_750..5_250).contains(count)), "{counts:?}");
}

#[test]
fn the_cost_of_a_pick_does_not_grow_with_the_pool() {
    let cost = |count: u16, balance: &Balance| {
        let ports: Vec<u16> = (1..=count).collect();
        let pool = pool(&ports, |config| config.balance = balance.clone());
        // The quickest of many rounds: what else the machine does only adds.
        let round = || {
            let start = Instant::now();
            for number in 0..1_000_u64 {
                let picked = pool.pick(&Wish { hash: Some(number), stuck_to: None }, &[]);
                assert!(picked.is_ok());
            }
            start.elapsed()
        };
        (0..20).map(|_| round()).min().unwrap()
    };
    for balance in [Balance::LeastRequest, Balance::Latency, Balance::RoundRobin, Balance::Hash(HashKey::Path)] {
        let (few, many) = (cost(2, &balance), cost(10_000, &balance));
        eprintln!("{balance:?}: {} ns of 2, {} ns of 10,000", few.as_nanos() / 1_000, many.as_nanos() / 1_000);
        // Caches hold two backends and not ten thousand; looking at all of them would cost a thousand times as much.
        assert!(many < 20 * few, "{balance:?}: {few:?} of 2, {many:?} of 10,000");
    }
}

proptest! {
    #[test]
    fn a_backend_that_goes_moves_only_its_own_requests_and_few_others(count in 3_u16..60, gone in 0_u16..60) {
        let ports: Vec<u16> = (1..=count).collect();
        let pool = pool(&ports, |config| config.balance = Balance::Hash(HashKey::Path));
        let gone = gone % count;
        let owners = || -> Vec<u16> {
            let owner = |number: u64| {
                let wish = Wish { hash: Some(hash_of(&number.to_be_bytes())), stuck_to: None };
                pool.pick(&wish, &[]).unwrap().backend().address.port()
            };
            (0..2_000).map(owner).collect()
        };
        let before = owners();
        pool.backends()[usize::from(gone)].set_healthy(false, None);
        pool.refresh();
        let after = owners();
        let others = before.iter().zip(&after).filter(|(owner, _)| **owner != gone + 1);
        let moved = others.clone().filter(|(before, after)| before != after).count();
        prop_assert!(after.iter().all(|owner| *owner != gone + 1));
        prop_assert!(moved * 100 <= others.count() * 10, "{moved} of those that had nothing to do with it");
        pool.backends()[usize::from(gone)].set_healthy(true, None);
        pool.refresh();
        prop_assert_eq!(owners(), before, "one that comes back finds its own again");
    }
}
