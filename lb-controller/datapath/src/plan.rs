//! The difference between what the maps say and what they should say. Pure: no map is touched here.

mod backends;
mod check;
mod entries;
mod server_ids;
mod services;
mod state;
mod table;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lb_common::maps::MAX_TIER_PREFIXES;
use lb_common::quic::ServerId;
use lb_common::types::{
    BackendEntry, CookiePolicy, Name, NatPolicy, QuicServerKey, SamplePolicy, ServiceEntry, ServiceForward,
    ServiceLimits, ServiceRange, SharedLimit,
};
use lb_common::vip::VipPrefix;

use crate::desired::{Desired, Endpoint, Ports, Tier};
use crate::limits::Machine;
use crate::maglev::Member;

pub(crate) use state::MapState;
pub(crate) use table::{Table, build as build_table};
pub(crate) use tables::TableSlot;

/// One change. A plan's order matters: a packet that sees half of it is still judged by complete entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    NameService {
        service: u16,
        name: Name,
    },
    SetLimits {
        service: u16,
        limits: ServiceLimits,
    },
    LimitNewFlows {
        limit: SharedLimit,
    },
    Sample {
        policy: SamplePolicy,
    },
    SetCookies {
        service: u16,
        policy: CookiePolicy,
    },
    SetNat {
        policy: Box<NatPolicy>,
    },
    /// Sorted, so that equal sets compare equal.
    ReplaceServices {
        entries: Vec<ServiceEntry>,
        /// In the order in which the entries of whole VIPs refer to them.
        ranges: Vec<ServiceRange>,
    },
    /// Into a slot that no service names.
    WriteTable {
        table: u16,
        members: Vec<Member>,
        places: Arc<[u16]>,
    },
    SetForward {
        service: u16,
        forward: ServiceForward,
        /// When it was planned, in monotonic time: what is previous from then on is forgotten later.
        switched_ns: u64,
    },
    /// Also forgets its counters, limits, backends and sockets: the index may be another service's next.
    FreeService {
        service: u16,
    },
    NamePool {
        pool: u16,
        name: Name,
    },
    FreePool {
        pool: u16,
    },
    SetBackend {
        slot: u32,
        entry: BackendEntry,
    },
    SetServerId {
        key: QuicServerKey,
        backend: u16,
    },
    RemoveServerId {
        key: QuicServerKey,
    },
    /// Whose tunnels end on this host.
    SetTier {
        tier: Option<Tier>,
    },
    AddRoute {
        vip: VipPrefix,
    },
    RemoveRoute {
        vip: VipPrefix,
    },
}

/// What no map can hold. The maps keep what they had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the name {name:?} of a {what} is empty or longer than {} bytes", Name::MAX_BYTES)]
    BadName { what: &'static str, name: String },
    #[error("two services are called {name:?}")]
    DuplicateService { name: String },
    #[error("services {first:?} and {second:?} both claim {endpoint}")]
    DuplicateEndpoint { first: String, second: String, endpoint: Endpoint },
    #[error("VIP {vip} of service {service:?} is not a unicast address or network that can be routed")]
    UnusableVip { service: String, vip: VipPrefix },
    #[error("service {service:?} has ports {ports}, which are none or not in order")]
    BadPorts { service: String, ports: Ports },
    #[error("service {service:?} has neither TCP nor UDP")]
    NoProtocol { service: String },
    #[error("service {service:?} forwards packets, which needs a pool, or is local, which has none")]
    PoolMismatch { service: String },
    #[error("service {service:?} forwards to pool {pool:?}, which has no backend")]
    NoSuchPool { service: String, pool: String },
    #[error("server id {id} of pool {pool:?} names two backends, {first} and {second}")]
    DuplicateServerId { pool: String, id: ServerId, first: SocketAddr, second: SocketAddr },
    #[error("VIP {vip} has {found} port ranges, more than the {limit} that fit")]
    TooManyRanges { vip: VipPrefix, found: usize, limit: usize },
    #[error(
        "service {service:?} has {vip} port {ports}, where backends answer to NAT at {address} ports {first}-{last}; give \
         `nat` other addresses or ports"
    )]
    NatConflict { service: String, vip: VipPrefix, ports: Ports, address: IpAddr, first: u16, last: u16 },
    #[error(
        "service {service:?} forwards by NAT to pool {pool:?}, whose backends are not all of the family of its VIPs"
    )]
    NatFamilies { service: String, pool: String },
    #[error("NAT has the ports {first}-{last}, which are none or not in order")]
    BadNatPorts { first: u16, last: u16 },
    #[error("{found} {what} are more than the {limit} that fit")]
    TooMany { what: &'static str, found: usize, limit: usize },
}

