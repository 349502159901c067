use std::cell::Cell;
use std::vec::Vec;

use super::super::tests::LeakyBucket;
use super::*;
use Dimension::{Bytes, Packets};
use proptest::prelude::*;

const TICK_NS: u64 = 4_000_000;
const SECOND_PS: u64 = 1_000_000_000_000;

impl Clock for Cell<u64> {
    fn load(&self) -> u64 {
        self.get()
    }

    fn exchange(&self, seen: u64, next: u64) -> u64 {
        let found = self.get();
        if found == seen {
            self.set(next);
        }
        found
    }
}

impl Reserve for Cell<u64> {
    fn load(&self) -> u64 {
        self.get()
    }

    fn store(&self, units: u64) {
        self.set(units);
    }
}

fn limit(dimension: Dimension, rate: u64, burst: u64, cpus: u64) -> SharedLimit {
    SharedLimit::new(Limit::per_second(dimension, rate, burst, TICK_NS), dimension, cpus)
}

#[test]
fn a_small_limit_is_given_out_packet_by_packet_and_a_large_one_in_batches() {
    let rows = [(1, 1, 2, 1), (10, 10, 2, 1), (100_000, 10_000, 2, 32), (100_000, 10_000, 64, 19)];
    for (rate, burst, cpus, expected) in rows {
        assert_eq!(limit(Packets, rate, burst, cpus).batch_units, expected, "{rate} {burst} {cpus}");
    }
    assert_eq!(limit(Bytes, 1 << 30, 1 << 30, 2).batch_units, 48_000);
    assert!(limit(Packets, 0, 0, 2).is_unlimited());
}

#[test]
fn the_whole_burst_is_given_out_whichever_cpus_ask() {
    const CPUS: usize = 4;
    let limit = limit(Packets, 1000, 1000, CPUS as u64);
    for busy in 1..=CPUS {
        let (clock, reserves) = (Cell::new(0), [const { Cell::new(0) }; CPUS]);
        let ask = |packet: usize| charge(&clock, &reserves[packet % busy], &limit, 1, SECOND_PS);
        let admitted = (0..5000).filter(|packet| ask(*packet)).count();
        let idle: u64 = reserves.iter().map(Cell::get).sum();
        assert_eq!(admitted as u64 + idle, 1000, "{busy} CPUs");
        assert_eq!(idle, 0, "{busy} CPUs asked until nothing was left");
    }
}

#[test]
fn the_clock_is_written_once_a_batch() {
    let limit = limit(Packets, 1_000_000, 100_000, 2);
    let (clock, reserve, mut writes, mut seen) = (Cell::new(0), Cell::new(0), 0, 0);
    for _ in 0..3200 {
        assert!(charge(&clock, &reserve, &limit, 1, SECOND_PS));
        writes += u32::from(clock.get() != seen);
        seen = clock.get();
    }
    assert_eq!(writes, 100);
}

proptest! {
    /// Together the CPUs admit what one leaky bucket admits, within the batches that lie in their reserves.
    #[test]
    fn cpus_together_keep_to_the_rate_of_one_bucket(
        rate in 1_u64..1_000_000,
        burst in 1_u64..10_000,
        packets in proptest::collection::vec(
            (prop_oneof![9 => Just(0_u64), 1 => 0..100_000_000_000_u64], 0_usize..4, 1_u64..1500),
            1..2000,
        ),
        bytes: bool,
    ) {
        let dimension = if bytes { Bytes } else { Packets };
        let limit = limit(dimension, rate, burst, 4);
        let (clock, reserves) = (Cell::new(0), [const { Cell::new(0) }; 4]);
        let mut bucket = LeakyBucket::default();
        let (mut now_ps, mut admitted, mut expected) = (0, 0_u64, 0_u64);
        for (pause_ps, cpu, length) in packets {
            now_ps += pause_ps;
            let units = if bytes { length } else { 1 };
            admitted += u64::from(charge(&clock, &reserves[cpu], &limit, units, now_ps)) * units;
            expected += u64::from(bucket.admits(&limit.limit(), units, now_ps)) * units;
        }
        let largest = if bytes { 1500 } else { 1 };
        let slack = 4 * (limit.batch_units + largest);
        prop_assert!(admitted <= expected + slack, "{} of {}", admitted, expected);
        let idle: u64 = reserves.iter().map(Cell::get).sum::<u64>();
        prop_assert!(admitted + idle + slack >= expected, "{} of {}", admitted, expected);
    }

    #[test]
    fn no_state_makes_it_panic(clock: u64, reserve: u64, now_ps: u64, units in 1_u64..65_536) {
        let (clock, reserve) = (Cell::new(clock), Cell::new(reserve >> 1));
        charge(&clock, &reserve, &limit(Bytes, 1_000_000, 1, 2), units, now_ps);
    }
}

#[test]
fn threads_that_ask_at_once_get_no_more_than_the_burst() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    struct Shared(AtomicU64);
    impl Clock for Shared {
        fn load(&self) -> u64 {
            self.0.load(SeqCst)
        }
        fn exchange(&self, seen: u64, next: u64) -> u64 {
            self.0.compare_exchange(seen, next, SeqCst, SeqCst).unwrap_or_else(|found| found)
        }
    }
    const BURST: u64 = 100_000;
    let limit = limit(Packets, 100, BURST, 4);
    let clock = Shared(AtomicU64::new(0));
    let admitted: Vec<usize> = std::thread::scope(|threads| {
        let ask = || {
            let reserve = Cell::new(0);
            (0..BURST).filter(|_| charge(&clock, &reserve, &limit, 1, SECOND_PS)).count()
        };
        let threads: Vec<_> = (0..4).map(|_| threads.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("asks")).collect()
    });
    let admitted = admitted.iter().sum::<usize>() as u64;
    // Lost races pass uncharged, rarely; what is left in a reserve when its thread is done is not given out.
    assert!((BURST - 4 * limit.batch_units..=BURST + BURST / 50).contains(&admitted), "{admitted}");
}
