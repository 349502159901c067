//! How often something happened lately, for many at once, in bounded memory.

use std::hash::Hash;
use std::sync::{Arc, Mutex};

use lb_policy::UnixSeconds;
use quick_cache::sync::Cache;

/// Counts events within the last so many seconds, each key for itself.
///
/// When there are more keys than fit, those seen once go before those seen again: a flood of strangers costs no regular
/// their count.
pub(super) struct Counters<K> {
    span_seconds: u64,
    windows: Cache<K, Arc<Mutex<Window>>>,
}

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
        Counters { span_seconds: span_seconds.max(1), windows: Cache::new(most_keys) }
    }

    /// Counts one more; returns how many there are with it.
    pub(super) fn add(&self, key: &K, now: UnixSeconds) -> u64 {
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::default());
        let Ok(window) = self.windows.get_or_insert_with(key, fresh);
        let mut window = window.lock().expect("no holder of this lock panics");
        window.turn_to(now / self.span_seconds);
        window.current = window.current.saturating_add(1);
        window.estimate(now % self.span_seconds, self.span_seconds)
    }

    pub(super) fn count(&self, key: &K, now: UnixSeconds) -> u64 {
        let Some(window) = self.windows.get(key) else { return 0 };
        let mut window = *window.lock().expect("no holder of this lock panics");
        window.turn_to(now / self.span_seconds);
        window.estimate(now % self.span_seconds, self.span_seconds)
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
