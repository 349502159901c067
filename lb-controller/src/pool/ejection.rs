//! When a backend that fails requests is left alone, and for how long (outlier detection).

use std::time::Duration;

use crate::config::EjectionConfig;

/// The record of one backend.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    /// How often, in all.
    pub(super) count: u64,
    /// How often lately: each further time lasts longer.
    lately: u32,
    until_ms: u64,
    /// Since when it has been let serve, or was last forgiven one.
    calm_since_ms: u64,
    window: Option<Window>,
}

/// What had happened when the present window began.
#[derive(Clone, Copy, Debug)]
struct Window {
    since_ms: u64,
    requests: u64,
    failures: u64,
}

impl Ejections {
    /// Returns how long it is to be left alone.
    pub(super) fn begin(&mut self, now_ms: u64, config: &EjectionConfig) -> Duration {
        self.count += 1;
        self.lately += 1;
        let time = config.time.saturating_mul(self.lately).min(config.longest_time.max(config.time));
        self.until_ms = now_ms + time.as_millis() as u64;
        time
    }

    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    pub(super) fn end(&mut self, now_ms: u64) {
        self.calm_since_ms = now_ms;
        self.window = None;
    }

    /// Who has served for as long as it would be left alone is forgiven one time.
    pub(super) fn forgive(&mut self, now_ms: u64, config: &EjectionConfig) {
        let calm_ms = now_ms.saturating_sub(self.calm_since_ms.max(self.until_ms));
        if self.lately > 0 && self.is_over(now_ms) && calm_ms >= config.time.as_millis() as u64 {
            self.lately -= 1;
            self.calm_since_ms = now_ms;
        }
    }

    /// Why it is to be left alone for its share of failures, once in a window. `so_far` are its requests and failures.
    pub(super) fn judge(&mut self, now_ms: u64, so_far: (u64, u64), config: &EjectionConfig) -> Option<String> {
        if config.error_rate_percent == 0 {
            return None;
        }
        let (requests, failures) = so_far;
        let window = *self.window.get_or_insert(Window { since_ms: now_ms, requests, failures });
        if now_ms.saturating_sub(window.since_ms) < config.window.as_millis() as u64 {
            return None;
        }
        self.window = Some(Window { since_ms: now_ms, requests, failures });
        let failed = failures.saturating_sub(window.failures);
        // Where no connection is taken, nothing was sent and all of it failed.
        let all = requests.saturating_sub(window.requests).max(failed);
        let is_too_much = all >= u64::from(config.minimum_requests)
            && all > 0
            && failed * 100 >= all * u64::from(config.error_rate_percent);
        is_too_much.then(|| format!("{failed} of {all} requests failed within {:?}", config.window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EjectionConfig {
        EjectionConfig {
            time: Duration::from_secs(10),
            longest_time: Duration::from_secs(25),
            error_rate_percent: 50,
            window: Duration::from_secs(1),
            minimum_requests: 10,
            ..EjectionConfig::default()
        }
    }

    #[test]
    fn each_time_lasts_longer_up_to_the_longest_and_calm_is_rewarded() {
        let (config, mut ejections, mut now_ms) = (config(), Ejections::default(), 1);
        for expected_s in [10, 20, 25, 25] {
            assert_eq!(ejections.begin(now_ms, &config), Duration::from_secs(expected_s));
            assert!(!ejections.is_over(now_ms + expected_s * 1_000 - 1));
            now_ms += expected_s * 1_000;
            assert!(ejections.is_over(now_ms));
            ejections.end(now_ms);
            ejections.forgive(now_ms + 9_999, &config);
        }
        for _ in 0..3 {
            now_ms += 10_000;
            ejections.forgive(now_ms, &config);
        }
        assert_eq!(ejections.begin(now_ms, &config), Duration::from_secs(20), "one of four is left");
        assert_eq!(ejections.count, 5);
    }

    #[test]
    fn a_share_of_failures_is_judged_over_a_window_and_of_enough_requests() {
        for (what, requests, failures, expected) in [
            ("half", 20, 10, Some("10 of 20 requests failed within 1s")),
            ("less", 20, 9, None),
            ("too few to tell", 9, 9, None),
            ("connections that are not taken", 0, 12, Some("12 of 12 requests failed within 1s")),
            ("nothing", 0, 0, None),
        ] {
            let mut ejections = Ejections::default();
            assert_eq!(ejections.judge(1, (1_000, 500), &config()), None, "{what}: the window begins");
            let so_far = (1_000 + requests, 500 + failures);
            assert_eq!(ejections.judge(1_000, so_far, &config()), None, "{what}: it is not over");
            assert_eq!(ejections.judge(1_001, so_far, &config()).as_deref(), expected, "{what}");
            assert_eq!(ejections.judge(2_001, so_far, &config()), None, "{what}: what was judged is not judged again");
        }
    }
}
