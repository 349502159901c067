use super::*;
use Dimension::{Bytes, Packets, Syns};
use proptest::prelude::*;

const TICK_NS: u64 = 4_000_000;

/// How many of `packets` simultaneous packets conform.
fn admitted_at_once(limit: &Limit, packets: u32) -> u32 {
    let mut theoretical_arrival_ps = 0;
    (0..packets)
        .filter(|_| match conform(limit, theoretical_arrival_ps, PICOSECONDS_PER_SECOND) {
            Some(next_ps) => {
                theoretical_arrival_ps = next_ps;
                true
            }
            None => false,
        })
        .count() as u32
}

#[test]
fn a_burst_admits_as_many_packets_as_it_says() {
    for (rate, burst, expected) in [(1, 1, 1), (1, 5, 5), (10, 0, 1), (100, 50, 50)] {
        for dimension in [Packets, Syns] {
            let limit = Limit::per_second(dimension, rate, burst, TICK_NS);
            assert_eq!(admitted_at_once(&limit, 1000), expected, "rate {rate} burst {burst}");
            assert_eq!(limit.burst_units(dimension), u64::from(expected));
        }
    }
}

#[test]
fn a_rate_faster_than_the_clock_gets_a_burst_of_two_ticks() {
    let limit = Limit::per_second(Packets, 100_000, 1, TICK_NS);
    assert_eq!(limit.tolerance_ps, 2 * 1000 * TICK_NS);
    assert_eq!(admitted_at_once(&limit, 10_000), 801);
}

#[test]
fn a_burst_of_bytes_has_room_for_the_largest_packet() {
    let limit = Limit::per_second(Bytes, 1000, 1, TICK_NS);
    assert_eq!(limit.burst_units(Bytes), MOST_BYTES);
}

#[test]
fn no_rate_means_unlimited_and_the_highest_rate_does_not() {
    for dimension in Dimension::ALL {
        assert!(Limit::per_second(dimension, 0, 100, TICK_NS).is_unlimited());
        let highest = Limit::per_second(dimension, u64::MAX, u64::MAX, TICK_NS);
        assert!(!highest.is_unlimited());
        assert!(highest.tolerance_ps <= MAX_TOLERANCE_PS);
    }
}

#[test]
fn the_rate_can_be_read_back() {
    for rate in [1, 3, 7, 1000, 65_537, 999_999, 1_000_000] {
        assert_eq!(Limit::per_second(Packets, rate, 1, TICK_NS).units_per_second(), rate);
    }
    assert_eq!(Limit::UNLIMITED.units_per_second(), 0);
}

#[test]
fn after_a_pause_the_whole_burst_is_back_and_not_more() {
    let limit = Limit::per_second(Packets, 10, 3, TICK_NS);
    let tired_ps = 5 * PICOSECONDS_PER_SECOND;
    let rested_ps = tired_ps + 3600 * PICOSECONDS_PER_SECOND;
    let mut theoretical_arrival_ps = tired_ps;
    let mut admitted = 0;
    while let Some(next_ps) = conform(&limit, theoretical_arrival_ps, rested_ps) {
        theoretical_arrival_ps = next_ps;
        admitted += 1;
    }
    assert_eq!(admitted, 3);
}

#[test]
fn which_groups_are_in_force_follows_from_the_limits() {
    let limit = Limit::per_second(Packets, 1, 1, TICK_NS);
    let [none, all] = [
        SharedRateLimits::UNLIMITED,
        SharedRateLimits { bytes: SharedLimit::new(limit, Bytes, 1), ..SharedRateLimits::UNLIMITED },
    ];
    let [nobody, each] = [RateLimits::UNLIMITED, RateLimits { packets: limit, ..RateLimits::UNLIMITED }];
    let each_syn = RateLimits { syns: limit, ..RateLimits::UNLIMITED };
    let in_force = |source, network, service| ServiceLimits::new(source, network, service, limit).in_force;
    assert_eq!(in_force(nobody, nobody, none), 0);
    const MORE: u64 = ServiceLimits::LIMITS_MORE_THAN_PACKETS;
    assert_eq!(in_force(each, nobody, none), ServiceLimits::LIMITS_SOURCES);
    assert_eq!(in_force(each_syn, nobody, none), ServiceLimits::LIMITS_SOURCES | MORE);
    assert_eq!(in_force(nobody, each, none), ServiceLimits::LIMITS_NETWORKS | MORE);
    assert_eq!(in_force(nobody, nobody, all), ServiceLimits::LIMITS_SERVICE | MORE);
    assert_eq!(ServiceLimits::new(nobody, nobody, none, Limit::UNLIMITED), ServiceLimits::UNLIMITED);
}

/// The textbook leaky bucket that GCRA is equivalent to: it fills by what a packet costs, leaks a picosecond a
/// picosecond, and a packet is refused while the content exceeds the tolerance.
#[derive(Default)]
pub(super) struct LeakyBucket {
    content_ps: u64,
    seen_ps: u64,
}

impl LeakyBucket {
    pub(super) fn admits(&mut self, limit: &Limit, units: u64, now_ps: u64) -> bool {
        self.content_ps = self.content_ps.saturating_sub(now_ps - self.seen_ps);
        self.seen_ps = now_ps;
        if self.content_ps > limit.tolerance_ps {
            return false;
        }
        self.content_ps += limit.cost_ps * units;
        true
    }
}

proptest! {
    #[test]
    fn it_decides_as_a_leaky_bucket_does(
        rate in 1_u64..2_000_000,
        burst in 0_u64..10_000,
        pauses_ps in proptest::collection::vec(
            prop_oneof![Just(0_u64), 0..20_000_000_000_u64, 0..10_000_000_000_000_u64],
            1..400,
        ),
        start_ps: u64,
    ) {
        let limit = Limit::per_second(Packets, rate, burst, TICK_NS);
        let mut bucket = LeakyBucket::default();
        // The kernel's clock may wrap around in the middle.
        let (mut theoretical_arrival_ps, mut elapsed_ps) = (start_ps, 0);
        for pause_ps in pauses_ps {
            elapsed_ps += pause_ps;
            let verdict = conform(&limit, theoretical_arrival_ps, start_ps.wrapping_add(elapsed_ps));
            prop_assert_eq!(verdict.is_some(), bucket.admits(&limit, 1, elapsed_ps));
            theoretical_arrival_ps = verdict.unwrap_or(theoretical_arrival_ps);
        }
    }

    #[test]
    fn no_state_and_no_clock_make_it_panic(state: u64, now_ps: u64, cost_ps: u64, tolerance_ps: u64) {
        let conforms = conform(&Limit { cost_ps, tolerance_ps }, state, now_ps).is_some();
        let ahead_ps = state.wrapping_sub(now_ps);
        prop_assert_eq!(conforms, ahead_ps <= tolerance_ps || ahead_ps > 2 * MAX_TOLERANCE_PS);
    }
}
