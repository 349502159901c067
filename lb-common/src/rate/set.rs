//! The limiter of many sources: a table of small sets, of which a source belongs to one.
//!
//! An entry is a tag that stands for source and dimension, and a theoretical arrival time. A source without an entry
//! takes the place of the one that is nearest to being over, or long over: forgetting one that is over loses nothing,
//! and one that is far over its limit is the last to be forgotten. So a set that is too full forgives, and never
//! punishes one source for another; two sources share an entry only if their tags are equal too, once in 2^18.
//!
//! Exhausting it takes more traffic than the limit lets through: an attacker who wants to be forgotten has to fill his
//! set with sources as far over their limits as he is.

use super::Dimension;
use crate::types::{Limit, LimiterSet};

/// Entries of a set: two sets share a cache line.
pub const WAYS: u32 = 4;

/// The tag is above the time.
const TIME_BITS: u32 = 46;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const TAG_MASK: u64 = u64::MAX >> TIME_BITS;

/// Times of entries are in steps of 16,384 ps, which wrap around after 13 days.
const STEP_BITS: u32 = 14;

/// An entry further ahead than any burst and any charge has wrapped around: it is over.
const HORIZON_STEPS: u64 = (2 * super::MAX_TOLERANCE_PS) >> STEP_BITS;

/// A set's entries: a map element in the kernel, a slice in tests. `way` is below [`WAYS`].
pub trait Set {
    fn load(&self, way: u32) -> u64;
    fn store(&self, way: u32, entry: u64);
    /// Stores `entry` if the set holds `seen`, at once for all CPUs, and returns what it held.
    fn exchange(&self, way: u32, seen: u64, entry: u64) -> u64;
    /// The same number. In the kernel the verifier must not know it: it would follow the way of each by itself.
    #[inline(always)]
    fn forgotten(way: u32) -> u32 {
        way
    }
    /// The same number. In the kernel the compiler must not know what it knew of it: it would turn arithmetic into the
    /// branches that the arithmetic is there to avoid.
    #[inline(always)]
    fn unrelated(number: u64) -> u64 {
        number
    }
}

/// Where a source is looked for: the index of its set, and what marks its entries there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub set: u32,
    /// Below 2^18.
    pub tag: u64,
}

impl Place {
    /// `sets` is a power of two, at most 2^32.
    #[inline(always)]
    pub const fn of_hash(hash: u64, sets: usize) -> Self {
        Self { set: (hash >> 32) as u32 & (sets as u32 - 1), tag: hash & TAG_MASK }
    }
}

/// What a packet costs and may cost, in steps.
pub struct Charge {
    cost: u64,
    tolerance: u64,
    /// No conforming packet leaves a time further ahead than this.
    furthest: u64,
}

impl Charge {
    #[inline(always)]
    const fn new(limit: &Limit, dimension: Dimension, units: u64) -> Self {
        let tolerance = limit.tolerance_ps >> STEP_BITS;
        let most = steps(limit, dimension, dimension.most_units());
        Self { cost: steps(limit, dimension, units), tolerance, furthest: tolerance + most }
    }

    /// How far the entry's time is ahead of now: 0 if it has wrapped around.
    #[inline(always)]
    fn ahead<S: Set>(&self, entry: u64, now: u64) -> u64 {
        let ahead = ahead(entry, now);
        ahead & mask_if_less::<S>(ahead, self.furthest + 1)
    }
}

/// What `units` cost, never nothing. Packets are rounded down, or a burst would end before its last one: below a million
/// a second by less than 2 %. Bytes are rounded to the nearest, as small packets at a high rate cost few steps.
#[inline(always)]
const fn steps(limit: &Limit, dimension: Dimension, units: u64) -> u64 {
    let rounding_ps = match dimension {
        Dimension::Packets | Dimension::Syns => 0,
        Dimension::Bytes => 1 << (STEP_BITS - 1),
    };
    let steps = (limit.cost_ps.wrapping_mul(units) + rounding_ps) >> STEP_BITS;
    if steps == 0 { 1 } else { steps }
}

/// Charges `units` (1, or the bytes of a packet) to one dimension of the source with this tag; `false` if it is over its limit.
#[inline(always)]
pub fn charge(set: &impl Set, tag: u64, dimension: Dimension, limit: &Limit, units: u64, now_ps: u64) -> bool {
    match try_charge(set, tag, dimension, limit, units, now_ps) {
        Tried::Conforms => true,
        Tried::Over => false,
        Tried::Contended(known, charge) => contend(set, &known, &charge, now_ps >> STEP_BITS & TIME_MASK),
    }
}

