//! How long what is under way may take once its process is to end.

use std::time::Duration;

use super::super::section::Section;
use super::super::{DrainConfig, values};

pub(super) fn compile(config: &Section<'_>) -> DrainConfig {
    let usual = DrainConfig::default();
    let Some(node) = config.get("drain") else { return usual };
    let Some(section) = Section::open("`drain`", node, config.problems) else { return usual };
    let (hour, week) = (Duration::from_secs(3600), Duration::from_secs(7 * 86_400));
    let on_stop = section.value("on_stop", values::duration(Duration::ZERO..=hour));
    let on_upgrade = section.value("on_upgrade", values::duration(Duration::ZERO..=week));
    let generations = section.value("generations", values::number(1..=16));
    section.finish();
    DrainConfig {
        on_stop: on_stop.unwrap_or(usual.on_stop),
        on_upgrade: on_upgrade.unwrap_or(usual.on_upgrade),
        generations: generations.unwrap_or(usual.generations),
    }
}
