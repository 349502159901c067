//! NAT: packets to a backend that knows nothing of VIPs, and its answers.
//!
//! The backend sees an address and a port of this host, so that its answers come back here whatever its routes are.

mod error;
mod new;
mod reply;
mod table;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::nat::{Place, Segment, after_client, gives_way_to_syn, translate};
use lb_common::parse::{Headers, Packet, TCP, Transport};
use lb_common::service::{NAT_REPLIES, Service};
use lb_common::types::{BackendEntry, BackendState, Forward, NatKey, NatSlot, ServiceForward};
use lb_common::{Reason, SlowPath, Stop};

use crate::end::end;
use crate::flow::Picked;
use crate::maps::scratch::Effort;
use crate::maps::{self, scratch};
use crate::packet::XdpPacket;
use crate::{count, flow, way};
use table::Found;

type Outcome = Result<(Reason, u32), Stop>;

/// Admitted packets of services whose packets are rewritten.
#[xdp(frags)]
pub(crate) fn lb_nat(context: XdpContext) -> u32 {
    end(&context, process(&context))
}

/// First packets, after [`lb_nat`], which goes on with them.
#[xdp(frags)]
pub(crate) fn lb_nat_new(context: XdpContext) -> u32 {
    end(&context, new::process(&context))
}

/// Packets to where backends answer.
#[xdp(frags)]
pub(crate) fn lb_nat_reply(context: XdpContext) -> u32 {
    end(&context, reply::process(&context))
}

/// ICMP errors about what was rewritten, after [`crate::programs::lb_icmp_error`].
#[xdp(frags)]
pub(crate) fn lb_nat_error(context: XdpContext) -> u32 {
    end(&context, error::process(&context))
}

/// Leads on what comes to an address and port where backends answer.
#[inline(always)]
pub(crate) fn divert_reply(service: &Service, headers: &Headers, transport: &Transport) -> Result<(), Stop> {
    if service.number != NAT_REPLIES {
        return Ok(());
    }
    scratch::write(headers, transport).ok_or(Reason::InternalError)?;
    Err(Stop::Slow(SlowPath::NatReply))
}

/// Leads on what must be rewritten for its backend.
#[inline(always)]
pub(crate) fn divert(forward: &ServiceForward) -> Result<(), Stop> {
    if forward.forward != NAT {
        return Ok(());
    }
    scratch::write_effort(Effort { is_done: false, is_new: false }).ok_or(Reason::InternalError)?;
    Err(Stop::Slow(SlowPath::Nat))
}

/// The same in the fast program, which has written nothing down yet.
#[inline(always)]
pub(crate) fn divert_admitted(
    service: &Service,
    forward: &ServiceForward,
    headers: &Headers,
    transport: &Transport,
    admitted: Reason,
) -> Result<(), Stop> {
    if forward.forward != NAT {
        return Ok(());
    }
    scratch::write_admission(service.number, admitted == Reason::Prioritised).ok_or(Reason::InternalError)?;
    scratch::write(headers, transport).ok_or(Reason::InternalError)?;
    divert(forward)
}

/// Is the service one whose packets are rewritten?
#[inline(always)]
pub(crate) fn is_of(forward: &ServiceForward) -> bool {
    forward.forward == NAT
}

const NAT: u8 = Forward::Nat.to_number();
const HEALTHY: u8 = BackendState::Healthy.to_number();
const DRAINING: u8 = BackendState::Draining.to_number();

/// To the backend that the connection has. One that it has no more, and a connection that is not known, are for
/// [`new::process`], which comes back here.
#[inline(always)]
fn process(context: &XdpContext) -> Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let (service, prioritised) = scratch::read_admission().ok_or(Reason::InternalError)?;
    let effort = scratch::read_effort().ok_or(Reason::InternalError)?;
    let Some(found) = table::find(&key(&headers, &transport)) else {
        return begin(&headers, &transport, effort, Reason::NatUnknown);
    };
    let forward = maps::forward(service).ok_or(Reason::InternalError)?;
    let backend = match backend(&found, forward, &headers, &transport) {
        Some(backend) => backend,
        None => return begin(&headers, &transport, effort, Reason::NoBackend),
    };
    if headers.length_bytes > backend.mtu_bytes as u32 {
        return Err(Stop::Reason(Reason::TooBigForBackend));
    }
    let way = way::to(context, backend)?;
    note_segment(context, &headers, &transport, &found);
    note_link(context, &found);
    let slot = found.slot;
    let mut packet = XdpPacket::new(context);
    translate(&mut packet, &place(&headers, &transport), &slot.client_ends(), &slot.backend_ends())
        .ok_or(Reason::BadTransportHeader)?;
    way.address_packet(&mut packet).ok_or(Reason::NoRoom)?;
    count::forwarded(
        &Picked { number: slot.backend_number, backend, hash: 0, is_new: effort.is_new, is_prioritised: false },
        &headers,
    );
    Ok((if prioritised { Reason::Prioritised } else { Reason::Admitted }, way.take(context)))
}

