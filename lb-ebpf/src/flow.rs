//! Which backend gets the packet: the one its flow has, or for a new flow the one its hash leads to.

use lb_common::flow::{Flow, bucket};
use lb_common::hash::{Connection, client_hash, connection_hash, flow_hash, maglev_place};
use lb_common::parse::{Headers, TCP, Transport, UDP};
use lb_common::types::{BackendEntry, BackendState, FlowBucket, Forward, HashBy, ServiceForward};
use lb_common::{Reason, Source};

use crate::{limits, maps};

/// A backend that may be sent to.
#[derive(Clone, Copy)]
pub(crate) struct Picked {
    pub(crate) number: u16,
    pub(crate) backend: &'static BackendEntry,
    /// Of the connection.
    pub(crate) hash: u64,
    /// The flow was not known before.
    pub(crate) is_new: bool,
    /// There were too many new flows, but the source of this one is verified.
    pub(crate) is_prioritised: bool,
}

/// Does the service end on this host? There the kernel knows its connections itself.
#[inline(always)]
pub(crate) fn is_local(forward: &ServiceForward) -> bool {
    forward.forward == LOCAL
}

const LOCAL: u8 = Forward::Local.to_number();

/// Where a packet's flow is looked for.
pub(crate) struct Place {
    hash: u64,
    flows: &'static mut FlowBucket,
}

/// `None` for a service that ends on this host. Asked for early, it begins to fetch what [`backend`] will read: in a flood
/// that line is far away, and so is the limiter's, and together they take no longer.
#[inline(always)]
pub(crate) fn place_of(forward: &ServiceForward, headers: &Headers, transport: &Transport) -> Option<Place> {
    if is_local(forward) {
        return None;
    }
    let hash = flow_hash(maps::connection_key(), &connection(headers, transport));
    Some(Place { hash, flows: maps::flows(bucket(hash))? })
}

#[inline(always)]
pub(crate) fn backend(
    place: Place,
    service: u16,
    forward: &ServiceForward,
    headers: &Headers,
    transport: &Transport,
) -> Result<Picked, Reason> {
    let Place { hash, flows } = place;
    match known(flows, hash, transport) {
        Some(picked) => Ok(picked),
        None => {
            let admitted = admit_new(service, headers)?;
            let picked = new(flows, hash, forward, &connection(headers, transport), transport)?;
            Ok(Picked { is_prioritised: admitted == Reason::Prioritised, ..picked })
        }
    }
}

/// Whose packet it is.
#[inline(always)]
pub(crate) fn connection(headers: &Headers, transport: &Transport) -> Connection {
    Connection {
        source: headers.source,
        destination: headers.destination,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        protocol: headers.protocol,
    }
}

/// The backend that a connection's packets go to, for a packet about it that is not one of its own: the flow, known or
/// not, stays as it was. `None` for a service that ends on this host.
#[inline(always)]
pub(crate) fn undisturbed(
    forward: &ServiceForward,
    headers: &Headers,
    transport: &Transport,
) -> Option<Result<Picked, Reason>> {
    if is_local(forward) {
        return None;
    }
    let connection = connection(headers, transport);
    let hash = flow_hash(maps::connection_key(), &connection);
    Some(stays(forward, &connection, hash, false).ok_or(Reason::NoBackend))
}

/// The backend that the packet itself will go to, and still nothing is changed.
#[inline(always)]
pub(crate) fn foreseen(forward: &ServiceForward, headers: &Headers, transport: &Transport) -> Option<Picked> {
    let connection = connection(headers, transport);
    let hash = flow_hash(maps::connection_key(), &connection);
    stays(forward, &connection, hash, transport.opens_connection)
}

#[inline(always)]
fn stays(forward: &ServiceForward, connection: &Connection, hash: u64, opens_connection: bool) -> Option<Picked> {
    let known = maps::flows(bucket(hash))?.find(hash).map(|flow| flow.backend);
    let (number, backend) = match known.and_then(|number| Some((number, maps::backend(number)?))) {
        Some((number, backend)) if matches!(backend.state, HEALTHY | DRAINING) => (number, backend),
        _ => pick(forward, table_place(forward, connection), connection.protocol, opens_connection)?,
    };
    Some(Picked { number, backend, hash, is_new: false, is_prioritised: false })
}

