//! Where a service's packets go, and what goes with each way of sending them.

mod quic;

use lb_common::mss::WHATEVER_FITS;
use lb_datapath::{DesiredService, Forward, HashBy, Protocols};

use super::super::super::section::{Complaint, Section};
use super::super::super::{Forwarding, values};

const WAYS: [Forward; 5] = [Forward::Local, Forward::Ipip, Forward::Gue, Forward::L2, Forward::Nat];

/// What every host must take without pieces (RFC 9293 §3.7.1), and what fits the largest IPv4 packet.
const LEAST_SEGMENT_BYTES: u32 = lb_common::mss::LEAST_SEGMENT_BYTES as u32;
const MOST_SEGMENT_BYTES: u32 = 65_495;

/// `protocols` are the service's, where they could be read; `pools` the names that there are.
pub(super) fn compile(section: &Section<'_>, protocols: Option<Protocols>, pools: &[&str]) -> Option<Forwarding> {
    let forward = match section.has("forward") {
        true => section.value("forward", way),
        false => Some(Forward::Local),
    };
    let is_local = forward == Some(Forward::Local);
    let only_forwarded = |what: &'static str| -> Result<(), Complaint> {
        let help = "add `forward: ipip`, `gue`, `l2` or `nat`, or leave this out";
        if is_local {
            Err(Complaint::new(format!("`{what}` is for services that forward packets"), help))
        } else {
            Ok(())
        }
    };
    let pool = section.value("pool", |text| {
        only_forwarded("pool")?;
        match pools.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(Complaint::unknown("pool", text, pools.iter().copied())),
        }
    });
    if !is_local && forward.is_some() {
        section.require("pool");
    }
    let hash_by = section.value("stick_to", |text| only_forwarded("stick_to").and_then(|()| hash_by(text)));
    let gue_port = section.value("gue_port", |text| match forward {
        Some(Forward::Gue) | None => values::number(1..=65_535)(text),
        _ => Err("`gue_port` is for `forward: gue`".into()),
    });
    let segment = section.value("mss", |text| {
        only_forwarded("mss")?;
        if protocols.is_some_and(|protocols| !protocols.tcp) {
            return Err("only TCP has segments".into());
        }
        match text {
            "fit" => Ok(WHATEVER_FITS.into()),
            _ => values::number(LEAST_SEGMENT_BYTES..=MOST_SEGMENT_BYTES)(text).map_err(|complaint| Complaint {
                help: Some("or `fit`: what fits the way to the backend".into()),
                ..complaint
            }),
        }
    });
    let quic = quic::compile(section, protocols, is_local);
    let forward = forward?;
    if forward == Forward::Local && protocols.is_some_and(|protocols| protocols.udp) {
        let help = "forward UDP to a pool: `forward: ipip`, `gue`, `l2` or `nat`, and `pool`";
        let place = &section.require("protocol")?.place;
        section.problems.report(place, Complaint::new("services of this controller speak TCP", help));
    }
    let default_port = if forward == Forward::Gue { DesiredService::DEFAULT_GUE_PORT } else { 0 };
    Some(Forwarding {
        forward,
        pool,
        hash_by: hash_by.unwrap_or_default(),
        gue_port: gue_port.map_or(default_port, |port| port as u16),
        max_segment_bytes: segment.map_or(0, |bytes| bytes as u16),
        quic: quic?,
    })
}

fn way(text: &str) -> Result<Forward, Complaint> {
    let found = WAYS.into_iter().find(|forward| forward.name() == text);
    found.ok_or_else(|| Complaint::unknown("way of forwarding", text, WAYS.map(Forward::name)))
}

fn hash_by(text: &str) -> Result<HashBy, Complaint> {
    match text {
        "connection" => Ok(HashBy::Connection),
        "source" => Ok(HashBy::Source),
        _ => Err(Complaint::new(format!("a flow cannot stick to `{text}`"), "known: connection, source")),
    }
}
