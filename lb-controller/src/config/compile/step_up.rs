//! Sessions, challenges, and what they tell XDP.

use std::time::Duration;

use super::super::section::{Complaint, Section};
use super::super::{StepUpConfig, values};

/// Parked bodies are held in memory, for several sessions at once.
const MOST_PARKED_BYTES: u64 = 1024 * 1024;

pub(super) fn compile(config: &Section<'_>) -> StepUpConfig {
    let default = StepUpConfig::default();
    let Some(node) = config.get("step_up") else { return default };
    let Some(section) = Section::open("`step_up`", node, config.problems) else { return default };
    let seconds = Duration::from_secs;
    let duration = |name, least: u64, most: u64| section.value(name, values::duration(seconds(least)..=seconds(most)));
    let session_lifetime = duration("session_lifetime", 60, 30 * 86_400).unwrap_or(default.session_lifetime);
    let longest_idle = session_lifetime.as_secs();
    let step_up = StepUpConfig {
        session_lifetime,
        session_idle: duration("session_idle", 10, longest_idle).unwrap_or(default.session_idle.min(session_lifetime)),
        transaction_lifetime: duration("transaction_lifetime", 30, 3600).unwrap_or(default.transaction_lifetime),
        park_limit_bytes: section.value("park_limit", park_limit_bytes).unwrap_or(default.park_limit_bytes),
        verified_for: duration("verified_for", 1, 86_400).unwrap_or(default.verified_for),
        block_after_failures: section
            .value("block_after_failures", values::number(3..=1000))
            .unwrap_or(default.block_after_failures),
    };
    section.finish();
    step_up
}

fn park_limit_bytes(text: &str) -> Result<usize, Complaint> {
    let bytes = values::size_bytes(text)?;
    match usize::try_from(bytes) {
        Ok(bytes_that_fit) if bytes <= MOST_PARKED_BYTES => Ok(bytes_that_fit),
        _ => Err("at most 1MiB is parked".into()),
    }
}
