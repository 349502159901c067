//! Backends: a server keeps its slot as long as it exists, so that whoever holds the number holds the server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lb_common::types::{BackendEntry, BackendState};

use super::tables::Numbers;
use super::{MapOp, MapState, PlanError, assign, name_of};
use crate::desired::{Desired, DesiredBackend};

type Key = (u16, SocketAddr);

/// What happens before tables name backends, and what after they have let go of them.
pub(super) struct Planned<'a> {
    pub(super) written: Vec<MapOp>,
    pub(super) freed: Vec<MapOp>,
    /// Indices by name.
    pub(super) pools: BTreeMap<&'a str, u16>,
    pub(super) numbers: Numbers<'a>,
}

pub(super) fn plan<'a>(current: &MapState, desired: &'a Desired) -> Result<Planned<'a>, PlanError> {
    let pools = assign("pools", &current.pool_names, desired.backends.iter().map(|backend| backend.pool.as_str()))?;
    let mut written = Vec::new();
    for (pool, index) in &pools {
        let name = name_of("pool", pool)?;
        if current.pool_names[*index as usize].as_deref() != Some(*pool) {
            written.push(MapOp::NamePool { pool: *index, name });
        }
    }
    let wanted: BTreeMap<Key, &DesiredBackend> = desired
        .backends
        .iter()
        .map(|backend| ((pools[backend.pool.as_str()], canonical(backend.address)), backend))
        .collect();
    let slots = slots(current, &wanted)?;
    for (key, backend) in &wanted {
        let slot = slots[key];
        let entry = entry(&current.backends[slot as usize], key, backend);
        if current.backends[slot as usize] != entry {
            written.push(MapOp::SetBackend { slot, entry });
        }
    }
    let mut freed = freed_backends(current, &slots);
    let is_gone = |index: &usize| !pools.values().any(|kept| *kept as usize == *index);
    let named = (0..current.pool_names.len()).filter(|index| current.pool_names[*index].is_some());
    freed.extend(named.filter(is_gone).map(|index| MapOp::FreePool { pool: index as u16 }));
    let number = |backend: &'a DesiredBackend| {
        let (pool, address) = (backend.pool.as_str(), canonical(backend.address));
        ((pool, address), slots[&(pools[pool], address)] as u16)
    };
    let numbers = desired.backends.iter().map(number).collect();
    Ok(Planned { written, freed, pools, numbers })
}

fn freed_backends(current: &MapState, slots: &BTreeMap<Key, u32>) -> Vec<MapOp> {
    let kept: BTreeSet<u32> = slots.values().copied().collect();
    let last = current.backends.iter().map(|entry| entry.freed_order).max().unwrap_or(0);
    let gone = (0..).zip(&current.backends).filter(|(slot, entry)| is_used(entry) && !kept.contains(slot));
    let freed = (last + 1..).zip(gone).map(|(freed_order, (slot, _))| {
        let entry = BackendEntry { freed_order, ..BackendEntry::FREE };
        MapOp::SetBackend { slot, entry }
    });
    freed.collect()
}

/// Who stays keeps the slot. New ones get slots that were never used, then the one that was freed first, and only then
/// one whose backend leaves with this very change: flows may still name it.
fn slots(current: &MapState, wanted: &BTreeMap<Key, &DesiredBackend>) -> Result<BTreeMap<Key, u32>, PlanError> {
    let mut slots = BTreeMap::new();
    for (slot, entry) in (0..).zip(&current.backends) {
        if let Some(key) = key(entry).filter(|key| wanted.contains_key(key)) {
            slots.entry(key).or_insert(slot);
        }
    }
    let taken: BTreeSet<u32> = slots.values().copied().collect();
    let mut free: Vec<u32> = (0..current.backends.len() as u32).filter(|slot| !taken.contains(slot)).collect();
    free.sort_by_key(|slot| {
        let entry = &current.backends[*slot as usize];
        (is_used(entry), entry.freed_order, *slot)
    });
    let mut free = free.into_iter();
    for key in wanted.keys().filter(|key| !slots.contains_key(key)).copied().collect::<Vec<_>>() {
        let (found, limit) = (wanted.len(), current.backends.len());
        slots.insert(key, free.next().ok_or(PlanError::TooMany { what: "backends", found, limit })?);
    }
    Ok(slots)
}

fn is_used(entry: &BackendEntry) -> bool {
    BackendState::from_number(entry.state).is_some()
}

/// The way to the backend stays what it is: finding it is a matter of its own.
fn entry(current: &BackendEntry, (pool, address): &Key, backend: &DesiredBackend) -> BackendEntry {
    let known = key(current) == Some((*pool, *address));
    BackendEntry {
        address: address.ip().into(),
        port: address.port(),
        pool: *pool,
        state: backend.state.to_number(),
        weight: backend.weight,
        ..if known { *current } else { BackendEntry::FREE }
    }
}

fn key(entry: &BackendEntry) -> Option<Key> {
    BackendState::from_number(entry.state)?;
    Some((entry.pool, SocketAddr::new(entry.address.into(), entry.port)))
}

/// The maps know neither scope nor flow label, and hold a mapped IPv4 address as IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
