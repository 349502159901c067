//! What L7 tells L4 about sources: verified ones go first in a flood, blocked ones not at all.

use std::time::Duration;

use lb_common::Source;
use lb_common::address::HINT_WORDS;
use lb_common::types::VerifiedSource as VerifiedEntry;

use crate::clock::monotonic_ns;
use crate::error::MapError;
use crate::hints;
use crate::load::Datapath;
use crate::maps::Maps;

/// A source that finished a step-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedSource {
    pub source: Source,
    /// How much longer it is prioritised; `None` once that is over.
    pub remaining: Option<Duration>,
    /// Since its last step-up; kept after the priority is over.
    pub last_verified_ago: Duration,
}

/// A source whose packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockedSource {
    pub source: Source,
    pub remaining: Duration,
}

/// What became of the wish to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOutcome {
    Blocked,
    /// As many sources are blocked as the list holds, and none of them is over.
    ListFull,
}

impl Datapath {
    /// Prioritises the source for `ttl`. It is a hint for floods, never a permission. Of 65,536 sources the least
    /// recently used gives way.
    pub fn mark_verified(&mut self, source: Source, ttl: Duration) -> Result<(), MapError> {
        let now_ns = monotonic_ns();
        let theoretical_arrival_ps =
            self.maps.verified.get(source.key())?.map_or(0, |entry| entry.theoretical_arrival_ps);
        let entry = VerifiedEntry {
            verified_until_ns: now_ns.saturating_add(nanoseconds(ttl)),
            last_verified_ns: now_ns,
            // Kept, so that repeating the step-up does not refill the burst.
            theoretical_arrival_ps,
        };
        // Before the mark: without its hint it would not be found. An LRU map is never full.
        hints::set(&mut self.maps.verified_hints, source.verified_hint())?;
        self.maps.verified.set(source.key(), &entry)?;
        Ok(())
    }

    /// Clears the hints of sources that are no longer verified; each one left over costs its sources a lookup while a
    /// limit bites. It reads the whole table: once a minute is plenty.
    pub fn sweep_verified(&mut self) -> Result<(), MapError> {
        // Before the table is read: the programs may verify sources meanwhile, whose hints have to stay.
        let present = self.maps.verified_hints.all()?;
        let now_ns = monotonic_ns();
        let entries = self.maps.verified.entries()?;
        let alive = entries.iter().filter(|(_, entry)| entry.verified_until_ns > now_ns);
        let needed = alive.map(|(key, _)| Source::from_key(*key).verified_hint());
        hints::keep_only(&mut self.maps.verified_hints, &present, needed)
    }

    /// Drops the source's packets for `ttl` from now, whatever was said before.
    pub fn block(&mut self, source: Source, ttl: Duration) -> Result<BlockOutcome, MapError> {
        let until_ns = monotonic_ns().saturating_add(nanoseconds(ttl));
        // Before the block: a block without its hint would not be found.
        self.hint_at_block(source)?;
        if !self.maps.blocks.set(source.key(), &until_ns)? {
            self.sweep_blocks()?;
            self.hint_at_block(source)?;
            if !self.maps.blocks.set(source.key(), &until_ns)? {
                return Ok(BlockOutcome::ListFull);
            }
        }
        Ok(BlockOutcome::Blocked)
    }

    /// `false` if the source was not blocked.
    pub fn unblock(&mut self, source: Source) -> Result<bool, MapError> {
        let was_listed = self.maps.blocks.remove(source.key())?;
        self.clear_block_hints()?;
        Ok(was_listed)
    }

    /// Forgets blocks that are over, and returns how many. Call it every second or so: one that is left over costs its source
    /// a lookup each packet.
    pub fn sweep_blocks(&mut self) -> Result<usize, MapError> {
        let now_ns = monotonic_ns();
        let entries = self.maps.blocks.entries()?;
        let over: Vec<_> = entries.iter().filter(|(_, until_ns)| *until_ns <= now_ns).map(|(key, _)| *key).collect();
        for key in &over {
            self.maps.blocks.remove(*key)?;
        }
        if !over.is_empty() {
            self.clear_block_hints()?;
        }
        Ok(over.len())
    }

    fn hint_at_block(&mut self, source: Source) -> Result<(), MapError> {
        let (word, bit) = source.block_hint();
        self.control.block_hints[word as usize] |= bit;
        self.maps.control.set(0, &self.control)
    }

    /// Clears the hints that no listed block needs.
    fn clear_block_hints(&mut self) -> Result<(), MapError> {
        self.control.block_hints = block_hints(&self.maps.blocks.keys()?);
        self.maps.control.set(0, &self.control)
    }
}

/// Of the sources with these keys.
pub(crate) fn block_hints(keys: &[[u32; 4]]) -> [u64; HINT_WORDS] {
    let mut words = [0; HINT_WORDS];
    for (word, bit) in keys.iter().map(|key| Source::from_key(*key).block_hint()) {
        words[word as usize] |= bit;
    }
    words
}

pub(crate) fn verified_sources(maps: &Maps) -> Result<Vec<VerifiedSource>, MapError> {
    let now_ns = monotonic_ns();
    let entries = maps.verified.entries()?;
    Ok(entries.into_iter().map(|(key, entry)| verified(Source::from_key(key), &entry, now_ns)).collect())
}

pub(crate) fn verified_source(maps: &Maps, source: Source) -> Result<Option<VerifiedSource>, MapError> {
    let entry = maps.verified.get(source.key())?;
    Ok(entry.map(|entry| verified(source, &entry, monotonic_ns())))
}

pub(crate) fn blocked_sources(maps: &Maps) -> Result<Vec<BlockedSource>, MapError> {
    let now_ns = monotonic_ns();
    let live = maps.blocks.entries()?.into_iter().filter(|(_, until_ns)| *until_ns > now_ns);
    Ok(live
        .map(|(key, until_ns)| BlockedSource {
            source: Source::from_key(key),
            remaining: Duration::from_nanos(until_ns - now_ns),
        })
        .collect())
}

fn verified(source: Source, entry: &VerifiedEntry, now_ns: u64) -> VerifiedSource {
    VerifiedSource {
        source,
        remaining: entry.verified_until_ns.checked_sub(now_ns).filter(|left| *left > 0).map(Duration::from_nanos),
        last_verified_ago: Duration::from_nanos(now_ns.saturating_sub(entry.last_verified_ns)),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
