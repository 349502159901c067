//! The only writer of services, backends and routes.

use std::io;

use lb_common::DropClass;
use lb_common::maps::{MAX_SERVICES, MAX_TABLES, MAX_WORKERS, worker_socket_index};
use lb_common::service::EMPTY;
use lb_common::syn_cookie::SynCookies;
use lb_common::types::{
    BackendCounters, BackendEntry, Control, CookieCounters, CookiePolicy, CookieState, Name, ServiceCounters,
    ServiceDrops, ServiceForward, SharedClocks, SharedReserves,
};
use lb_common::vip::{MAX_RANGES, VipPrefix};

use crate::clock::monotonic_ns;
use crate::desired::Desired;
use crate::error::{ApplyError, MapError};
use crate::kernel_tcp::CookieSetting;
use crate::limits::Machine;
use crate::load::Datapath;
use crate::maps::Maps;
use crate::migrate::named_tables;
use crate::nat;
use crate::plan::{MapOp, MapState, Now, PlanError, TableSlot, build_table, order, plan};
use crate::publish::{half, publish, table_range};
use crate::route::Routes;
use crate::tunnels;
use crate::way;

/// What applying did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// In the order they were made; empty if the maps were already right.
    pub changes: Vec<MapOp>,
    /// New VIPs whose local route this process may no longer add because it has dropped its capabilities. Their packets
    /// are not accepted until a restart.
    pub unrouted: Vec<VipPrefix>,
}

