//! How long a backend is expected to take: an average that forgets, and that believes bad news at once (peak EWMA, as in
//! Finagle and Linkerd). A backend that slows down loses its requests with the first slow answer; one that was slow is
//! tried again when that is some seconds ago.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After this long without an answer, what is remembered counts 1/e of what it did.
const DECAY_MS: f64 = 10_000.0;

/// A failed request counts as one that took this long, or a backend that fails fast would get them all.
const FAILURE: Duration = Duration::from_secs(5);

/// Microseconds in the lower half and when, in milliseconds, in the upper: both are read and written as one. Two answers
/// that come at once may lose one of them, which the next makes up for. 0: nothing is known.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    at_ms: u32,
    us: u32,
}

impl Latency {
    /// The head of a response came `took` after its request was sent.
    pub(super) fn observe(&self, now_ms: u64, took: Duration) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let next = after(self.load(), now_ms as u32, took_us);
        self.0.store(u64::from(next.at_ms) << 32 | u64::from(next.us), Ordering::Relaxed);
    }

    pub(super) fn failed(&self, now_ms: u64) {
        self.observe(now_ms, FAILURE);
    }

    /// In microseconds; `None`: no answer has come yet.
    pub(super) fn expected_us(&self, now_ms: u64) -> Option<u32> {
        let measured = self.load()?;
        Some((f64::from(measured.us) * remembered(measured, now_ms as u32)) as u32)
    }

    fn load(&self) -> Option<Measured> {
        let packed = self.0.load(Ordering::Relaxed);
        (packed != 0).then_some(Measured { at_ms: (packed >> 32) as u32, us: packed as u32 })
    }
}

fn after(before: Option<Measured>, now_ms: u32, took_us: u32) -> Measured {
    let us = match before {
        Some(before) if took_us < before.us => {
            let old = remembered(before, now_ms);
            f64::from(before.us) * old + f64::from(took_us) * (1.0 - old)
        }
        _ => f64::from(took_us),
    };
    Measured { at_ms: now_ms, us: (us as u32).max(1) }
}

/// 1 for what was just measured, falling to 0. The clock's 32 bits may wrap around, every 49 days.
fn remembered(measured: Measured, now_ms: u32) -> f64 {
    (-f64::from(now_ms.wrapping_sub(measured.at_ms)) / DECAY_MS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_news_counts_at_once_and_good_news_by_and_by() {
        let latency = Latency::default();
        let ms = Duration::from_millis;
        assert_eq!(latency.expected_us(1), None);
        latency.observe(1, ms(10));
        assert_eq!(latency.expected_us(1), Some(10_000), "the first answer is all that is known");
        latency.observe(2, ms(500));
        assert_eq!(latency.expected_us(2), Some(500_000), "a slow answer counts whole");
        latency.observe(102, ms(10));
        let soon = latency.expected_us(102).unwrap();
        assert!((490_000..500_000).contains(&soon), "one quick answer is no proof: {soon}");
        (1..=600).for_each(|step| latency.observe(102 + step * 100, ms(10)));
        let late = latency.expected_us(60_102).unwrap();
        assert!((10_000..13_000).contains(&late), "a minute of them is: {late}");
    }

    #[test]
    fn who_is_not_asked_is_forgiven() {
        let latency = Latency::default();
        latency.failed(1);
        assert_eq!(latency.expected_us(1), Some(5_000_000));
        let later = latency.expected_us(60_001).unwrap();
        assert!(later < 5_000_000 / 300, "{later}");
    }

    #[test]
    fn a_clock_that_wraps_around_does_no_harm() {
        let latency = Latency::default();
        let wraps_ms = 1_u64 << 32;
        latency.observe(wraps_ms - 100, Duration::from_millis(10));
        let expected = latency.expected_us(wraps_ms + 100).unwrap();
        assert!((9_000..10_000).contains(&expected), "{expected}");
    }
}
