//! Limits, from rates that people write to the kernel's arithmetic and back.

use lb_common::rate::Dimension;
use lb_common::types::{Limit, RateLimits, SamplePolicy, ServiceLimits, SharedLimit, SharedRateLimits};

use crate::clock::tick_ns;
use crate::desired::{Limits, Rate, Rates, Sampling};

/// What the arithmetic depends on beside the rates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) clock_tick_ns: u64,
    /// CPUs that may run the programs.
    pub(crate) cpus: u64,
}

impl Machine {
    pub(crate) fn this() -> Self {
        // Where that cannot be read, reserves are made as small as they would be on a large machine.
        const MANY: u64 = 256;
        let cpus = aya::util::nr_cpus().map_or(MANY, |cpus| cpus as u64);
        Self { clock_tick_ns: tick_ns(), cpus }
    }

    pub(crate) fn service_limits(&self, limits: &Limits) -> ServiceLimits {
        ServiceLimits::new(
            self.each(&limits.source),
            self.each(&limits.network),
            self.all(&limits.service),
            self.limit(Dimension::Packets, limits.verified),
        )
    }

    /// A limit that all CPUs charge.
    pub(crate) fn shared(&self, dimension: Dimension, rate: Rate) -> SharedLimit {
        SharedLimit::new(self.limit(dimension, rate), dimension, self.cpus)
    }

    pub(crate) fn sampling(&self, sampling: &Sampling) -> SamplePolicy {
        let per_second = sampling.per_second.into();
        SamplePolicy {
            rate: self.limit(Dimension::Packets, Rate { per_second, burst: per_second }),
            let_in_looks: sampling.let_in_one_in.div_ceil(Sampling::LET_IN_STEP),
        }
    }

    fn each(&self, rates: &Rates) -> RateLimits {
        RateLimits {
            packets: self.limit(Dimension::Packets, rates.packets),
            syns: self.limit(Dimension::Syns, rates.syns),
            bytes: self.limit(Dimension::Bytes, rates.bytes),
        }
    }

    fn all(&self, rates: &Rates) -> SharedRateLimits {
        SharedRateLimits {
            packets: self.shared(Dimension::Packets, rates.packets),
            syns: self.shared(Dimension::Syns, rates.syns),
            bytes: self.shared(Dimension::Bytes, rates.bytes),
        }
    }

    fn limit(&self, dimension: Dimension, rate: Rate) -> Limit {
        Limit::per_second(dimension, rate.per_second, rate.burst, self.clock_tick_ns)
    }
}

/// The rates that limits in a map stand for, as in force: bursts raised and cut. Rates are exact up to a million a
/// second, and the nearest beyond.
pub(crate) fn read_back(limits: &ServiceLimits) -> Limits {
    let each = |rates: &RateLimits| Rates {
        packets: rate(Dimension::Packets, &rates.packets),
        syns: rate(Dimension::Syns, &rates.syns),
        bytes: rate(Dimension::Bytes, &rates.bytes),
    };
    let all = |rates: &SharedRateLimits| Rates {
        packets: rate(Dimension::Packets, &rates.packets.limit()),
        syns: rate(Dimension::Syns, &rates.syns.limit()),
        bytes: rate(Dimension::Bytes, &rates.bytes.limit()),
    };
    Limits {
        source: each(&limits.source),
        network: each(&limits.network),
        service: all(&limits.service),
        verified: rate(Dimension::Packets, &limits.verified),
    }
}

pub(crate) fn rate(dimension: Dimension, limit: &Limit) -> Rate {
    Rate { per_second: limit.units_per_second(), burst: limit.burst_units(dimension) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { clock_tick_ns: 4_000_000, cpus: 4 };

    #[test]
    fn what_is_read_back_is_what_was_asked_for_where_no_bound_is_in_the_way() {
        let rate = |per_second, burst| Rate { per_second, burst };
        let limits = Limits {
            source: Rates { packets: rate(1000, 100), syns: rate(10, 20), bytes: rate(1 << 20, 1 << 17) },
            network: Rates { packets: rate(3, 7), syns: Rate::UNLIMITED, bytes: rate(1024, 65_536) },
            service: Rates { packets: rate(1_000_000, 100_000), syns: rate(1, 1), bytes: rate(1 << 20, 1 << 27) },
            verified: rate(1000, 1000),
        };
        assert_eq!(read_back(&MACHINE.service_limits(&limits)), limits);
        assert_eq!(read_back(&MACHINE.service_limits(&Limits::default())), Limits::default());
    }

    #[test]
    fn a_burst_is_raised_to_two_ticks_and_cut_to_half_an_hour() {
        let packets = |per_second, burst| {
            let limits = Limits { source: Rates::of_packets(Rate { per_second, burst }), ..Limits::default() };
            read_back(&MACHINE.service_limits(&limits)).source.packets
        };
        assert_eq!(packets(100_000, 1), Rate { per_second: 100_000, burst: 801 });
        assert_eq!(packets(1, 1_000_000), Rate { per_second: 1, burst: 2252 });
    }
}