/// Gives the packet's flow to a backend that was found otherwise, whichever it had before. `None` if that backend is not
/// there to answer, or is another pool's by now.
#[inline(always)]
pub(crate) fn assigned(number: u16, pool: u16, headers: &Headers, transport: &Transport) -> Option<Picked> {
    let backend = maps::backend(number)?;
    if backend.pool != pool || !matches!(backend.state, HEALTHY | DRAINING) {
        return None;
    }
    let hash = flow_hash(maps::connection_key(), &connection(headers, transport));
    let flows = maps::flows(bucket(hash))?;
    match flows.find(hash) {
        Some(flow) if flow.backend == number => flows.confirm(flow),
        other => {
            if let Some(flow) = other {
                flows.forget(flow);
            }
            flows.insert(hash, number, maps::limiter_clock_seconds);
        }
    }
    Some(Picked { number, backend, hash, is_new: false, is_prioritised: false })
}

/// The backend for a flow that is new, and remembered elsewhere.
#[inline(always)]
pub(crate) fn anew(forward: &ServiceForward, headers: &Headers, transport: &Transport) -> Option<Picked> {
    let connection = connection(headers, transport);
    let (number, backend) = pick(forward, table_place(forward, &connection), connection.protocol, true)?;
    Some(Picked {
        number,
        backend,
        hash: flow_hash(maps::connection_key(), &connection),
        is_new: true,
        is_prioritised: false,
    })
}

/// The backend of a flow that is known, while it is there to answer.
#[inline(always)]
fn known(flows: &mut FlowBucket, hash: u64, transport: &Transport) -> Option<Picked> {
    let flow = flows.find(hash)?;
    // Which slot it is the verifier would follow each by itself.
    let flow = Flow { slots: maps::forget_number(flow.slots), ..flow };
    let backend = maps::backend(flow.backend)?;
    let takes_it = match backend.state {
        HEALTHY => true,
        // A SYN of a flow that never came to be, or has ended, begins another one.
        DRAINING => !transport.opens_connection || flows.is_confirmed(flow),
        _ => false,
    };
    if !takes_it {
        flows.forget(flow);
        return None;
    }
    if transport.closes_connection {
        flows.close(flow);
    } else if !transport.opens_connection {
        flows.confirm(flow);
    }
    Some(Picked { number: flow.backend, backend, hash, is_new: false, is_prioritised: false })
}

const HEALTHY: u8 = BackendState::Healthy.to_number();
const DRAINING: u8 = BackendState::Draining.to_number();

/// A flow of UDP begins with whatever packet of it comes first. One of TCP begins with a SYN, which was counted when it
/// was admitted: another packet of a connection that is not known here began elsewhere, or before a restart, and to count
/// it would cut off the clients of a load balancer that failed.
#[inline(always)]
pub(crate) fn admit_new(service: u16, headers: &Headers) -> Result<Reason, Reason> {
    match headers.protocol {
        UDP => limits::new_flow(&Source::of_address(headers.source), service),
        _ => Ok(Reason::Admitted),
    }
}

#[inline(always)]
fn new(
    flows: &mut FlowBucket,
    hash: u64,
    forward: &ServiceForward,
    connection: &Connection,
    transport: &Transport,
) -> Result<Picked, Reason> {
    let (number, backend) =
        pick(forward, table_place(forward, connection), connection.protocol, transport.opens_connection)
            .ok_or(Reason::NoBackend)?;
    flows.insert(hash, number, maps::limiter_clock_seconds);
    Ok(Picked { number, backend, hash, is_new: true, is_prioritised: false })
}

#[inline(always)]
fn table_place(forward: &ServiceForward, connection: &Connection) -> usize {
    maglev_place(match forward.hash_by {
        BY_SOURCE => client_hash(maps::connection_key(), connection.source),
        _ => connection_hash(maps::connection_key(), connection),
    })
}

const BY_SOURCE: u8 = HashBy::Source.to_number();

/// A connection that is not remembered, but did not begin with this packet either, goes where it went before the last
/// change of the backends, unless its backend is gone.
#[inline(always)]
fn pick(
    forward: &ServiceForward,
    place: usize,
    protocol: u8,
    opens_connection: bool,
) -> Option<(u16, &'static BackendEntry)> {
    if forward.previous_table != forward.table && protocol == TCP && !opens_connection {
        let number = maps::table_backend(forward.previous_table, place)?;
        let backend = maps::backend(number)?;
        if matches!(backend.state, HEALTHY | DRAINING) {
            return Some((number, backend));
        }
    }
    let number = maps::table_backend(forward.table, place)?;
    let backend = maps::backend(number)?;
    // A table is built of backends that are healthy; until the next one is there, one that died gets what it got.
    (backend.state != 0).then_some((number, backend))
}