impl Datapath {
    /// Makes the maps and routes say what `desired` says. After an error, applying again completes the change.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, ApplyError> {
        let nat_addresses = self.nat_addresses(desired);
        let now = Now {
            workers: &self.workers,
            machine: Machine::this(),
            monotonic_ns: monotonic_ns(),
            nat_addresses: &nat_addresses,
            nat_blocks: self.maps.nat_words.length(),
        };
        let ops = plan(&self.state, &self.possible(desired), now)?;
        self.desired = desired.clone();
        self.look_at_ways(true);
        self.look_at_own_addresses(true);
        let mut applied = Applied::default();
        for op in ops {
            let op = self.with_way(op);
            match self.carry_out(&op) {
                Ok(()) => {
                    self.state.record(&op);
                    applied.changes.push(op);
                }
                Err(error) => match (op, error) {
                    (MapOp::AddRoute { vip }, ApplyError::Route { source, .. }) if is_denied(&source) => {
                        applied.unrouted.push(vip);
                    }
                    // It stays until unload, which finds it by its mark.
                    (MapOp::RemoveRoute { .. }, ApplyError::Route { source, .. }) if is_denied(&source) => {}
                    (_, error) => return Err(error),
                },
            }
        }
        Ok(applied)
    }

    /// Without cookies where the kernel takes none: whoever was answered with one would wait in vain.
    fn possible(&self, desired: &Desired) -> Desired {
        let mut possible = desired.clone();
        if self.kernel_tcp.cookies == CookieSetting::Never {
            possible.services.iter_mut().for_each(|service| service.syn_cookies = SynCookies::Off);
        }
        possible
    }

    /// Brings about what is due because time has passed; to be called every second or so.
    pub fn tend(&mut self) -> Result<Applied, ApplyError> {
        self.look_at_interfaces();
        self.look_at_ways(false);
        self.look_at_own_addresses(false);
        if !self.state.is_window_over(monotonic_ns()) && !self.has_new_nat_address() {
            return Ok(Applied::default());
        }
        let desired = self.desired.clone();
        self.apply(&desired)
    }

    /// Follows the ways to the backends that are forwarded to, if there is news, or it was long ago, or `now`. A way that
    /// cannot be found out is no failure: the kernel is asked packet by packet then.
    fn look_at_ways(&mut self, now: bool) {
        let MapState { pool_names, backends, .. } = &self.state;
        let forwarded = way::forwarded(&self.desired, pool_names, (0..).zip(backends));
        let looked = match self.ways.is_due() {
            Ok(due) if due || now => self.ways.look(forwarded.into_iter()),
            Ok(_) => return,
            Err(error) => Err(error),
        };
        let changed = looked.unwrap_or_else(|error| {
            tracing::warn!(%error, "the ways to the backends could not be found out; trying again");
            Vec::new()
        });
        for (slot, entry) in changed {
            match self.maps.backends.set(slot, &entry) {
                Ok(()) => self.state.backends[slot as usize] = entry,
                Err(error) => tracing::warn!(%error, "the way to a backend could not be written; trying again"),
            }
        }
    }

    /// A new backend comes with its way: a table may name it the moment after.
    fn with_way(&mut self, op: MapOp) -> MapOp {
        let MapOp::SetBackend { slot, entry } = op else { return op };
        let pool_names = &self.state.pool_names;
        let new = way::forwarded(&self.desired, pool_names, [(slot, &entry)].into_iter());
        let mut found =
            if entry.mtu_bytes == 0 { self.ways.look(new.into_iter()).unwrap_or_default() } else { Vec::new() };
        MapOp::SetBackend { slot, entry: found.pop().map_or(entry, |(_, entry)| entry) }
    }

    fn carry_out(&mut self, op: &MapOp) -> Result<(), ApplyError> {
        let maps = &mut self.maps;
        match op {
            MapOp::NameService { service, name } => maps.service_names.set((*service).into(), name)?,
            MapOp::SetLimits { service, limits } => maps.limits.set((*service).into(), limits)?,
            MapOp::LimitNewFlows { limit } => {
                self.control.new_flows = *limit;
                maps.control.set(0, &self.control)?;
            }
            MapOp::Sample { policy } => maps.sample_policy.set(0, policy)?,
            MapOp::SetCookies { service, policy } => maps.cookie_policies.set((*service).into(), policy)?,
            MapOp::SetNat { policy } => {
                nat::warn_of_ephemeral_ports((policy.first_port, policy.last_port));
                maps.nat_policy.set(0, policy)?;
            }
            MapOp::ReplaceServices { entries, ranges } => {
                let table = build_table(entries).ok_or(PlanError::TooMany {
                    what: "VIP and port entries",
                    found: entries.len(),
                    limit: entries.len().saturating_sub(1),
                })?;
                publish(maps, &mut self.control, &table, ranges)?;
            }
            MapOp::WriteTable { table, places, .. } => maps.tables.set(*table, places)?,
            MapOp::SetForward { service, forward, .. } => maps.forwards.set((*service).into(), forward)?,
            MapOp::FreeService { service } => free_service(maps, *service)?,
            MapOp::NamePool { pool, name } => maps.pool_names.set((*pool).into(), name)?,
            MapOp::FreePool { pool } => maps.pool_names.set((*pool).into(), &NO_NAME)?,
            MapOp::SetBackend { slot, entry } => {
                if *slot >= self.control.backends_end {
                    self.control.backends_end = *slot + 1;
                    maps.control.set(0, &self.control)?;
                }
                set_backend(maps, *slot, entry, &self.state.backends[*slot as usize])?;
            }
            MapOp::SetServerId { key, backend } => maps.server_ids.set(key, *backend)?,
            MapOp::RemoveServerId { key } => maps.server_ids.remove(key)?,
            MapOp::SetTier { tier } => tunnels::set(maps, tier.as_ref())?,
            MapOp::AddRoute { vip } => self.routes.add(*vip).map_err(route_error("add", *vip))?,
            MapOp::RemoveRoute { vip } => self.routes.remove(*vip).map_err(route_error("remove", *vip))?,
        }
        Ok(())
    }
}

const NO_NAME: Name = Name { bytes: [0; Name::MAX_BYTES] };

/// A slot that changes hands starts to count anew.
fn set_backend(maps: &mut Maps, slot: u32, entry: &BackendEntry, before: &BackendEntry) -> Result<(), MapError> {
    if (entry.address, entry.port, entry.pool) != (before.address, before.port, before.pool) {
        maps.backend_stats.set_all(slot, &BackendCounters { packets: 0, bytes: 0, new_flows: 0 })?;
    }
    maps.backends.set(slot, entry)
}

