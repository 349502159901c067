//! How often something happened lately, for many at once, in bounded memory.

use std::convert::Infallible;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lb_policy::UnixSeconds;
use quick_cache::DefaultHashBuilder;
use quick_cache::unsync::Cache;

/// Keys of one shard; fewer would go too soon for those of the same shard.
const KEYS_OF_A_SHARD: usize = 1_024;

/// Counts events within the last so many seconds, each key for itself.
///
/// When there are more keys than fit, those seen once go before those seen again: a flood of strangers costs no regular
/// their count.
pub(super) struct Counters<K> {
    span_seconds: u64,
    hasher: DefaultHashBuilder,
    /// Many: workers whose clients are others seldom meet in one.
    shards: Box<[Shard<K>]>,
}

/// On cache lines of its own, and one lock for all that one event needs: where two workers count for the same one, that is what
/// they pass to each other.
#[repr(align(128))]
struct Shard<K>(Mutex<Cache<K, Window>>);

/// Events of the running span and of the one before it. What of the latter is still within the window is estimated by
/// the time that has passed, as if they had come evenly.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    span: u64,
    current: u64,
    previous: u64,
}

impl<K: Hash + Eq + Clone> Counters<K> {
    pub(super) fn new(span_seconds: u64, most_keys: usize) -> Counters<K> {
        let shards = (most_keys / KEYS_OF_A_SHARD).max(1);
        let shard = |_| Shard(Mutex::new(Cache::new(most_keys.div_ceil(shards))));
        Counters {
            span_seconds: span_seconds.max(1),
            hasher: DefaultHashBuilder::default(),
            shards: (0..shards).map(shard).collect(),
        }
    }

    /// Counts one more; returns how many there are with it.
    pub(super) fn add(&self, key: &K, now: UnixSeconds) -> u64 {
        let mut windows = self.shard(key);
        let Ok(kept) = windows.get_mut_or_insert_with(key, || Ok::<_, Infallible>(Window::default()));
        // One that cannot be kept is the first of its kind.
        let Some(mut window) = kept else { return 1 };
        window.turn_to(now / self.span_seconds);
        window.current = window.current.saturating_add(1);
        window.estimate(now % self.span_seconds, self.span_seconds)
    }

    pub(super) fn count(&self, key: &K, now: UnixSeconds) -> u64 {
        let Some(mut window) = self.shard(key).get(key).copied() else { return 0 };
        window.turn_to(now / self.span_seconds);
        window.estimate(now % self.span_seconds, self.span_seconds)
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Cache<K, Window>> {
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        self.shards[index].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn turn_to(&mut self, span: u64) {
        match span.saturating_sub(self.span) {
            // A clock that was set back by a little finds the window as it is. By more, the window would stand still until
            // it is that late again: what it holds is of the span before this one.
            0 if self.span - span <= 1 => return,
            0 | 1 => self.previous = self.current,
            _ => self.previous = 0,
        }
        (self.span, self.current) = (span, 0);
    }

    fn estimate(&self, elapsed_seconds: u64, span_seconds: u64) -> u64 {
        let remaining = u128::from(span_seconds - elapsed_seconds);
        let before = u128::from(self.previous) * remaining / u128::from(span_seconds);
        self.current.saturating_add(u64::try_from(before).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_counts_until_the_window_has_passed_over_it() {
        let counters = Counters::new(600, 16);
        let rows = [
            ("the first", 6_000, 1),
            ("a second later", 6_001, 2),
            ("at the end of the span", 6_599, 3),
            ("the next span begins with all of the last one", 6_600, 4),
            ("half of the last one has passed", 6_900, 3),
            ("the clock is set back", 6_899, 4),
            ("long after", 60_000, 1),
            ("the clock is set back by an hour", 56_700, 1),
            ("a little later", 56_701, 2),
            ("the next span", 57_000, 3),
            ("and the clock comes back", 60_000, 1),
        ];
        for (name, now, expected) in rows {
            assert_eq!(counters.add(&"alice", now), expected, "{name}");
        }
        assert_eq!(counters.count(&"alice", 60_599), 1);
        assert_eq!(counters.count(&"alice", 61_200), 0);
        assert_eq!(counters.count(&"bob", 60_000), 0);
    }

    #[test]
    fn a_flood_of_strangers_costs_a_regular_nothing() {
        let counters = Counters::new(600, 1_000);
        for _ in 0..20 {
            counters.add(&0_u32, 100);
        }
        for stranger in 1..100_000 {
            counters.add(&stranger, 100);
            if stranger % 500 == 0 {
                counters.add(&0, 100);
            }
        }
        assert_eq!(counters.count(&0, 100), 20 + 99_999 / 500);
    }
}
