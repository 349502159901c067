//! What backends may have at once, and when requests take one out.

use std::time::Duration;

use super::super::super::section::{Complaint, Problems, Section};
use super::super::super::tree::Node;
use super::super::super::{EjectionConfig, PoolLimits, values};

/// More than a worker can have under way.
pub(in super::super) const MOST_REQUESTS: u32 = 1_000_000;

pub(super) fn ejection(node: &Node, problems: &Problems) -> Option<EjectionConfig> {
    let section = Section::open("`ejection`", node, problems)?;
    let default = EjectionConfig::default();
    let second = Duration::from_secs(1);
    let times = || values::duration(second..=Duration::from_secs(24 * 3600));
    let number = |key: &'static str, least: u32, default: u32| {
        section.value(key, values::number(least..=MOST_REQUESTS)).unwrap_or(default)
    };
    let percent = |key: &'static str, default: u8| section.value(key, values::percent).unwrap_or(default);
    let ejection = EjectionConfig {
        consecutive_failures: number("consecutive_failures", 0, default.consecutive_failures),
        error_rate_percent: percent("error_rate", default.error_rate_percent),
        window: section.value("window", values::duration(second..=second * 600)).unwrap_or(default.window),
        minimum_requests: number("minimum_requests", 1, default.minimum_requests),
        time: section.value("time", times()).unwrap_or(default.time),
        longest_time: section.value("longest_time", times()).unwrap_or(default.longest_time),
        most_ejected_percent: percent("most_ejected", default.most_ejected_percent),
    };
    if ejection.consecutive_failures == 0 && ejection.error_rate_percent == 0 {
        let help = "give `consecutive_failures` or `error_rate` a value, or leave `ejection` out";
        problems.report(&node.place, Complaint::new("nothing would ever take a backend out", help));
    }
    section.finish();
    Some(ejection)
}

/// Of the pool's own section.
pub(super) fn limits(pool: &Section<'_>) -> PoolLimits {
    let requests_per_backend = pool.value("max_requests", values::number(1..=MOST_REQUESTS));
    let connections_per_backend = pool.value("max_connections", values::number(1..=MOST_REQUESTS));
    let (queue_length, queue_timeout) = pool.get("queue").and_then(|node| queue(node, pool)).unwrap_or_default();
    PoolLimits { requests_per_backend, connections_per_backend, queue_length, queue_timeout }
}

fn queue(node: &Node, pool: &Section<'_>) -> Option<(u32, Duration)> {
    let section = Section::open("`queue`", node, pool.problems)?;
    let length = section.required_value("length", values::number(1..=MOST_REQUESTS));
    let timeouts = Duration::from_millis(10)..=Duration::from_secs(60);
    let timeout = section.value("timeout", values::duration(timeouts)).unwrap_or(Duration::from_secs(1));
    if !pool.has("max_requests") && !pool.has("max_connections") {
        let help = "give the pool `max_requests` or `max_connections`, for each backend, or leave `queue` out";
        pool.problems.report(&node.place, Complaint::new("nobody ever waits where there is no limit", help));
    }
    section.finish();
    Some((length?, timeout))
}
