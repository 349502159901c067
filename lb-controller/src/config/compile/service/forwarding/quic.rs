//! How QUIC connection ids name a service's backends.

use lb_common::quic::{CONFIG_IDS, MOST_SERVER_ID_BYTES};
use lb_datapath::{Protocols, ServerIdLengths};

use super::super::super::super::section::{Complaint, Section};
use super::super::super::super::tree::Node;
use super::super::super::super::values;

/// `{config_id, server_id_bytes}`, or a list of such while one configuration follows another. `None` if one of them
/// cannot be read.
pub(super) fn compile(section: &Section<'_>, protocols: Option<Protocols>, is_local: bool) -> Option<ServerIdLengths> {
    let nodes = section.list("quic");
    if let Some(first) = nodes.first() {
        if is_local {
            let help = "add `forward: ipip`, `gue`, `l2` or `nat`, or leave this out";
            section.problems.report(&first.place, Complaint::new("`quic` is for services that forward packets", help));
        } else if protocols.is_some_and(|protocols| !protocols.udp) {
            let help = "add `protocol: udp`, or leave this out";
            section.problems.report(&first.place, Complaint::new("QUIC runs over UDP", help));
        }
    }
    nodes.iter().try_fold(ServerIdLengths::default(), |lengths, node| one(section, node, lengths))
}

fn one(section: &Section<'_>, node: &Node, earlier: ServerIdLengths) -> Option<ServerIdLengths> {
    let section = Section::open("a QUIC configuration", node, section.problems)?;
    let config_id = section.value("config_id", |text| {
        let config_id = values::number(0..=CONFIG_IDS as u32 - 1)(text)? as u8;
        if earlier.bytes(config_id) == 0 { Ok(config_id) } else { Err("this configuration is listed already".into()) }
    });
    let bytes = section.required_value("server_id_bytes", values::number(1..=MOST_SERVER_ID_BYTES as u32));
    let is_default = !section.has("config_id");
    if is_default && earlier.bytes(0) != 0 {
        let help = "without `config_id` it is 0: give one of them another";
        section.problems.report(&node.place, Complaint::new("this configuration is listed already", help));
    }
    let is_readable = config_id.is_some() || is_default;
    section.finish();
    Some(earlier.with(config_id.unwrap_or(0), bytes? as u8)).filter(|_| is_readable)
}
