//! Maglev tables: which service's connections lead to which backends, changed so that no packet sees half a table.
//!
//! A table is never changed while a service names it. A new one is written to a free slot; then one write to the
//! service's element of `FORWARDS` makes it the current one and the one before it the previous one, which stays until
//! [`PREVIOUS_FOR_NS`] have passed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::types::{BackendState, Forward, ServiceForward};

use super::{MapOp, PlanError, backends};
use crate::desired::{Desired, DesiredBackend, DesiredService};
use crate::maglev::{self, Member};

/// How long a service remembers the table before a change. A flow that the cache has lost, and that a packet other than
/// a SYN continues, is found in it: the time covers what idle flows lie in the cache at least before they give way, and
/// twice the pause that keep-alives of HTTP servers usually bridge.
pub(crate) const PREVIOUS_FOR_NS: u64 = 120_000_000_000;

/// [`ServiceForward::table`] of a service without any backend. No element of `TABLES` has this index.
pub(crate) const NO_TABLE: u16 = u16::MAX;

/// Distinct backend sets that services may have: one slot stays free, so that there always is one to write a change to.
fn most_tables(current: &TableState) -> usize {
    current.tables.len() - 1
}

/// A table in its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableSlot {
    /// What it was built from; `None` of one that an earlier run left.
    pub(crate) members: Option<Vec<Member>>,
    pub(crate) places: Arc<[u16]>,
}

/// By pool and address, the number in `BACKENDS`.
pub(super) type Numbers<'a> = BTreeMap<(&'a str, SocketAddr), u16>;

/// The changes to `TABLES` and `FORWARDS`. `indices` are the services' by name.
pub(super) fn plan(
    current: TableState,
    desired: &Desired,
    indices: &BTreeMap<&str, u16>,
    backends: &backends::Planned<'_>,
    now_ns: u64,
) -> Result<Vec<MapOp>, PlanError> {
    let (pools, numbers) = (&backends.pools, &backends.numbers);
    let sets = sets(desired, numbers);
    let named = desired.services.iter().filter_map(|service| sets.get(service.pool.as_deref()?));
    let (found, limit) =
        (named.filter(|members| !members.is_empty()).collect::<BTreeSet<_>>().len(), most_tables(&current));
    if found > limit {
        return Err(PlanError::TooMany { what: "different sets of backends", found, limit });
    }
    let mut planner = Planner { state: current, now_ns, ops: Vec::new() };
    planner.free_unnamed(indices);
    planner.end_windows();
    for service in &desired.services {
        let index = indices[service.name.as_str()];
        let members = service.pool.as_deref().and_then(|pool| sets.get(pool));
        let table = members.and_then(|members| planner.slot_of(members)).unwrap_or(NO_TABLE);
        let pool = service.pool.as_deref().map_or(0, |pool| pools[pool]);
        planner.point(index, service, pool, table);
    }
    Ok(planner.ops)
}

/// Who takes new flows, by pool: the healthy ones with a weight. Where there is none, a try is better than a certain
/// failure, and checks that fail everywhere at once may fail for a reason of their own: then all that are not draining,
/// and at last those too.
fn sets<'a>(desired: &'a Desired, numbers: &Numbers<'_>) -> BTreeMap<&'a str, Vec<Member>> {
    let mut pools: BTreeMap<&str, Vec<&DesiredBackend>> = BTreeMap::new();
    for backend in &desired.backends {
        pools.entry(&backend.pool).or_default().push(backend);
    }
    let members = |backends: &[&DesiredBackend], takes: fn(BackendState) -> bool| -> Vec<Member> {
        let taking = backends.iter().filter(|backend| takes(backend.state) && backend.weight > 0);
        let mut members: Vec<Member> = taking.map(|backend| member(backend, numbers)).collect();
        members.sort_unstable();
        members
    };
    let takers: [fn(BackendState) -> bool; 3] =
        [|state| state == BackendState::Healthy, |state| state != BackendState::Draining, |_| true];
    let best = |backends: &[&DesiredBackend]| {
        takers.into_iter().map(|takes| members(backends, takes)).find(|members| !members.is_empty()).unwrap_or_default()
    };
    pools.iter().map(|(pool, backends)| (*pool, best(backends))).collect()
}

fn member(backend: &DesiredBackend, numbers: &Numbers<'_>) -> Member {
    let address = super::backends::canonical(backend.address);
    Member { address, weight: backend.weight.into(), backend: numbers[&(backend.pool.as_str(), address)] }
}

/// What it plans, it does to `state` at once: a slot that one service leaves is free for the next.
struct Planner {
    state: TableState,
    now_ns: u64,
    ops: Vec<MapOp>,
}

