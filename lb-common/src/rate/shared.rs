//! A limit that all CPUs charge, without a cache line that travels between them for every packet.
//!
//! Each CPU takes a batch of the rate from the clock they share into a reserve of its own, and spends that first. The
//! batches of all CPUs together are a fraction of the burst, so that what lies idle in reserves hardly matters.

use super::{Dimension, ahead_ps};
use crate::types::{Limit, SharedLimit};

/// The time that all CPUs charge.
pub trait Clock: Sized {
    /// Theoretical arrival, picoseconds.
    fn load(&self) -> u64;
    /// Stores `next` if the clock shows `seen`, at once for all CPUs, and returns what it showed.
    fn exchange(&self, seen: u64, next: u64) -> u64;
}

/// What this CPU has taken from the clock and not spent, in units.
pub trait Reserve {
    fn load(&self) -> u64;
    fn store(&self, units: u64);
}

/// Charges `units` (1, or the bytes of a packet); `false` if they are over the limit.
#[inline(always)]
pub fn charge(clock: &impl Clock, reserve: &impl Reserve, limit: &SharedLimit, units: u64, now_ps: u64) -> bool {
    spend(reserve, units) || refill(reserve, take(clock, limit, units, now_ps), units)
}

/// Charges `units` to what this CPU has left; `false`, and nothing charged, if that is less.
#[inline(always)]
pub fn spend(reserve: &impl Reserve, units: u64) -> bool {
    let left = reserve.load();
    if left < units {
        return false;
    }
    reserve.store(left - units);
    true
}

/// Charges `units` to what [`take`] has just taken; `false` if that is nothing.
#[inline(always)]
pub fn refill(reserve: &impl Reserve, taken: u64, units: u64) -> bool {
    if taken != 0 {
        reserve.store(reserve.load() + taken - units);
    }
    taken != 0
}

/// Units taken from the clock, 0 if the packet is over the limit: a batch if that much is left of the burst, else no more than the packet needs, so that
/// the burst is given out to the last packet whichever CPU it comes to.
#[inline(always)]
pub fn take(clock: &impl Clock, limit: &SharedLimit, units: u64, now_ps: u64) -> u64 {
    const MAX_RACES: u32 = 4;
    let mut seen_ps = clock.load();
    let mut races = 0;
    while races < MAX_RACES {
        let ahead_ps = ahead_ps(seen_ps, now_ps);
        if ahead_ps > limit.tolerance_ps {
            return 0;
        }
        let batch_fits = ahead_ps + limit.batch_units.wrapping_mul(limit.cost_ps) <= limit.tolerance_ps;
        let taken = if batch_fits && limit.batch_units > units { limit.batch_units } else { units };
        let next_ps = now_ps.wrapping_add(ahead_ps).wrapping_add(taken.wrapping_mul(limit.cost_ps));
        let found_ps = clock.exchange(seen_ps, next_ps);
        if found_ps == seen_ps {
            return taken;
        }
        seen_ps = found_ps;
        races += 1;
    }
    // As rare as it is uncharged: others were charged meanwhile.
    units
}

impl SharedLimit {
    pub const UNLIMITED: Self = Self { cost_ps: 0, tolerance_ps: 0, batch_units: 0 };

    #[inline(always)]
    pub const fn is_unlimited(&self) -> bool {
        self.cost_ps == 0
    }

    /// `cpus` share the limit; none of them takes more at once than is worth 32 packets, nor all of them together more
    /// than an eighth of the burst.
    pub const fn new(limit: Limit, dimension: Dimension, cpus: u64) -> Self {
        let Limit { cost_ps, tolerance_ps } = limit;
        if limit.is_unlimited() {
            return Self::UNLIMITED;
        }
        let most_units = match dimension {
            Dimension::Packets | Dimension::Syns => 32,
            Dimension::Bytes => 32 * 1500,
        };
        let fair_units = tolerance_ps / cost_ps / (8 * if cpus == 0 { 1 } else { cpus });
        let batch_units = if fair_units < most_units { fair_units } else { most_units };
        Self { cost_ps, tolerance_ps, batch_units: if batch_units == 0 { 1 } else { batch_units } }
    }

    pub const fn limit(&self) -> Limit {
        Limit { cost_ps: self.cost_ps, tolerance_ps: self.tolerance_ps }
    }
}

#[cfg(test)]
mod tests;
