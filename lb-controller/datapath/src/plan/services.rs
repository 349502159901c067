//! Services: names, limits, the table of VIPs, and the routes that bring their packets in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb_common::nat::steps_of;
use lb_common::rate::Dimension;
use lb_common::types::{CookiePolicy, Forward, NatPolicy, ServiceRange};
use lb_common::vip::VipPrefix;

use super::entries::{Replies, entries};
use super::{MapOp, MapState, Now, PlanError, assign, check, name_of};
use crate::desired::{Desired, DesiredNat, DesiredService};
use crate::limits::Machine;

/// What happens in three steps, between which backends and tables change.
pub(super) struct Planned<'a> {
    /// Lets go of indices that change hands.
    pub(super) released: Vec<MapOp>,
    /// What the packets of a service find once they find the service.
    pub(super) prepared: Vec<MapOp>,
    pub(super) published: Vec<MapOp>,
    pub(super) indices: BTreeMap<&'a str, u16>,
    /// Indices that belong to another name now than they did.
    pub(super) reused: BTreeSet<u16>,
}

pub(super) fn plan<'a>(current: &MapState, desired: &'a Desired, now: Now<'_>) -> Result<Planned<'a>, PlanError> {
    check::check(desired, now.nat_addresses)?;
    let indices = assign("services", &current.service_names, desired.services.iter().map(|one| one.name.as_str()))?;
    let replies = Replies { addresses: now.nat_addresses, ports: desired.nat.ports };
    let (entries, ranges) = entries(&desired.services, &indices, now.workers, &replies)?;
    let reused = reused(current, &indices);
    let freed = |service: &u16| !indices.values().any(|index| index == service);
    let named = (0..current.service_names.len() as u16)
        .filter(|service| current.service_names[*service as usize].is_some())
        .collect::<Vec<_>>();

    let mut released = Vec::new();
    let new_flows = now.machine.shared(Dimension::Syns, desired.new_flows);
    if current.new_flows != new_flows {
        released.push(MapOp::LimitNewFlows { limit: new_flows });
    }
    let policy = now.machine.sampling(&desired.sampling);
    if current.sampling != policy {
        released.push(MapOp::Sample { policy });
    }
    // An index changes hands only after the table has let go of it.
    if !reused.is_empty() {
        let keeps = |service: u16| !reused.contains(&service);
        // Ranges stay where whole VIPs expect them; those of a service that goes lead to nobody.
        let entries = current.entries.iter().filter(|entry| entry.port == 0 || keeps(entry.service)).copied().collect();
        let released_range = |range: &ServiceRange| if keeps(range.service) { *range } else { ServiceRange::FREE };
        let ranges = current.ranges.iter().map(released_range).collect();
        released.push(MapOp::ReplaceServices { entries, ranges });
        released.extend(reused.iter().map(|service| MapOp::FreeService { service: *service }));
    }
    let mut prepared = Vec::new();
    let policy = nat_policy(&desired.nat, now.nat_blocks);
    if !now.nat_addresses.is_empty() && current.nat != policy {
        prepared.push(MapOp::SetNat { policy: Box::new(policy) });
    }
    for service in &desired.services {
        prepared.extend(entry_ops(current, service, indices[service.name.as_str()], &reused, now.machine)?);
    }
    let mut published = Vec::new();
    if entries != current.entries || ranges != current.ranges || !reused.is_empty() {
        published.push(MapOp::ReplaceServices { entries, ranges });
    }
    published
        .extend(named.iter().filter(|service| freed(service)).map(|service| MapOp::FreeService { service: *service }));
    published.extend(route_ops(current, &desired.services));
    Ok(Planned { released, prepared, published, indices, reused })
}

/// `blocks` are elements of `NAT_WORDS`.
fn nat_policy(nat: &DesiredNat, blocks: u32) -> NatPolicy {
    let steps = |duration: Duration| steps_of(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX));
    let (first_port, last_port) = nat.ports;
    let mut policy = NatPolicy {
        blocks,
        first_port,
        last_port,
        tcp_idle_steps: steps(nat.tcp_idle),
        udp_idle_steps: steps(nat.udp_idle),
        ..NatPolicy::NONE
    };
    for address in &nat.addresses {
        let family = usize::from(address.to_canonical().is_ipv6());
        let count = &mut policy.addresses_count[family];
        // More were refused before.
        if let Some(place) = policy.addresses[family].get_mut(usize::from(*count)) {
            *place = (*address).into();
            *count += 1;
        }
    }
    policy
}

/// Indices that belong to another name now than they did.
fn reused(current: &MapState, indices: &BTreeMap<&str, u16>) -> BTreeSet<u16> {
    let is_reused = |name: &str, index: u16| {
        current.service_names[index as usize].as_deref().is_some_and(|earlier| earlier != name)
    };
    indices.iter().filter(|(name, index)| is_reused(name, **index)).map(|(_, index)| *index).collect()
}

fn entry_ops(
    current: &MapState,
    service: &DesiredService,
    index: u16,
    reused: &BTreeSet<u16>,
    machine: Machine,
) -> Result<Vec<MapOp>, PlanError> {
    let mut ops = Vec::new();
    let name = name_of("service", &service.name)?;
    if current.service_names[index as usize].as_deref() != Some(service.name.as_str()) {
        ops.push(MapOp::NameService { service: index, name });
    }
    let limits = machine.service_limits(&service.limits);
    if current.limits[index as usize] != limits || reused.contains(&index) {
        ops.push(MapOp::SetLimits { service: index, limits });
    }
    let policy = match service.forward {
        Forward::Local => CookiePolicy::new(service.syn_cookies, machine.clock_tick_ns),
        _ => CookiePolicy::OFF,
    };
    // A freed index is off.
    let present = if reused.contains(&index) { CookiePolicy::OFF } else { current.cookies[index as usize] };
    if present != policy {
        ops.push(MapOp::SetCookies { service: index, policy });
    }
    Ok(ops)
}

/// Local services need the host to take their packets for its own. What is forwarded never reaches the host, and a local
/// route would make it refuse the replies that backends send through it with the VIP as their source.
fn route_ops(current: &MapState, services: &[DesiredService]) -> Vec<MapOp> {
    let local = services.iter().filter(|service| service.forward == Forward::Local);
    let wanted: BTreeSet<VipPrefix> = local.flat_map(|service| &service.vips).copied().collect();
    let added = wanted.difference(&current.routes).map(|vip| MapOp::AddRoute { vip: *vip });
    let removed = current.routes.difference(&wanted).map(|vip| MapOp::RemoveRoute { vip: *vip });
    added.chain(removed).collect()
}
