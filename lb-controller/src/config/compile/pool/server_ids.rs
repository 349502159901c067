//! What backends put into their QUIC connection ids: given or derived, it must name one of them.

use std::collections::{BTreeMap, BTreeSet};

use lb_datapath::ServerId;

use super::super::super::section::{Complaint, Problems};
use super::super::super::tree::Node;
use super::super::super::{PoolConfig, Service};

pub(super) fn read(text: &str) -> Result<ServerId, Complaint> {
    let complaint = || {
        let help = "write two hexadecimal digits for each byte, in quotes: \"0a000002\"";
        Complaint::new(format!("`{text}` is no server id of 1 to 15 bytes"), help)
    };
    text.parse().map_err(|_| complaint())
}

/// With all backends read: no service that is routed by server ids may find two of them by one, and one that is given
/// must be as long as some service reads it.
pub(super) fn check(node: &Node, pool: &PoolConfig, services: &[Service], problems: &Problems) {
    let ours = services.iter().filter(|service| service.forwarding.pool.as_deref() == Some(&pool.name));
    let lengths: BTreeSet<u8> =
        ours.flat_map(|service| service.forwarding.quic.iter().map(|(_, bytes)| bytes)).collect();
    for backend in &pool.backends {
        let Some(id) = backend.server_id else { continue };
        if !lengths.contains(&(id.as_bytes().len() as u8)) {
            let known: Vec<String> = lengths.iter().map(ToString::to_string).collect();
            let help = match known.is_empty() {
                true => {
                    "give a service that forwards to this pool `quic: {server_id_bytes: …}`, or leave it out".into()
                }
                false => format!("services read server ids of this many bytes: {}", known.join(", ")),
            };
            let message = format!("no service reads the server id {id} of backend {}", backend.address);
            problems.report(&node.place, Complaint::new(message, help));
        }
    }
    for bytes in lengths {
        let mut owners = BTreeMap::new();
        for backend in &pool.backends {
            let Some(id) = backend.server_id(bytes) else { continue };
            if let Some(first) = owners.insert(id, backend.address) {
                let message = format!("backends {first} and {} have the same server id {id}", backend.address);
                let help = "give one of them another with `server_id`, or the service more `server_id_bytes`";
                problems.report(&node.place, Complaint::new(message, help));
            }
        }
    }
}
