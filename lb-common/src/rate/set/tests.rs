use std::cell::Cell;
use std::collections::HashMap;
use std::vec::Vec;

use super::super::Dimension::{Bytes, Packets, Syns};
use super::super::tests::LeakyBucket;
use super::*;
use crate::Source;
use crate::maps::SOURCE_SETS;
use proptest::prelude::*;

const TICK_NS: u64 = 4_000_000;
const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
const SECOND_PS: u64 = 1_000_000_000_000;

impl Set for [Cell<u64>] {
    fn load(&self, way: u32) -> u64 {
        self[way as usize].get()
    }

    fn store(&self, way: u32, entry: u64) {
        self[way as usize].set(entry);
    }

    fn exchange(&self, way: u32, seen: u64, entry: u64) -> u64 {
        let found = self[way as usize].get();
        if found == seen {
            self[way as usize].set(entry);
        }
        found
    }
}

impl<T: Set + ?Sized> Set for &T {
    fn load(&self, way: u32) -> u64 {
        (**self).load(way)
    }

    fn store(&self, way: u32, entry: u64) {
        (**self).store(way, entry);
    }

    fn exchange(&self, way: u32, seen: u64, entry: u64) -> u64 {
        (**self).exchange(way, seen, entry)
    }
}

/// The limiter as the kernel has it.
struct Table {
    entries: Vec<Cell<u64>>,
}

impl Table {
    fn new() -> Self {
        Self { entries: (0..SOURCE_SETS * WAYS as usize).map(|_| Cell::new(0)).collect() }
    }

    fn charge(&self, source: u32, dimension: Dimension, limit: &Limit, units: u64, now_ps: u64) -> bool {
        let hash = Source::of(core::net::IpAddr::V4(source.into())).limiter_hash(KEY, 0);
        let place = Place::of_hash(hash, SOURCE_SETS);
        let start = place.set as usize * WAYS as usize;
        charge(&&self.entries[start..start + WAYS as usize], place.tag, dimension, limit, units, now_ps)
    }
}

fn empty_set() -> [Cell<u64>; WAYS as usize] {
    [const { Cell::new(0) }; WAYS as usize]
}

/// What the arithmetic of a set makes of a limit: whole steps.
fn in_steps(limit: &Limit) -> Limit {
    Limit {
        cost_ps: limit.cost_ps >> STEP_BITS << STEP_BITS,
        tolerance_ps: limit.tolerance_ps >> STEP_BITS << STEP_BITS,
    }
}

#[test]
fn dimensions_of_one_source_are_counted_apart() {
    let set = empty_set();
    let limit = Limit::per_second(Packets, 1, 2, TICK_NS);
    for dimension in Dimension::ALL {
        let admitted = (0..5).filter(|_| charge(&&set[..], 8, dimension, &limit, 1, SECOND_PS)).count();
        assert_eq!(admitted, 2, "{dimension:?}");
    }
}

#[test]
fn of_a_full_set_the_source_furthest_over_its_limit_is_forgotten_last() {
    let set = empty_set();
    let limit = Limit::per_second(Packets, 1, 10, TICK_NS);
    let packets = |tag, packets| (0..packets).filter(|_| charge(&&set[..], tag, Packets, &limit, 1, SECOND_PS)).count();
    assert_eq!(packets(4, 20), 10, "its burst is used up");
    for stranger in 0..1000 {
        assert_eq!(packets(8 * stranger + 16, 1), 1, "a stranger is never punished for the others");
    }
    assert_eq!(packets(4, 1), 0, "still over its limit");
}

#[test]
fn an_entry_that_is_over_gives_way_before_one_that_is_not() {
    let set = empty_set();
    let slow = Limit::per_second(Packets, 1, 1, TICK_NS);
    let quick = Limit::per_second(Packets, 1000, 1, TICK_NS);
    let first = |tag, limit, now_ps| charge(&&set[..], tag, Packets, limit, 1, now_ps);
    assert!(first(4, &slow, SECOND_PS));
    for tag in [8, 16, 32] {
        assert!(first(tag, &quick, SECOND_PS));
    }
    let later_ps = SECOND_PS + SECOND_PS / 2;
    for tag in [64, 128, 256] {
        assert!(first(tag, &quick, later_ps));
    }
    assert!(!first(4, &slow, later_ps), "remembered");
}

#[test]
fn an_entry_last_used_before_the_time_wrapped_around_is_over() {
    let limit = Limit::per_second(Packets, 1, 1, TICK_NS);
    let round_ps = 1_u64 << (TIME_BITS + STEP_BITS);
    // A second before the entry's time comes round again, beyond what a burst of one allows.
    for (pause_ps, expected) in [(SECOND_PS / 2, false), (2 * SECOND_PS, true), (round_ps - 2 * SECOND_PS, true)] {
        let set = empty_set();
        assert!(charge(&&set[..], 4, Packets, &limit, 1, SECOND_PS));
        let now_ps = SECOND_PS + pause_ps;
        assert_eq!(charge(&&set[..], 4, Packets, &limit, 1, now_ps), expected, "{pause_ps}");
    }
}

#[test]
fn entries_never_used_give_way_first_at_whatever_time() {
    let limit = Limit::per_second(Packets, 1, 1, TICK_NS);
    let just_before_the_round = (1_u64 << (TIME_BITS + STEP_BITS)) - SECOND_PS / 10;
    let set = empty_set();
    for tag in 0..u64::from(WAYS) {
        assert!(charge(&&set[..], 8 * tag + 8, Packets, &limit, 1, just_before_the_round));
    }
    assert!(set.iter().all(|entry| entry.get() != 0), "{set:?}");
}

