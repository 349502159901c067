//! When requests are sent again, and how long they may take: of a pool, and of a route that has it otherwise.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::super::section::{Complaint, Problems, Section};
use super::super::super::tree::Node;
use super::super::super::{RetryBudget, RetryConfig, RetryOn, Timeouts, values};

const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// Of a response: some watch for what seldom happens.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(7 * 24 * 3600);

const FAILURES: [&str; 6] = ["connect", "refused_stream", "reset_before_response", "502", "503", "504"];

/// What is left out is as in `usual`.
pub(in super::super) fn timeouts(node: &Node, usual: Timeouts, problems: &Problems) -> Option<Timeouts> {
    let section = Section::open("`timeouts`", node, problems)?;
    let value = |key: &'static str| section.value(key, values::duration(TIMEOUTS));
    let timeouts = Timeouts {
        connect: value("connect").unwrap_or(usual.connect),
        response: value("response").unwrap_or(usual.response),
        request_body: value("request_body").unwrap_or(usual.request_body),
        response_body: section.value("response_body", values::duration(PAUSES)).unwrap_or(usual.response_body),
        overall: value("overall").or(usual.overall),
        hedge_after: value("hedge_after").or(usual.hedge_after),
    };
    for (key, shorter) in [("response", timeouts.response), ("hedge_after", timeouts.hedge_after.unwrap_or_default())] {
        if section.has(key) && timeouts.overall.is_some_and(|overall| shorter > overall) {
            problems.report(&section.place_of(key), "longer than `overall`, which would end the request before");
        }
    }
    section.finish();
    Some(timeouts)
}

/// The same of retries, without their budget.
pub(in super::super) fn of_route(node: &Node, usual: RetryConfig, problems: &Problems) -> Option<RetryConfig> {
    let section = Section::open("`retries`", node, problems)?;
    let retries = retries(&section, usual);
    for key in ["budget", "minimum_per_second"] {
        if section.get(key).is_some() {
            let help = format!("give the pool `retries: {{{key}: …}}`");
            problems
                .report(&section.place_of(key), Complaint::new("the budget is the pool's, for all its routes", help));
        }
    }
    section.finish();
    Some(retries)
}

pub(super) fn of_pool(node: &Node, problems: &Problems) -> Option<(RetryConfig, RetryBudget)> {
    let section = Section::open("`retries`", node, problems)?;
    let (usual, budget) = (RetryConfig::default(), RetryBudget::default());
    let retries = retries(&section, usual);
    let budget = RetryBudget {
        percent: section.value("budget", values::percent).unwrap_or(budget.percent),
        minimum_per_second: section
            .value("minimum_per_second", values::number(0..=1_000_000))
            .unwrap_or(budget.minimum_per_second),
    };
    section.finish();
    Some((retries, budget))
}

fn retries(section: &Section<'_>, usual: RetryConfig) -> RetryConfig {
    let attempts = section.value("attempts", values::number(1..=10)).map_or(usual.attempts, |attempts| attempts as u8);
    if !section.has("on") {
        return RetryConfig { attempts, ..usual };
    }
    let mut on = RetryOn::default();
    for failure in section.values("on", failure) {
        match failure {
            "connect" => on.connect = true,
            "refused_stream" => on.refused_stream = true,
            "reset_before_response" => on.reset_before_response = true,
            "502" => on.bad_gateway = true,
            "503" => on.service_unavailable = true,
            _ => on.gateway_timeout = true,
        }
    }
    RetryConfig { attempts, on }
}

fn failure(text: &str) -> Result<&'static str, Complaint> {
    match FAILURES.iter().find(|failure| **failure == text) {
        Some(failure) => Ok(failure),
        None => Err(Complaint::unknown("failure", text, FAILURES)),
    }
}
