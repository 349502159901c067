//! What the step-up engine counts, for Prometheus. Labels are written in this program or in the configuration: no client can
//! make new ones. None of it is counted for requests that simply pass.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lb_policy::{Method, UnixSeconds};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Clock;
use crate::metrics::Histogram;

pub(super) type ByMethod = Family<[(&'static str, &'static str); 1], Counter>;

/// Clones share their counts.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    issued: Family<[(&'static str, &'static str); 2], Counter>,
    completed: ByMethod,
    /// Counted where transactions end.
    abandoned: ByMethod,
    challenge_seconds: Histogram,
    verified: Family<[(&'static str, String); 3], Counter>,
    resumed: Family<[(&'static str, &'static str); 1], Counter>,
    rate_limited: Family<[(&'static str, String); 2], Counter>,
    tokens_refused: Family<[(&'static str, &'static str); 1], Counter>,
    cookie_bytes: Histogram,
    prompts: Arc<Prompts>,
}

/// Challenges that are answered are so within minutes; a transaction lives ten.
const CHALLENGE_BOUNDS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0];
/// Browsers drop a cookie of more than 4096 bytes without a word.
const COOKIE_BOUNDS: [f64; 6] = [256.0, 512.0, 1024.0, 2048.0, 3584.0, 4096.0];
/// What tokens are called where methods are.
pub(super) const TOKEN: &str = "token";

impl Counters {
    pub(super) fn new(abandoned: ByMethod, clock: Clock) -> Counters {
        Counters {
            issued: Family::default(),
            completed: Family::default(),
            abandoned,
            challenge_seconds: Histogram::new(&CHALLENGE_BOUNDS),
            verified: Family::default(),
            resumed: Family::default(),
            rate_limited: Family::default(),
            tokens_refused: Family::default(),
            cookie_bytes: Histogram::new(&COOKIE_BOUNDS),
            prompts: Arc::new(Prompts { clock, today: Mutex::default() }),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Challenges issued, by the method that is asked for first and the shape of the answer";
        registry.register("challenges_issued", help, self.issued.clone());
        let help = "Challenges of which everything was proved, by the last method";
        registry.register("challenges_completed", help, self.completed.clone());
        let help = "Challenges that ended with something still to be proved, by what that was";
        registry.register("challenges_abandoned", help, self.abandoned.clone());
        registry.register("verify", "Proofs and logins checked, by method, result and reason", self.verified.clone());
        registry.register("resume", "Requests that went on after a proof, or were to, by result", self.resumed.clone());
        let help = "Requests and attempts that came too often, by what counted them";
        registry.register("rate_limited", help, self.rate_limited.clone());
        let help = "Access tokens and API keys that opened nothing, by reason";
        registry.register("tokens_refused", help, self.tokens_refused.clone());
        let help = "From a challenge to its last proof";
        registry.register_with_unit("challenge", help, Unit::Seconds, self.challenge_seconds.clone());
        registry.register_with_unit(
            "session_cookie",
            "Sizes of session cookies set",
            Unit::Bytes,
            self.cookie_bytes.clone(),
        );
        registry.register_collector(Box::new(self.prompts.clone()));
    }

    /// `asked_first`: the method; `shape`: `browser`, `api` or `grpc`.
    pub(super) fn issued(&self, asked_first: &'static str, shape: &'static str) {
        self.issued.get_or_create(&[("method", asked_first), ("shape", shape)]).inc();
    }

    /// Somebody is interrupted by a challenge.
    pub(super) fn prompted(&self, user_key: String) {
        self.prompts.add(user_key);
    }

    pub(super) fn completed(&self, by: Method, after_seconds: u64) {
        self.completed.get_or_create(&[("method", by.name())]).inc();
        self.challenge_seconds.observe(after_seconds as f64);
    }

    /// `result`: `ok`, `refused`, or `unchecked`; `reason` is empty when it is good.
    pub(super) fn verified(&self, method: Method, result: &str, reason: String) {
        let labels = [("method", method.name().to_owned()), ("result", result.to_owned()), ("reason", reason)];
        self.verified.get_or_create(&labels).inc();
    }

    pub(super) fn resumed(&self, result: &'static str) {
        self.resumed.get_or_create(&[("result", result)]).inc();
    }

    /// `rule` is empty where none set the limit.
    pub(super) fn rate_limited(&self, bucket: &str, rule: &str) {
        self.rate_limited.get_or_create(&[("bucket", bucket.to_owned()), ("rule", rule.to_owned())]).inc();
    }

    pub(super) fn token_refused(&self, reason: &'static str) {
        self.tokens_refused.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn cookie_set(&self, bytes: usize) {
        self.cookie_bytes.observe(bytes as f64);
    }
}

/// How often people were asked today (UTC), so that too much of it is seen before they complain.
struct Prompts {
    clock: Clock,
    today: Mutex<Today>,
}

#[derive(Default)]
struct Today {
    day: UnixSeconds,
    by_user: HashMap<String, u32>,
}

/// Some 8 MiB. Later ones are not counted on that day.
const MOST_USERS: usize = 65_536;
const DAY_SECONDS: u64 = 86_400;

impl Prompts {
    fn add(&self, user_key: String) {
        let mut today = self.today();
        if today.by_user.len() < MOST_USERS || today.by_user.contains_key(&user_key) {
            *today.by_user.entry(user_key).or_default() += 1;
        }
    }

    fn today(&self) -> std::sync::MutexGuard<'_, Today> {
        let day = self.clock.now() / DAY_SECONDS;
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        if today.day != day {
            *today = Today { day, by_user: HashMap::new() };
        }
        today
    }
}

impl fmt::Debug for Prompts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prompts")
    }
}

impl Collector for Prompts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut counts: Vec<u32> = self.today().by_user.values().copied().collect();
        counts.sort_unstable();
        let help = "Users who were asked for a proof today (UTC)";
        let users = encoder.encode_descriptor("prompted_users_today", help, None, MetricType::Gauge)?;
        ConstGauge::new(counts.len() as i64).encode(users)?;
        let help = "How often each of them was asked, by quantile";
        let mut per_user = encoder.encode_descriptor("prompts_per_user_today", help, None, MetricType::Gauge)?;
        for (quantile, name) in [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (1.0, "1")] {
            let at = ((counts.len() as f64 * quantile).ceil() as usize).saturating_sub(1);
            let value = counts.get(at).copied().unwrap_or_default();
            ConstGauge::new(i64::from(value)).encode(per_user.encode_family(&[("quantile", name)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_counted_by_user_and_day() {
        let clock = Clock::fixed(DAY_SECONDS - 1);
        let counters = Counters::new(ByMethod::default(), clock.clone());
        for user in ["alice", "alice", "alice", "bob"] {
            counters.prompted(user.to_owned());
        }
        let mut registry = Registry::default();
        counters.register(&mut registry);
        let shows = |line: &str| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        };
        shows("prompted_users_today 2");
        shows(r#"prompts_per_user_today{quantile="0.5"} 1"#);
        shows(r#"prompts_per_user_today{quantile="1"} 3"#);
        clock.set(DAY_SECONDS);
        shows("prompted_users_today 0");
        shows(r#"prompts_per_user_today{quantile="1"} 0"#);
    }
}