#[test]
fn the_longest_packets_and_the_slowest_bytes_fit_the_arithmetic() {
    let set = empty_set();
    let limit = Limit::per_second(Bytes, 1, 1, TICK_NS);
    assert!(charge(&&set[..], 4, Bytes, &limit, 65_535, SECOND_PS));
    let rate = Limit::per_second(Bytes, 100_000_000_000, 0, TICK_NS);
    // Two ticks' worth at least: 800 MB.
    let admitted = (0..20_000).filter(|_| charge(&&set[..], 8, Bytes, &rate, 65_535, SECOND_PS)).count();
    assert!((11_000..=12_300).contains(&admitted), "{admitted}");
}

/// The promise: a flood of random sources costs those who keep to their limits nothing, and does not help those who do
/// not. Two million packets a second is what one core takes; the sources' limit is 10 SYNs a second.
#[test]
fn ten_million_spoofed_syns_cost_nobody_a_packet_and_free_nobody() {
    const FLOOD_PACKETS: u64 = 10_000_000;
    const FLOOD_INTERVAL_PS: u64 = SECOND_PS / 2_000_000;
    const LEGITIMATE_EVERY: u64 = 400;
    const LEGITIMATE_SOURCES: u64 = 5000;
    let limit = Limit::per_second(Syns, 10, 10, TICK_NS);
    let table = Table::new();
    let (mut random, mut lost, mut attacker_admitted) = (1_u64, 0, 0);
    for packet in 0..FLOOD_PACKETS {
        let tick_ps = TICK_NS * 1000;
        let now_ps = SECOND_PS + packet * FLOOD_INTERVAL_PS / tick_ps * tick_ps;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spoofed = (random >> 32) as u32;
        table.charge(spoofed, Syns, &limit, 1, now_ps);
        // Each legitimate source opens a connection a second.
        if packet % LEGITIMATE_EVERY == 0 {
            let source = 0x0a00_0000 + (packet / LEGITIMATE_EVERY % LEGITIMATE_SOURCES) as u32;
            lost += u32::from(!table.charge(source, Syns, &limit, 1, now_ps));
        }
        // One host sends 10,000 a second under its own address.
        if packet % 200 == 0 {
            attacker_admitted += u32::from(table.charge(0xc000_0201, Syns, &limit, 1, now_ps));
        }
    }
    assert_eq!(lost, 0);
    // Five seconds at 10 a second after a burst of 10.
    assert!((59..=61).contains(&attacker_admitted), "{attacker_admitted}");
}

proptest! {
    #[test]
    fn a_source_alone_in_its_set_is_judged_as_by_a_leaky_bucket(
        rate in 1_u64..2_000_000,
        burst in 0_u64..10_000,
        packets in proptest::collection::vec(
            (prop_oneof![Just(0_u64), 0..20_000_000_000_u64, 0..10_000_000_000_000_u64], 1_u64..1500),
            1..400,
        ),
        start_ps: u64,
        bytes: bool,
    ) {
        let dimension = if bytes { Bytes } else { Packets };
        let limit = in_steps(&Limit::per_second(dimension, rate, burst, TICK_NS));
        let start_ps = start_ps >> STEP_BITS << STEP_BITS;
        let (set, mut bucket, mut elapsed_ps) = (empty_set(), LeakyBucket::default(), 0);
        for (pause_ps, length) in packets {
            elapsed_ps += pause_ps >> STEP_BITS << STEP_BITS;
            let units = if bytes { length } else { 1 };
            let verdict = charge(&&set[..], 4, dimension, &limit, units, start_ps.wrapping_add(elapsed_ps));
            prop_assert_eq!(verdict, bucket.admits(&limit, units, elapsed_ps));
        }
    }

    /// Whatever sources share a set: at every moment each has got at least what a leaky bucket of its own would admit.
    #[test]
    fn a_full_set_only_ever_forgives(
        packets in proptest::collection::vec((0_u64..150_000_000_000, 0_u64..12), 1..400),
    ) {
        let limit = in_steps(&Limit::per_second(Packets, 2, 3, TICK_NS));
        let set = empty_set();
        let mut sources: HashMap<u64, (LeakyBucket, u32, u32)> = HashMap::new();
        let mut now_ps = 0;
        for (pause_ps, source) in packets {
            now_ps += pause_ps >> STEP_BITS << STEP_BITS;
            let (bucket, admitted, due) = sources.entry(source).or_default();
            *admitted += u32::from(charge(&&set[..], (source + 1) << 2, Packets, &limit, 1, now_ps));
            *due += u32::from(bucket.admits(&limit, 1, now_ps));
            prop_assert!(admitted >= due);
        }
    }

    #[test]
    fn no_entries_make_it_panic(entries: [u64; WAYS as usize], tag in 0..=TAG_MASK, now_ps: u64, units in 1_u64..65_536) {
        let set = entries.map(Cell::new);
        let limit = Limit::per_second(Bytes, 1_000_000, 100_000, TICK_NS);
        charge(&&set[..], tag, Bytes, &limit, units, now_ps);
        let changed = set.iter().zip(entries).filter(|(after, before)| after.get() != *before).count();
        prop_assert!(changed <= 1);
    }
}
