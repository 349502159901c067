//! One server of a pool.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use lb_datapath::Forward;

use super::super::super::section::{Complaint, Section};
use super::super::super::tree::{Node, Value};
use super::super::super::{BackendConfig, BackendOrigin, Service, values};
use super::{Surroundings, server_ids};

/// An address, or a section with one. `siblings` are those of its pool, of which it then is one.
pub(super) fn backend(
    node: &Node,
    siblings: &mut HashSet<SocketAddr>,
    pool: Option<&str>,
    around: Surroundings<'_>,
) -> Option<BackendConfig> {
    let Surroundings { services, problems, .. } = around;
    let address = |text: &str| {
        let address = values::socket_address(text)?;
        if siblings.contains(&address) {
            return Err("this pool has this backend already".into());
        }
        fits(address, pool, services).map(|()| address)
    };
    if !matches!(node.value, Value::Map(_)) {
        let address = node.read(problems, address)?;
        siblings.insert(address);
        return Some(BackendConfig::from(address));
    }
    let section = Section::open("a backend", node, problems)?;
    let address = section.required_value("address", address);
    let weight = section.value("weight", values::number(0..=u8::MAX.into()));
    let drain = section.value("drain", values::boolean);
    let backup = section.value("backup", backup);
    let zone: Option<Arc<str>> = section.value("zone", values::name).map(Into::into);
    if let (Some(node), None) = (section.get("zone"), around.zone) {
        let help = "write `zone: NAME` at the top level, or leave the zones out";
        problems.report(&node.place, Complaint::new("nothing says in which zone this host is", help));
    }
    let server_id = section.value("server_id", server_ids::read);
    section.finish();
    let address = address?;
    siblings.insert(address);
    Some(BackendConfig {
        address,
        weight: weight.map_or(BackendConfig::DEFAULT_WEIGHT, |weight| weight as u8),
        drain: drain.unwrap_or(false),
        backup: backup.unwrap_or(0),
        is_far: zone.as_deref().is_some_and(|zone| around.zone != Some(zone)),
        zone,
        server_id,
        origin: BackendOrigin::Configured,
    })
}

/// `true` is the first of the backups.
fn backup(text: &str) -> Result<u8, Complaint> {
    match text.parse::<u8>() {
        Ok(number) if (1..=BackendConfig::LAST_BACKUP).contains(&number) => Ok(number),
        _ => text.parse::<bool>().map(u8::from).map_err(|_| {
            let problem = format!("`{text}` is neither true nor false, nor from 1 to {}", BackendConfig::LAST_BACKUP);
            Complaint::new(problem, "write `true` for a backup; with numbers, those of 1 are asked before those of 2")
        }),
    }
}

/// Whether an address can be a backend's, whoever says so.
pub(super) fn fits(address: SocketAddr, pool: Option<&str>, services: &[Service]) -> Result<(), Complaint> {
    if let Some(service) = services.iter().find(|service| service.takes_tcp(address)) {
        return Err(format!("this is service `{}` itself: requests would go round in circles", service.name).into());
    }
    other_family(address, pool, services).map_or(Ok(()), Err)
}

/// What is wrong with a backend that a service would have to reach by another IP version.
fn other_family(address: SocketAddr, pool: Option<&str>, services: &[Service]) -> Option<Complaint> {
    let is_ipv6 = address.ip().to_canonical().is_ipv6();
    let is_apart = |service: &&Service| {
        service.forwarding.forward == Forward::Nat
            && service.forwarding.pool.as_deref() == pool
            && service.vips.iter().any(|vip| vip.network().is_ipv6() != is_ipv6)
    };
    let service = services.iter().find(is_apart)?;
    let help = "NAT makes no IPv6 of IPv4: give each family a service and a pool, or choose another `forward`";
    Some(Complaint::new(format!("service `{}` has a VIP of the other IP version", service.name), help))
}