/// What came of [`try_charge`].
pub enum Tried {
    Conforms,
    Over,
    /// Nothing was charged: other CPUs may be charging the same entry, and it matters.
    Contended(Known, Charge),
}

/// [`charge`], as far as it goes without an atomic.
///
/// Below half of its burst a source's time is stored without asking whether another CPU has just done the same: a lost
/// charge needs two packets of one source within nanoseconds, and costs an atomic less for everybody who keeps to the
/// rules. Above, where it begins to matter, no charge is lost, and so no rate is exceeded in the long run.
#[inline(always)]
pub fn try_charge<S: Set>(set: &S, tag: u64, dimension: Dimension, limit: &Limit, units: u64, now_ps: u64) -> Tried {
    let tag = tag ^ dimension as u64;
    let now = now_ps >> STEP_BITS & TIME_MASK;
    let charge = Charge::new(limit, dimension, units);
    let known = find(set, tag);
    if !known.is_there {
        set.store(most_forgettable(set, now), with_time(tag << TIME_BITS, now + charge.cost));
        return Tried::Conforms;
    }
    let ahead = charge.ahead::<S>(known.entry, now);
    if ahead <= charge.tolerance / 2 {
        set.store(known.way, with_time(known.entry, now + ahead + charge.cost));
        return Tried::Conforms;
    }
    if ahead <= charge.tolerance { Tried::Contended(known, charge) } else { Tried::Over }
}

/// A source's entry; of one that has none the other fields are 0.
pub struct Known {
    is_there: bool,
    way: u32,
    entry: u64,
}

/// The first entry with this tag.
#[inline(always)]
fn find<S: Set>(set: &S, tag: u64) -> Known {
    let mut way = 0;
    while way < WAYS {
        let entry = set.load(way);
        if entry >> TIME_BITS == tag {
            return Known { is_there: true, way: S::forgotten(way), entry };
        }
        way += 1;
    }
    Known { is_there: false, way: 0, entry: 0 }
}

/// Charges an entry that other CPUs may be charging too.
#[inline(always)]
fn contend<S: Set>(set: &S, known: &Known, charge: &Charge, now: u64) -> bool {
    const MAX_RACES: u32 = 4;
    let mut entry = known.entry;
    let mut races = 0;
    while races < MAX_RACES {
        let ahead = charge.ahead::<S>(entry, now);
        if ahead > charge.tolerance {
            return false;
        }
        let next = with_time(entry, now + ahead + charge.cost);
        let found = set.exchange(known.way, entry, next);
        if found == entry {
            return true;
        }
        if found >> TIME_BITS != entry >> TIME_BITS {
            // Forgotten in between.
            return true;
        }
        entry = found;
        races += 1;
    }
    // It competes with as many packets that were charged: the error is a fraction of the rate, and waiting longer would
    // hand an attacker the CPU.
    true
}

/// The way whose source loses least by being forgotten.
///
/// Without a branch: in a flood of random sources any of the ways may be it, and guessing wrong costs more than all of
/// this.
#[inline(always)]
pub fn most_forgettable<S: Set>(set: &S, now: u64) -> u32 {
    const WAY_BITS: u32 = WAYS.ilog2();
    let mut least = u64::MAX >> 1;
    let mut way = 0;
    while way < WAYS {
        let candidate = left::<S>(set.load(way), now) << WAY_BITS | way as u64;
        least ^= (least ^ candidate) & mask_if_less::<S>(candidate, least);
        way += 1;
    }
    least as u32 & (WAYS - 1)
}

/// Steps until the entry is over: 0 if it is, has wrapped around, or was never used.
#[inline(always)]
fn left<S: Set>(entry: u64, now: u64) -> u64 {
    let ahead = ahead(entry, now);
    ahead & mask_if_less::<S>(ahead, HORIZON_STEPS + 1) & mask_if_less::<S>(0, entry >> 1 | entry & 1)
}

/// All ones if `one < other`, else 0; both below 2^63.
#[inline(always)]
fn mask_if_less<S: Set>(one: u64, other: u64) -> u64 {
    S::unrelated((one.wrapping_sub(other) as i64 >> 63) as u64)
}

/// How far an entry's time is ahead of now; of one that is past, the distance all the way round.
#[inline(always)]
const fn ahead(entry: u64, now: u64) -> u64 {
    entry.wrapping_sub(now) & TIME_MASK
}

#[inline(always)]
const fn with_time(entry: u64, time: u64) -> u64 {
    entry & !TIME_MASK | time & TIME_MASK
}

impl LimiterSet {
    pub const EMPTY: Self = Self { entries: [0; WAYS as usize] };
}

#[cfg(test)]
mod tests;
