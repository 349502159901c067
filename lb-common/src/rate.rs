//! GCRA, the generic cell rate algorithm (ITU-T I.371 §5.4.3), on one word of state.
//!
//! The word is the theoretical arrival time: when the next packet would come if all kept exactly to the rate. A packet
//! conforms while that time is at most the tolerance ahead of the clock, and moves it ahead by what the packet costs.
//!
//! Times are picoseconds that wrap around after 213 days, so that the cost of a byte at a hundred gigabytes a second is
//! still a whole number. [`set`] holds the times of single sources, [`shared`] those that all CPUs charge.

pub mod set;
pub mod shared;

use crate::types::{Limit, RateLimits, ServiceLimits, SharedLimit, SharedRateLimits};

const PICOSECONDS_PER_SECOND: u64 = 1_000_000_000_000;

/// The largest burst, in time: about 38 minutes' worth of the rate. A time further ahead than twice that is one that
/// has wrapped around, and therefore past.
pub const MAX_TOLERANCE_PS: u64 = 1 << 51;

/// What one packet may be charged at most: the largest IP packet.
const MOST_BYTES: u64 = 1 << 16;

/// The new theoretical arrival time of a packet that conforms; `None` if it is over the limit.
///
/// Over the limit nothing has to be stored: an attacker's cache line does not bounce between CPUs, and a flood does
/// not push its own end further away.
#[inline(always)]
pub const fn conform(limit: &Limit, theoretical_arrival_ps: u64, now_ps: u64) -> Option<u64> {
    let ahead_ps = ahead_ps(theoretical_arrival_ps, now_ps);
    if ahead_ps > limit.tolerance_ps {
        return None;
    }
    Some(now_ps.wrapping_add(ahead_ps).wrapping_add(limit.cost_ps))
}

/// 0 for a time that is past.
#[inline(always)]
const fn ahead_ps(time_ps: u64, now_ps: u64) -> u64 {
    let ahead_ps = time_ps.wrapping_sub(now_ps);
    if ahead_ps > 2 * MAX_TOLERANCE_PS { 0 } else { ahead_ps }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    Packets,
    /// TCP packets that ask for a new connection.
    Syns,
    /// IP bytes, without the Ethernet header.
    Bytes,
}

impl Dimension {
    pub const ALL: [Self; 3] = [Self::Packets, Self::Syns, Self::Bytes];

    /// The largest charge of one packet.
    #[inline(always)]
    const fn most_units(self) -> u64 {
        match self {
            Self::Packets | Self::Syns => 1,
            Self::Bytes => MOST_BYTES,
        }
    }

    /// What every burst has room for, whatever was asked for: a packet, or a packet of the largest size.
    const fn least_burst_units(self) -> u64 {
        self.most_units()
    }

    /// Units of a burst for which the tolerance need not have room: the last packet conforms because those before it
    /// left the time inside. How large it is nobody knows in advance, so that a burst of bytes is the least that passes.
    const fn uncharged_units(self) -> u64 {
        match self {
            Self::Packets | Self::Syns => 1,
            Self::Bytes => 0,
        }
    }
}

impl Limit {
    pub const UNLIMITED: Self = Self { cost_ps: 0, tolerance_ps: 0 };

    #[inline(always)]
    pub const fn is_unlimited(&self) -> bool {
        self.cost_ps == 0
    }

