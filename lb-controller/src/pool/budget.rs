//! How many requests of a pool may still be sent again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::config::RetryBudget;

/// One retry.
const WHOLE: i64 = 1_000;

/// What is not used is kept for so long.
const KEPT_SECONDS: i64 = 10;

/// Retries are paid for by requests that were not retries. That is reckoned up a few times a second from counts that there
/// are anyway: a request that is not sent again neither reads nor writes anything here.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// In thousandths of a retry.
    left: AtomicI64,
    retries: AtomicU64,
    denied: AtomicU64,
    hedges: AtomicU64,
    /// As of the last reckoning; written by one thread.
    reckoned: Reckoned,
}

#[derive(Debug, Default)]
struct Reckoned {
    at_ms: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
}

impl Budget {
    /// Takes one retry, if there is one.
    pub(super) fn take(&self) -> bool {
        let one_less = |left: i64| (left >= WHOLE).then(|| left - WHOLE);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        let counter = if taken { &self.retries } else { &self.denied };
        counter.fetch_add(1, Ordering::Relaxed);
        taken
    }

    /// A retry that was taken was for a second backend while the first is still asked.
    pub(super) fn hedged(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// Retries that there were, that were refused, and those of the former that were hedges.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.retries, &self.denied, &self.hedges].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// `requests` is what was sent to all backends so far, retries included.
    pub(super) fn reckon(&self, now_ms: u64, requests: u64, config: RetryBudget) {
        let retries = self.retries.load(Ordering::Relaxed);
        let replace = |what: &AtomicU64, by: u64| what.swap(by, Ordering::Relaxed);
        let before_ms = replace(&self.reckoned.at_ms, now_ms);
        // A backend that left took its count with it.
        let sent = requests.saturating_sub(replace(&self.reckoned.requests, requests)) as i64;
        let sent_again = retries.saturating_sub(replace(&self.reckoned.retries, retries)) as i64;
        let minimum = i64::from(config.minimum_per_second) * WHOLE;
        if before_ms == 0 {
            self.left.store(minimum, Ordering::Relaxed);
            return;
        }
        let passed_ms = now_ms.saturating_sub(before_ms).clamp(1, 10_000) as i64;
        let earned = (sent - sent_again).max(0) * WHOLE * i64::from(config.percent) / 100 + minimum * passed_ms / 1_000;
        let most = earned * 1_000 / passed_ms * KEPT_SECONDS;
        // Retries that others take meanwhile are not given back by it.
        let more = |left: i64| Some((left + earned).min(most.max(minimum)));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pool_at_rest_has_the_minimum_and_one_at_work_its_share() {
        let budget = Budget::default();
        let config = RetryBudget { percent: 20, minimum_per_second: 10 };
        assert!(!budget.take(), "before it was reckoned up there is none");
        budget.reckon(1, 0, config);
        let taken = |budget: &Budget| (0..10_000).filter(|_| budget.take()).count();
        assert_eq!(taken(&budget), 10, "a second's worth to begin with");
        budget.reckon(1_001, 0, config);
        assert_eq!(taken(&budget), 10);
        budget.reckon(1_101, 1_000, config);
        // Ten of these were retries, and earn nothing; a tenth of a second's minimum is one.
        assert_eq!(taken(&budget), 198 + 1);
        budget.reckon(1_201, 1_000 + 199, config);
        assert_eq!(taken(&budget), 1);
        let [retries, denied, _] = budget.counts();
        assert!(retries == 10 + 10 + 199 + 1 && denied > 0, "{retries} {denied}");
    }

    proptest! {
        /// Whatever comes when: over all, retries are at most the share of what was first sent, and the minimum.
        #[test]
        fn no_storm_gets_more_than_the_share(
            percent in 0_u8..=100,
            minimum_per_second in 0_u32..50,
            ticks in prop::collection::vec((0_u64..500, 0_u64..2_000), 1..100),
        ) {
            let (budget, config) = (Budget::default(), RetryBudget { percent, minimum_per_second });
            let (mut now_ms, mut first, mut again) = (1, 0, 0);
            budget.reckon(now_ms, 0, config);
            for (after_ms, sent) in ticks {
                now_ms += after_ms.max(1);
                first += sent;
                again += (0..sent).filter(|_| budget.take()).count() as u64;
                budget.reckon(now_ms, first + again, config);
            }
            let allowed = first as f64 * f64::from(percent) / 100.0
                + f64::from(minimum_per_second) * (1.0 + now_ms as f64 / 1_000.0);
            prop_assert!(again as f64 <= allowed + 1.0, "{again} retries of {first} requests; {allowed} were allowed");
        }
    }
}