/// The part of [`MapState`] that is about tables.
pub(super) struct TableState {
    pub(super) forwards: Vec<ServiceForward>,
    pub(super) switched_ns: Vec<u64>,
    pub(super) tables: Vec<Option<TableSlot>>,
}

impl Planner {
    /// Services that are gone hold no table any more; their elements are cleared where they are freed.
    fn free_unnamed(&mut self, indices: &BTreeMap<&str, u16>) {
        let kept: BTreeSet<u16> = indices.values().copied().collect();
        for (service, forward) in (0_u16..).zip(&mut self.state.forwards) {
            if !kept.contains(&service) {
                *forward = ServiceForward::FREE;
            }
        }
    }

    /// Forgets previous tables whose time is over.
    fn end_windows(&mut self) {
        for service in 0..self.state.forwards.len() {
            let is_over = self.now_ns.saturating_sub(self.state.switched_ns[service]) >= PREVIOUS_FOR_NS;
            if is_over {
                self.forget_previous(service);
            }
        }
    }

    fn forget_previous(&mut self, service: usize) {
        let forward = self.state.forwards[service];
        if forward.previous_table != forward.table {
            self.set(service as u16, ServiceForward { previous_table: forward.table, ..forward });
        }
    }

    /// The slot with the table of these members; writes it if there is none. `None` for nobody.
    fn slot_of(&mut self, members: &[Member]) -> Option<u16> {
        if members.is_empty() {
            return None;
        }
        let tables = &self.state.tables;
        let known =
            |slot: &Option<TableSlot>| slot.as_ref().is_some_and(|slot| slot.members.as_deref() == Some(members));
        if let Some(slot) = tables.iter().position(known) {
            return Some(slot as u16);
        }
        let places: Arc<[u16]> = maglev::build(members)?.into();
        let slot = match tables.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.places == places)) {
            Some(same) => same,
            None => {
                let free = self.free_slot()?;
                self.ops.push(MapOp::WriteTable {
                    table: free as u16,
                    members: members.to_vec(),
                    places: places.clone(),
                });
                free
            }
        };
        self.state.tables[slot] = Some(TableSlot { members: Some(members.to_vec()), places });
        Some(slot as u16)
    }

    /// A slot that no service names. If there is none, previous tables are forgotten, the oldest first.
    fn free_slot(&mut self) -> Option<usize> {
        loop {
            let is_named = |slot: usize| {
                let names = |forward: &ServiceForward| {
                    forward.forward != Forward::Local.to_number()
                        && [forward.table, forward.previous_table].contains(&(slot as u16))
                };
                self.state.forwards.iter().any(names)
            };
            if let Some(free) = (0..self.state.tables.len()).find(|slot| !is_named(*slot)) {
                return Some(free);
            }
            let with_previous = |service: &usize| {
                let forward = &self.state.forwards[*service];
                forward.table != forward.previous_table
            };
            let oldest = (0..self.state.forwards.len())
                .filter(with_previous)
                .min_by_key(|service| self.state.switched_ns[*service])?;
            self.forget_previous(oldest);
        }
    }

    /// Makes `table` the service's, and what it was the previous one.
    fn point(&mut self, index: u16, service: &DesiredService, pool: u16, table: u16) {
        let current = self.state.forwards[index as usize];
        let was_forwarding = current.forward != Forward::Local.to_number() && current.table != NO_TABLE;
        let previous_table = match (was_forwarding, current.table == table) {
            (true, false) if table != NO_TABLE => current.table,
            (true, true) => current.previous_table,
            _ => table,
        };
        let is_local = service.forward == Forward::Local;
        let wanted = ServiceForward {
            table: if is_local { 0 } else { table },
            previous_table: if is_local { 0 } else { previous_table },
            forward: service.forward.to_number(),
            hash_by: service.hash_by.to_number(),
            gue_port: if service.forward == Forward::Gue { service.gue_port } else { 0 },
            max_segment_bytes: service.max_segment_bytes,
            pool,
            quic_server_id_lengths: if is_local { 0 } else { service.quic.0 },
        };
        if wanted != current {
            self.set(index, wanted);
        }
    }

    fn set(&mut self, service: u16, forward: ServiceForward) {
        let switched_ns = self.now_ns;
        if self.state.forwards[service as usize].table != forward.table {
            self.state.switched_ns[service as usize] = switched_ns;
        }
        self.state.forwards[service as usize] = forward;
        self.ops.push(MapOp::SetForward { service, forward, switched_ns });
    }
}