    /// `burst_units` (packets, SYNs or bytes) may come at once after a pause, then `units_per_second`; a rate of 0 means
    /// unlimited.
    ///
    /// `clock_tick_ns` is the step of the clock that will be used. The burst is raised to two ticks' worth: between two
    /// ticks all packets look simultaneous, and a source that keeps to its rate must not be caught by that. A burst of
    /// bytes ends with the packet that begins inside it, and is never below the largest packet.
    pub const fn per_second(dimension: Dimension, units_per_second: u64, burst_units: u64, clock_tick_ns: u64) -> Self {
        if units_per_second == 0 {
            return Self::UNLIMITED;
        }
        // Never 0, which would read as unlimited.
        let cost_ps = larger(PICOSECONDS_PER_SECOND / units_per_second, 1);
        let burst_units = larger(burst_units, dimension.least_burst_units());
        let burst_ps = (burst_units - dimension.uncharged_units()).saturating_mul(cost_ps);
        let two_ticks_ps = 2 * 1000 * clock_tick_ns;
        let tolerance_ps = if cost_ps > two_ticks_ps { burst_ps } else { larger(burst_ps, two_ticks_ps) };
        Self { cost_ps, tolerance_ps: if tolerance_ps > MAX_TOLERANCE_PS { MAX_TOLERANCE_PS } else { tolerance_ps } }
    }

    /// The rate that the limit was made from, or the nearest; 0 if there is none.
    pub const fn units_per_second(&self) -> u64 {
        match self.cost_ps {
            0 => 0,
            cost_ps => (PICOSECONDS_PER_SECOND + cost_ps / 2) / cost_ps,
        }
    }

    /// How many may come at once, as in force; 0 if there is no limit.
    pub const fn burst_units(&self, dimension: Dimension) -> u64 {
        match self.cost_ps {
            0 => 0,
            cost_ps => self.tolerance_ps / cost_ps + dimension.uncharged_units(),
        }
    }
}

const fn larger(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}

impl RateLimits {
    pub const UNLIMITED: Self = Self { packets: Limit::UNLIMITED, syns: Limit::UNLIMITED, bytes: Limit::UNLIMITED };

    pub const fn are_unlimited(&self) -> bool {
        self.packets.is_unlimited() && self.are_of_packets_only()
    }

    const fn are_of_packets_only(&self) -> bool {
        self.syns.is_unlimited() && self.bytes.is_unlimited()
    }

    /// What connections are charged to that began without a SYN being charged.
    #[inline(always)]
    pub const fn of_connections(&self) -> &Limit {
        if self.syns.is_unlimited() { &self.packets } else { &self.syns }
    }
}

impl SharedRateLimits {
    pub const UNLIMITED: Self =
        Self { packets: SharedLimit::UNLIMITED, syns: SharedLimit::UNLIMITED, bytes: SharedLimit::UNLIMITED };

    pub const fn are_unlimited(&self) -> bool {
        self.packets.is_unlimited() && self.are_of_packets_only()
    }

    const fn are_of_packets_only(&self) -> bool {
        self.syns.is_unlimited() && self.bytes.is_unlimited()
    }
}

impl ServiceLimits {
    pub const UNLIMITED: Self = Self {
        in_force: 0,
        source: RateLimits::UNLIMITED,
        network: RateLimits::UNLIMITED,
        service: SharedRateLimits::UNLIMITED,
        verified: Limit::UNLIMITED,
    };

    pub const LIMITS_NETWORKS: u64 = 1;
    pub const LIMITS_SOURCES: u64 = 2;
    pub const LIMITS_SERVICE: u64 = 4;
    /// Networks are limited, or SYNs or bytes of anybody: what is looked at out of line.
    pub const LIMITS_MORE_THAN_PACKETS: u64 = 8;

    pub const fn new(source: RateLimits, network: RateLimits, service: SharedRateLimits, verified: Limit) -> Self {
        let networks = if network.are_unlimited() { 0 } else { Self::LIMITS_NETWORKS };
        let sources = if source.are_unlimited() { 0 } else { Self::LIMITS_SOURCES };
        let whole = if service.are_unlimited() { 0 } else { Self::LIMITS_SERVICE };
        let more = if network.are_unlimited() && source.are_of_packets_only() && service.are_of_packets_only() {
            0
        } else {
            Self::LIMITS_MORE_THAN_PACKETS
        };
        Self { in_force: networks | sources | whole | more, source, network, service, verified }
    }
}

#[cfg(test)]
mod tests;
