//! Sessions, challenges, and what they tell XDP.

use std::time::Duration;

use lb_policy::{LevelDefinition, Levels, Method, Way};

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::Node;
use super::super::{StepUpConfig, values};

/// Parked bodies are held in memory, for several sessions at once.
const MOST_PARKED_BYTES: u64 = 1024 * 1024;
/// More would be a mistake.
const MOST_LEVELS: usize = 9;

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
        levels: levels(&section).unwrap_or_default(),
        verified_for: duration("verified_for", 1, 86_400).unwrap_or(default.verified_for),
        block_after_failures: section
            .value("block_after_failures", values::number(3..=1000))
            .unwrap_or(default.block_after_failures),
    };
    section.finish();
    step_up
}

/// Level 1 is the first of the list.
fn levels(step_up: &Section<'_>) -> Option<Levels> {
    let nodes = step_up.list("levels");
    if let Some(extra) = nodes.get(MOST_LEVELS) {
        step_up.problems.report(&extra.place, format!("at most {MOST_LEVELS} levels"));
    }
    let mut names = Names::of("level");
    let definitions: Vec<_> = nodes.iter().filter_map(|node| level(node, &mut names, step_up.problems)).collect();
    (!definitions.is_empty() && definitions.len() == nodes.len()).then(|| Levels::new(definitions))
}

fn level(node: &Node, names: &mut Names, problems: &Problems) -> Option<LevelDefinition> {
    let section = Section::open("a level", node, problems)?;
    let acr = section.required_value("acr", |text| acr(text).and_then(|acr| names.unique(acr)));
    section.require_list("any_of");
    let any_of = section.values("any_of", way);
    section.finish();
    Some(LevelDefinition { acr: acr?, any_of })
}

/// It goes into header values within quotes, and lists of them are separated by spaces (RFC 9470 §3).
fn acr(text: &str) -> Result<String, Complaint> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if text.is_empty() || text.len() > 255 || !text.bytes().all(is_plain) {
        return Err(Complaint::new("this is no acr", "1 to 255 printable ASCII characters without spaces and quotes"));
    }
    Ok(text.to_owned())
}

/// `two_classes` and the like, or methods joined by `+`.
fn way(text: &str) -> Result<Way, Complaint> {
    if let Some((_, way)) = Way::NAMES.iter().find(|(name, _)| *name == text) {
        return Ok(way.clone());
    }
    let known = || Way::NAMES.iter().map(|(name, _)| *name).chain(Method::all().map(Method::name));
    let method =
        |name: &str| Method::from_name(name.trim()).ok_or_else(|| Complaint::unknown("way", name.trim(), known()));
    text.split('+').map(method).collect::<Result<_, _>>().map(Way::Methods)
}

fn park_limit_bytes(text: &str) -> Result<usize, Complaint> {
    let bytes = values::size_bytes(text)?;
    match usize::try_from(bytes) {
        Ok(bytes_that_fit) if bytes <= MOST_PARKED_BYTES => Ok(bytes_that_fit),
        _ => Err("at most 1MiB is parked".into()),
    }
}
