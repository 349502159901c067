//! ICMP errors about what was rewritten: about what a backend sent, from somewhere on the way to the client, and about
//! what was sent to a backend, from it or from somewhere on the way there.

use aya_ebpf::programs::XdpContext;
use lb_common::nat::{Ends, ErrorPlace, translate_error};
use lb_common::parse::{Headers, Packet};
use lb_common::service::NAT_REPLIES;
use lb_common::types::NatSlot;
use lb_common::{Address, Reason, Stop};

use super::table;
use crate::maps::{self, scratch};
use crate::packet::XdpPacket;
use crate::way::{self, Way};

/// [`crate::icmp`] has noted the connection as its own packets would name it.
#[inline(always)]
pub(crate) fn process(context: &XdpContext) -> super::Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let key = super::key(&headers, &transport);
    let (service, _) = scratch::read_admission().ok_or(Reason::InternalError)?;
    let Some(found) = table::find(&key) else {
        // Where backends answer, the host may have a conversation of its own.
        return Err(Stop::Reason(if service == NAT_REPLIES { Reason::NatReplyUnknown } else { Reason::NatUnknown }));
    };
    let (slot, is_v4) = (found.slot, headers.source.is_v4());
    let way = if found.is_reply { Way::back(slot) } else { way_to_backend(context, slot)? };
    let mut packet = XdpPacket::new(context);
    let place = place(&packet, &headers, transport.offset, is_v4).ok_or(Reason::BadIcmp)?;
    let sender = sender(&packet, place.ip_offset, is_v4).ok_or(Reason::BadIcmp)?;
    // What is quoted goes the other way than the error.
    let (from, to) = if found.is_reply {
        (slot.backend_ends(), slot.client_ends())
    } else {
        (slot.client_ends().reversed(), slot.backend_ends().reversed())
    };
    let outer_old = Ends { source: sender, destination: from.source, source_port: 0, destination_port: 0 };
    let outer_new = Ends { source: to.destination, destination: to.source, source_port: 0, destination_port: 0 };
    translate_error(&mut packet, &place, [&outer_old, &outer_new], [&from, &to]).ok_or(Reason::BadIcmp)?;
    way.address_packet(&mut packet).ok_or(Reason::NoRoom)?;
    Ok((Reason::IcmpForwarded, way.take(context)))
}

#[inline(always)]
fn way_to_backend(context: &XdpContext, slot: &NatSlot) -> Result<Way, Reason> {
    let backend = maps::backend(slot.backend_number).ok_or(Reason::InternalError)?;
    if !super::is_at(backend, slot) {
        return Err(Reason::NoBackend);
    }
    way::to(context, backend)
}

#[inline(always)]
fn place(packet: &XdpPacket, headers: &Headers, icmp_offset: usize, is_v4: bool) -> Option<ErrorPlace> {
    const ICMP_BYTES: usize = 8;
    const IPV6_BYTES: usize = 40;
    // Two tags and a bare IPv6 header end before. The verifier must see a bound that sums keep: the compiler compares one
    // number and goes on with another.
    let icmp_offset = icmp_offset & 0x7f;
    let quoted = icmp_offset + ICMP_BYTES;
    let header_bytes = if is_v4 { (packet.load::<u8>(quoted)? & 0x0f) as usize * 4 } else { IPV6_BYTES };
    Some(ErrorPlace {
        ip_offset: headers.link_bytes,
        is_v4,
        icmp_offset,
        transport_offset: quoted + header_bytes,
        protocol: headers.protocol,
        end_offset: headers.link_bytes + headers.length_bytes as usize,
    })
}

/// A router, or a host.
#[inline(always)]
fn sender(packet: &XdpPacket, ip_offset: usize, is_v4: bool) -> Option<Address> {
    if is_v4 {
        return packet.load::<u32>(ip_offset + 12).map(Address::from_v4_word);
    }
    Some(Address { words_be: packet.load(ip_offset + 8)? })
}
