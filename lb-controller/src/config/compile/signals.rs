//! Where facts about clients come from: databases of places, lists of ill repute.

use std::path::Path;
use std::time::Duration;

use super::super::section::{Problems, Section};
use super::super::tree::Node;
use super::super::{GeoConfig, ReputationListConfig, values};

const MOST_LISTS: usize = 64;

pub(super) fn geo(config: &Section<'_>, folder: &Path) -> GeoConfig {
    let section = config.get("geo").and_then(|node| Section::open("`geo`", node, config.problems));
    let Some(section) = section else { return GeoConfig::default() };
    let file = |name| section.value(name, |text| super::path_in(folder, text));
    let geo = GeoConfig { country: file("country"), asn: file("asn") };
    section.finish();
    geo
}

pub(super) fn reputation(config: &Section<'_>, folder: &Path) -> Vec<ReputationListConfig> {
    let nodes = config.list("reputation");
    if let Some(extra) = nodes.get(MOST_LISTS) {
        config.problems.report(&extra.place, format!("at most {MOST_LISTS} lists"));
    }
    nodes.iter().take(MOST_LISTS).filter_map(|node| list(node, folder, config.problems)).collect()
}

fn list(node: &Node, folder: &Path, problems: &Problems) -> Option<ReputationListConfig> {
    let section = Section::open("a reputation list", node, problems)?;
    let file = section.required_value("file", |text| super::path_in(folder, text));
    let score = section.required_value("score", values::number(0..=100));
    let year = Duration::from_secs(366 * 86_400);
    let valid_for = section.required_value("valid_for", values::duration(Duration::from_secs(60)..=year));
    section.finish();
    Some(ReputationListConfig { file: file?, score: score? as u8, valid_for: valid_for? })
}
