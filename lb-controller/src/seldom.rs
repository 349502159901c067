//! What is said at once, and every few seconds only while it goes on: lines that come as often as what they tell of cost most
//! when there is least to spend.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::coarse_monotonic;

/// One thing that is said so. Many threads may say it together.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    /// Of a clock that nobody sets; `None`: never.
    at: Option<Duration>,
    /// How often it has happened since.
    unsaid: u64,
}

impl Seldom {
    pub(crate) const fn every(every: Duration) -> Seldom {
        Seldom { every, said: Mutex::new(Said { at: None, unsaid: 0 }) }
    }

    /// It happened. If it is to be said now: how often since it was last said, this time included.
    pub(crate) fn happened(&self) -> Option<u64> {
        self.happened_at(coarse_monotonic())
    }

    fn happened_at(&self, now: Duration) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.unsaid += 1;
        if said.at.is_some_and(|at| now.saturating_sub(at) < self.every) {
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_said_at_once_and_the_others_are_counted_until_the_next_line() {
        let seldom = Seldom::every(Duration::from_secs(5));
        let happened_at = |millis| seldom.happened_at(Duration::from_millis(millis));
        assert_eq!(happened_at(700), Some(1));
        assert!((0..99).all(|time| happened_at(750 + 50 * time).is_none()));
        assert_eq!(happened_at(5_700), Some(100));
        assert_eq!(happened_at(5_750), None);
        assert_eq!(happened_at(60_000), Some(2), "after a pause at once again");
    }
}