fn free_service(maps: &mut Maps, service: u16) -> Result<(), MapError> {
    let index = u32::from(service);
    maps.service_names.set(index, &NO_NAME)?;
    maps.shared_clocks.set(index, &SharedClocks { packets_ps: 0, syns_ps: 0, bytes_ps: 0, unused: [0; 5] })?;
    maps.shared_reserves.set_all(index, &SharedReserves { packets: 0, syns: 0, bytes: 0 })?;
    maps.forwards.set(index, &ServiceForward::FREE)?;
    let no_counts = ServiceCounters { admitted_packets: 0, admitted_bytes: 0, admitted_syns: 0, dropped_packets: 0 };
    maps.service_stats.set_all(index, &no_counts)?;
    maps.service_drops.set_all(index, &ServiceDrops { packets: [0; DropClass::COUNT] })?;
    maps.cookie_policies.set(index, &CookiePolicy::OFF)?;
    maps.cookie_states.set(index, &CookieState::NONE)?;
    maps.cookie_stats.set_all(index, &CookieCounters::NONE)?;
    maps.nat_stats.set_all(index, &nat::NO_COUNTS)?;
    for worker in 0..MAX_WORKERS as u16 {
        for socket in [false, true].into_iter().filter_map(|ipv6| worker_socket_index(service, ipv6, worker)) {
            maps.sockets.clear(socket)?;
        }
    }
    Ok(())
}

fn route_error(action: &'static str, vip: VipPrefix) -> impl FnOnce(io::Error) -> ApplyError {
    move |source| ApplyError::Route { action, vip, source }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// What an earlier run left in the maps, or nothing in fresh ones.
pub(crate) fn read_state(maps: &Maps, control: &Control, routes: &Routes) -> Result<MapState, crate::LoadError> {
    let slots = maps.services.range(table_range(control.active_table.min(1)))?;
    let mut entries: Vec<_> = slots.into_iter().filter(|entry| entry.kind != EMPTY).collect();
    entries.sort_by_key(order);
    let names = |names: Vec<Name>| names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    let ranges_count = entries.iter().map(|entry| entry.ranges_start + entry.ranges_count).max().unwrap_or(0);
    let ranges = half(control.active_table.min(1), MAX_RANGES).take(ranges_count.into());
    let forwards = maps.forwards.all()?;
    let mut state = MapState {
        service_names: names(maps.service_names.all()?),
        limits: maps.limits.all()?,
        new_flows: control.new_flows,
        sampling: maps.sample_policy.get(0)?,
        cookies: maps.cookie_policies.all()?,
        nat: maps.nat_policy.get(0)?,
        entries,
        ranges: ranges.map(|index| maps.ranges.get(index)).collect::<Result<_, _>>()?,
        tables: read_tables(maps, &forwards)?,
        // When an earlier run changed a table is not known: its time begins anew.
        switched_ns: vec![monotonic_ns(); forwards.len()],
        forwards,
        pool_names: names(maps.pool_names.all()?),
        backends: maps.backends.all()?,
        server_ids: maps.server_ids.all()?,
        tier: tunnels::read(maps)?,
        routes: routes.ours().map_err(|error| crate::LoadError::system("list the local routes", error))?,
    };
    // Limits of a freed index stay in the map, and mean nothing.
    for service in 0..MAX_SERVICES {
        if state.service_names[service].is_none() {
            state.limits[service] = MapState::empty().limits[service];
        }
    }
    Ok(state)
}

/// The tables that services name.
fn read_tables(maps: &Maps, forwards: &[ServiceForward]) -> Result<Vec<Option<TableSlot>>, MapError> {
    let mut tables = vec![None; MAX_TABLES];
    for (table, places) in maps.tables.read(&named_tables(forwards))? {
        tables[table as usize] = Some(TableSlot { members: None, places: places.into() });
    }
    Ok(tables)
}
