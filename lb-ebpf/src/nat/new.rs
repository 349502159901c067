//! Connections that are new: a backend, a slot, and a port of ours.

use aya_ebpf::programs::XdpContext;
use lb_common::hash::connection_hash;
use lb_common::nat::{BLOCKS_TRIED, HELD, IS_REPLY, PORTS_TRIED, begun};
use lb_common::parse::{Headers, TCP, Transport};
use lb_common::types::{NatPolicy, NatSlot};
use lb_common::{Address, Reason, SlowPath, Stop};

use super::table::{self, Found};
use crate::count;
use crate::flow::{self, Picked};
use crate::maps::scratch::Effort;
use crate::maps::{self, nat, scratch};

/// Makes the state of a connection, and gives the packet back to [`super::process`], which finds it.
///
/// Both are written before a key leads there; the backend's key comes first, because taking it is taking the port. Of
/// two CPUs that make the same connection at once, one fails at the client's key and takes its own back.
#[inline(always)]
pub(crate) fn process(_: &XdpContext) -> super::Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let (service, _) = scratch::read_admission().ok_or(Reason::InternalError)?;
    let forward = maps::forward(service).ok_or(Reason::InternalError)?;
    let policy = nat::policy().ok_or(Reason::InternalError)?;
    flow::admit_new(service, &headers)?;
    let picked = flow::anew(forward, &headers, &transport).ok_or(Reason::NoBackend)?;
    if picked.backend.address.is_v4() != headers.source.is_v4() {
        return Err(Stop::Reason(Reason::NoBackend));
    }
    let key = super::key(&headers, &transport);
    let hash = connection_hash(maps::connection_key(), &flow::connection(&headers, &transport));
    let address = address(policy, &picked, hash)?;
    let now_steps = nat::now_steps();
    let number = match table::find(&key) {
        Some(found) => {
            // Another CPU was faster.
            if super::backend(&found, forward, &headers, &transport).is_some() || !take_over(&found, now_steps) {
                return back(false);
            }
            found.number
        }
        None => hold(policy, hash, now_steps).ok_or_else(|| refused(service, Reason::NatFull))?,
    };
    let mut slot = slot(&headers, &transport, &picked, service, address);
    let Some(port) = take_port(&mut slot, policy, hash ^ (now_steps as u64) << 8, number) else {
        nat::exchange(number, HELD | now_steps as u64, 0);
        return Err(Stop::Reason(refused(service, Reason::NatNoPort)));
    };
    slot.nat_port = port;
    nat::write_slot(number, &slot).ok_or(Reason::InternalError)?;
    nat::exchange(number, HELD | now_steps as u64, begun(headers.protocol == TCP, now_steps));
    let is_new = nat::insert(&key, number);
    if !is_new {
        withdraw(number, &slot);
        if nat::find(&key).is_none() {
            return Err(Stop::Reason(refused(service, Reason::NatFull)));
        }
    }
    back(is_new)
}

#[inline(always)]
fn back(is_new: bool) -> super::Outcome {
    scratch::write_effort(Effort { is_done: true, is_new }).ok_or(Reason::InternalError)?;
    Err(Stop::Slow(SlowPath::Nat))
}

#[inline(always)]
fn refused(service: u16, reason: Reason) -> Reason {
    count::nat_refused(service, reason);
    reason
}

/// The address of ours that the backend will see: one of the pool, or what the route to the backend prefers.
#[inline(always)]
fn address(policy: &NatPolicy, picked: &Picked, hash: u64) -> Result<Address, Reason> {
    let is_v4 = picked.backend.address.is_v4();
    let count = policy.addresses_count[!is_v4 as usize] as u32;
    if count == 0 {
        let source = picked.backend.tunnel_source;
        return if source.is_v4() == is_v4 { Ok(source) } else { Err(Reason::NoWayToBackend) };
    }
    let index = (((hash & 0xffff) as u32 * count) >> 16) as usize;
    policy.addresses[!is_v4 as usize].get(index).copied().ok_or(Reason::InternalError)
}

/// Takes the slot that the connection has, and whose backend is gone or whose end has come. `false` if another CPU did.
#[inline(always)]
fn take_over(found: &Found, now_steps: u32) -> bool {
    let is_taken = nat::exchange(found.number, found.word, HELD | now_steps as u64);
    if is_taken {
        forget(found.slot);
    }
    is_taken
}

/// Takes a slot that is free.
#[inline(always)]
fn hold(policy: &NatPolicy, hash: u64, now_steps: u32) -> Option<u32> {
    let held = HELD | now_steps as u64;
    let mut attempt = 0;
    while attempt < BLOCKS_TRIED {
        if let Some((number, word)) = nat::free_in(policy.block(hash, attempt, now_steps), now_steps, policy)
            && nat::exchange(number, word, held)
        {
            if word & HELD != 0
                && let Some(slot) = nat::slot(number)
            {
                forget(slot);
            }
            return Some(number);
        }
        attempt += 1;
    }
    None
}

/// Removes the keys that lead to a slot that is held now.
#[inline(always)]
fn forget(slot: &NatSlot) {
    nat::remove(&slot.client_key());
    nat::remove(&slot.reply_key());
}

#[inline(always)]
fn withdraw(number: u32, slot: &NatSlot) {
    nat::remove(&slot.reply_key());
    if let Some(word) = nat::word(number) {
        nat::exchange(number, word, 0);
    }
}

#[inline(always)]
fn slot(headers: &Headers, transport: &Transport, picked: &Picked, service: u16, nat: Address) -> NatSlot {
    NatSlot {
        client: headers.source,
        vip: headers.destination,
        backend: picked.backend.address,
        nat,
        client_port: transport.source_port,
        vip_port: transport.destination_port,
        backend_port: picked.backend.port,
        nat_port: 0,
        backend_number: picked.number,
        service,
        protocol: headers.protocol,
        unused: [0; 3],
        backend_sequence: 0,
        interface: 0,
        reply_link: [0; 3],
        unused_too: 0,
    }
}

/// A port towards the backend that no other connection has: whose key could be inserted. `hash` changes as time goes by,
/// so that a packet that found none is not sent again in vain.
#[inline(always)]
fn take_port(slot: &mut NatSlot, policy: &NatPolicy, hash: u64, number: u32) -> Option<u16> {
    let mut key = slot.reply_key();
    let mut attempt = 0;
    while attempt < PORTS_TRIED {
        key.destination_port = policy.port(hash, attempt);
        if nat::insert(&key, number | IS_REPLY) {
            return Some(maps::forget_number(key.destination_port as u64) as u16);
        }
        attempt += 1;
    }
    None
}
