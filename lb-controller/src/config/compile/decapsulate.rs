//! Whose tunnels end on this host.

use lb_datapath::{DesiredService, Prefix, Tier};

use super::super::section::{Complaint, Section};
use super::super::tree::Node;
use super::super::values;
use lb_common::maps::MAX_TIER_PREFIXES;

pub(super) fn compile(config: &Section<'_>) -> Option<Tier> {
    let node = config.get("decapsulate")?;
    let section = Section::open("`decapsulate`", node, config.problems)?;
    let nodes = section.require_list("from");
    if let Some(extra) = nodes.get(MAX_TIER_PREFIXES) {
        config.problems.report(&extra.place, format!("at most {MAX_TIER_PREFIXES} prefixes"));
    }
    let mut from = Vec::new();
    for node in nodes {
        from.extend(prefix(node, &section));
    }
    let gue_port = section.value("gue_port", values::number(1..=65_535));
    section.finish();
    Some(Tier { from, gue_port: gue_port.map_or(DesiredService::DEFAULT_GUE_PORT, |port| port as u16) })
}

fn prefix(node: &Node, section: &Section<'_>) -> Option<Prefix> {
    node.read(section.problems, |text| {
        let network = values::peers(text)?;
        let unreadable = || Complaint::from(format!("`{text}` is no address block"));
        Prefix::new(network.addr(), network.prefix_len()).ok_or_else(unreadable)
    })
}