/// How many workers listen for each service, by name.
pub(crate) type Workers = BTreeMap<String, u16>;

/// What a plan depends on beside the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    pub(crate) workers: &'a Workers,
    pub(crate) machine: Machine,
    pub(crate) monotonic_ns: u64,
    /// Where backends answer to NAT; nothing while no service uses it.
    pub(crate) nat_addresses: &'a BTreeSet<IpAddr>,
    /// Elements of `NAT_WORDS`.
    pub(crate) nat_blocks: u32,
}

/// The changes that turn `current` into `desired`; none if it is already so.
///
/// Whatever names another thing is written after it, and removed before it: backends, then the tables and server ids that
/// name them, then services.
pub(crate) fn plan(current: &MapState, desired: &Desired, now: Now<'_>) -> Result<Vec<MapOp>, PlanError> {
    let services = services::plan(current, desired, now)?;
    let backends = backends::plan(current, desired)?;
    let tables = current.without(&services.reused);
    let tables = tables::plan(tables, desired, &services.indices, &backends, now.monotonic_ns)?;
    let ids = server_ids::plan(current, desired, &backends)?;
    let released = [services.released, ids.removed].concat();
    let prepared = [backends.written, ids.written, services.prepared, tables].concat();
    // The tier last, because what is in the tunnels is for the services.
    Ok([released, prepared, services.published, backends.freed, tier(current, desired)?].concat())
}

fn tier(current: &MapState, desired: &Desired) -> Result<Vec<MapOp>, PlanError> {
    let mut tier = desired.tier.clone();
    if let Some(tier) = &mut tier {
        tier.from.sort_unstable();
        tier.from.dedup();
        let (found, limit) = (tier.from.len(), MAX_TIER_PREFIXES);
        if found > limit {
            return Err(PlanError::TooMany { what: "prefixes of the L4 tier", found, limit });
        }
    }
    Ok(if current.tier == tier { vec![] } else { vec![MapOp::SetTier { tier }] })
}

/// The order in which entries are compared, so that a table read back equals the one planned.
pub(crate) fn order(entry: &ServiceEntry) -> (IpAddr, u8, u16, u8) {
    (entry.address.into(), entry.kind, entry.port, entry.protocol)
}

fn name_of(what: &'static str, text: &str) -> Result<Name, PlanError> {
    Name::new(text).ok_or_else(|| PlanError::BadName { what, name: text.to_owned() })
}

/// Gives each name the index it has, or the lowest free one.
fn assign<'a>(
    what: &'static str,
    current: &[Option<String>],
    wanted: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<&'a str, u16>, PlanError> {
    let wanted: BTreeSet<&str> = wanted.collect();
    let is_kept = |name: &Option<String>| name.as_deref().is_some_and(|name| wanted.contains(name));
    let mut free = (0..current.len()).filter(|index| !is_kept(&current[*index]));
    let mut indices = BTreeMap::new();
    for name in &wanted {
        let index = match current.iter().position(|known| known.as_deref() == Some(*name)) {
            Some(index) => index,
            None => free.next().ok_or(PlanError::TooMany { what, found: wanted.len(), limit: current.len() })?,
        };
        indices.insert(*name, index as u16);
    }
    Ok(indices)
}

#[cfg(test)]
mod tests;
