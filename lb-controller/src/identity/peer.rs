//! How an issuer does, as far as it is asked: for metrics.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::http::Unavailable;
use crate::metrics::Histogram;

/// Up to the longest timeout that can be configured.
const BOUNDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What can come of a question; see [`Unavailable`].
const RESULTS: [&str; 9] =
    ["ok", "too_slow", "unreachable", "too_long", "refused", "not_json", "unusable", "busy", "failed_lately"];

/// The counts of one issuer.
#[derive(Debug)]
pub(crate) struct Peer {
    results: [AtomicU64; RESULTS.len()],
    seconds: Histogram,
    state: AtomicU8,
}

const NEVER_ASKED: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl Default for Peer {
    fn default() -> Peer {
        let results = std::array::from_fn(|_| AtomicU64::new(0));
        Peer { results, seconds: Histogram::new(&BOUNDS), state: AtomicU8::new(NEVER_ASKED) }
    }
}

impl Peer {
    /// How long a question took, whatever came of it.
    pub(super) fn took(&self, seconds: f64) {
        self.seconds.observe(seconds);
    }

    pub(super) fn answered(&self, failure: Option<&Unavailable>) {
        let result = failure.map_or("ok", Unavailable::name);
        if let Some(index) = RESULTS.iter().position(|known| *known == result) {
            self.results[index].fetch_add(1, Ordering::Relaxed);
        }
        self.state.store(if failure.is_none() { UP } else { DOWN }, Ordering::Relaxed);
    }

    /// Each result that came about, and how often.
    pub(crate) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.results.iter().map(|count| count.load(Ordering::Relaxed));
        RESULTS.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn seconds(&self) -> &Histogram {
        &self.seconds
    }

    /// Whether the last answer could be used; `None`: it was not asked yet.
    pub(crate) fn is_up(&self) -> Option<bool> {
        match self.state.load(Ordering::Relaxed) {
            NEVER_ASKED => None,
            state => Some(state == UP),
        }
    }
}
