//! What the maps say now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::maps::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_TABLES};
use lb_common::service::{ENDPOINT, PREFIX_ENDPOINT};
use lb_common::types::{
    BackendEntry, CookiePolicy, NatPolicy, QuicServerKey, SamplePolicy, ServiceEntry, ServiceForward, ServiceLimits,
    ServiceRange, SharedLimit,
};
use lb_common::vip::VipPrefix;

use crate::desired::Sampling;
use crate::limits::Machine;

use super::tables::{PREVIOUS_FOR_NS, TableSlot, TableState};
use super::{MapOp, Workers};
use crate::desired::Tier;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapState {
    /// By service index.
    pub(crate) service_names: Vec<Option<String>>,
    pub(crate) limits: Vec<ServiceLimits>,
    pub(crate) new_flows: SharedLimit,
    pub(crate) sampling: SamplePolicy,
    pub(crate) cookies: Vec<CookiePolicy>,
    pub(crate) nat: NatPolicy,
    /// Sorted by key.
    pub(crate) entries: Vec<ServiceEntry>,
    pub(crate) ranges: Vec<ServiceRange>,
    /// By service index.
    pub(crate) forwards: Vec<ServiceForward>,
    /// When the table of each service last changed, in monotonic time.
    pub(crate) switched_ns: Vec<u64>,
    /// By slot; `None` where no table was written, or none that a service named when this run began.
    pub(crate) tables: Vec<Option<TableSlot>>,
    pub(crate) pool_names: Vec<Option<String>>,
    pub(crate) backends: Vec<BackendEntry>,
    pub(crate) server_ids: BTreeMap<QuicServerKey, u16>,
    pub(crate) tier: Option<Tier>,
    pub(crate) routes: BTreeSet<VipPrefix>,
}

impl MapState {
    pub(crate) fn empty() -> Self {
        Self {
            service_names: vec![None; MAX_SERVICES],
            limits: vec![ServiceLimits::UNLIMITED; MAX_SERVICES],
            new_flows: SharedLimit::UNLIMITED,
            // As a configuration that says nothing of it leaves it.
            sampling: Machine::this().sampling(&Sampling::default()),
            cookies: vec![CookiePolicy::OFF; MAX_SERVICES],
            nat: NatPolicy::NONE,
            entries: Vec::new(),
            ranges: Vec::new(),
            forwards: vec![ServiceForward::FREE; MAX_SERVICES],
            switched_ns: vec![0; MAX_SERVICES],
            tables: vec![None; MAX_TABLES],
            pool_names: vec![None; MAX_POOLS],
            backends: vec![BackendEntry::FREE; MAX_BACKENDS],
            server_ids: BTreeMap::new(),
            tier: None,
            routes: BTreeSet::new(),
        }
    }

    /// Index of a service by its name.
    pub(crate) fn service(&self, name: &str) -> Option<u16> {
        self.service_names.iter().position(|known| known.as_deref() == Some(name)).map(|index| index as u16)
    }

    /// Where backends answer to NAT.
    pub(crate) fn nat_addresses(&self) -> BTreeSet<IpAddr> {
        self.entries.iter().filter(|entry| entry.is_nat()).map(|entry| entry.address.into()).collect()
    }

    /// How many workers each service's connections are spread over.
    pub(crate) fn workers(&self) -> Workers {
        let is_endpoint = |entry: &&ServiceEntry| [ENDPOINT, PREFIX_ENDPOINT].contains(&entry.kind);
        let exact = self.entries.iter().filter(is_endpoint).map(|entry| (entry.service, entry.workers));
        let ranges = self.ranges.iter().map(|range| (range.service, range.workers));
        let names = exact.chain(ranges).filter(|(_, workers)| *workers > 0).filter_map(|(service, workers)| {
            let name = self.service_names[service as usize].clone()?;
            Some((name, workers))
        });
        names.collect()
    }

    /// Does a service remember a previous table for longer than it should?
    pub(crate) fn is_window_over(&self, now_ns: u64) -> bool {
        let mut services = self.forwards.iter().zip(&self.switched_ns);
        services.any(|(forward, switched_ns)| {
            forward.table != forward.previous_table && now_ns.saturating_sub(*switched_ns) >= PREVIOUS_FOR_NS
        })
    }

    /// What is to know about tables once these services are freed.
    pub(super) fn without(&self, freed: &BTreeSet<u16>) -> TableState {
        let mut forwards = self.forwards.clone();
        for service in freed {
            forwards[*service as usize] = ServiceForward::FREE;
        }
        TableState { forwards, switched_ns: self.switched_ns.clone(), tables: self.tables.clone() }
    }

    /// Keeps up with a change that was made to the maps.
    pub(crate) fn record(&mut self, op: &MapOp) {
        match op {
            MapOp::NameService { service, name } => {
                self.service_names[*service as usize] = name.as_str().map(str::to_owned);
            }
            MapOp::SetLimits { service, limits } => self.limits[*service as usize] = *limits,
            MapOp::LimitNewFlows { limit } => self.new_flows = *limit,
            MapOp::Sample { policy } => self.sampling = *policy,
            MapOp::SetCookies { service, policy } => self.cookies[*service as usize] = *policy,
            MapOp::SetNat { policy } => self.nat = **policy,
            MapOp::ReplaceServices { entries, ranges } => {
                self.entries.clone_from(entries);
                self.ranges.clone_from(ranges);
            }
            MapOp::WriteTable { table, members, places } => {
                let slot = TableSlot { members: Some(members.clone()), places: places.clone() };
                self.tables[*table as usize] = Some(slot);
            }
            MapOp::SetForward { service, forward, switched_ns } => {
                let place = &mut self.forwards[*service as usize];
                if place.table != forward.table {
                    self.switched_ns[*service as usize] = *switched_ns;
                }
                *place = *forward;
            }
            MapOp::FreeService { service } => {
                self.service_names[*service as usize] = None;
                self.forwards[*service as usize] = ServiceForward::FREE;
                self.limits[*service as usize] = ServiceLimits::UNLIMITED;
                self.cookies[*service as usize] = CookiePolicy::OFF;
            }
            MapOp::NamePool { pool, name } => self.pool_names[*pool as usize] = name.as_str().map(str::to_owned),
            MapOp::FreePool { pool } => self.pool_names[*pool as usize] = None,
            MapOp::SetBackend { slot, entry } => self.backends[*slot as usize] = *entry,
            MapOp::SetServerId { key, backend } => {
                self.server_ids.insert(*key, *backend);
            }
            MapOp::RemoveServerId { key } => {
                self.server_ids.remove(key);
            }
            MapOp::SetTier { tier } => self.tier.clone_from(tier),
            MapOp::AddRoute { vip } => {
                self.routes.insert(*vip);
            }
            MapOp::RemoveRoute { vip } => {
                self.routes.remove(vip);
            }
        }
    }
}