/// What TCP does not begin with is refused for `reason`, and so is what was begun in vain.
#[inline(always)]
fn begin(headers: &Headers, transport: &Transport, effort: Effort, reason: Reason) -> Outcome {
    if effort.is_done || headers.protocol == TCP && !transport.opens_connection {
        return Err(Stop::Reason(reason));
    }
    Err(Stop::Slow(SlowPath::NatNew))
}

#[inline(always)]
fn key(headers: &Headers, transport: &Transport) -> NatKey {
    NatKey::of(&flow::connection(headers, transport))
}

/// The connection's backend, if it is still there and takes this packet.
#[inline(always)]
fn backend(
    found: &Found,
    forward: &ServiceForward,
    headers: &Headers,
    transport: &Transport,
) -> Option<&'static BackendEntry> {
    let backend = maps::backend(found.slot.backend_number)?;
    let takes_it = match backend.state {
        HEALTHY => true,
        // A SYN of a connection that never came to be, or has ended, begins another one.
        DRAINING => !transport.opens_connection || !gives_way_to_syn(found.word),
        // Where all of a pool are down, they are tried all the same.
        _ => flow::anew(forward, headers, transport)?.number == found.slot.backend_number,
    };
    (takes_it && is_at(backend, found.slot)).then_some(backend)
}

/// Slots of backends change hands; the address does not.
#[inline(always)]
fn is_at(backend: &BackendEntry, slot: &NatSlot) -> bool {
    let ([a, b], [c, d]) = (backend.address.halves(), slot.backend.halves());
    (a ^ c) | (b ^ d) | (backend.port ^ slot.backend_port) as u64 == 0
}

#[inline(always)]
fn place(headers: &Headers, transport: &Transport) -> Place {
    Place {
        ip_offset: headers.link_bytes,
        is_v4: headers.source.is_v4(),
        transport_offset: transport.offset,
        protocol: headers.protocol,
        has_transport: headers.fragment.start_units == 0,
    }
}

/// `None` of what is no TCP header, or has none.
#[inline(always)]
fn segment(context: &XdpContext, headers: &Headers, transport: &Transport) -> Option<Segment> {
    const SEQUENCE: usize = 4;
    const ACKNOWLEDGEMENT: usize = 8;
    const FLAGS: usize = 13;
    if headers.protocol != TCP || headers.fragment.start_units != 0 {
        return None;
    }
    let packet = XdpPacket::new(context);
    Some(Segment {
        flags: packet.load(transport.offset + FLAGS)?,
        sequence: u32::from_be(packet.load(transport.offset + SEQUENCE)?),
        acknowledgement: u32::from_be(packet.load(transport.offset + ACKNOWLEDGEMENT)?),
    })
}

#[inline(always)]
fn note_segment(context: &XdpContext, headers: &Headers, transport: &Transport, found: &Found) {
    if let Some(segment) = segment(context, headers, transport) {
        table::change(found, |word| after_client(word, &segment, found.slot.backend_sequence));
    }
}

/// Remembers the way that the packet came, so that answers go back on it: the host's routes need not know the client.
#[inline(always)]
fn note_link(context: &XdpContext, found: &Found) {
    let Some([a, b, c, d, e, f]) = XdpPacket::new(context).load::<[u16; 6]>(0) else {
        return;
    };
    let word = |low: u16, high: u16| low as u32 | (high as u32) << 16;
    let (reply_link, interface) = ([word(d, e), word(f, a), word(b, c)], context.ingress_ifindex() as u32);
    let [x, y, z] = found.slot.reply_link;
    let differs = (x ^ reply_link[0]) | (y ^ reply_link[1]) | (z ^ reply_link[2]) | (found.slot.interface ^ interface);
    if differs != 0 {
        maps::nat::write_link(found.number, reply_link, interface);
    }
}
