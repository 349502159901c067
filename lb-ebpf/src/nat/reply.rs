//! What backends answer.

use aya_ebpf::programs::XdpContext;
use lb_common::nat::{ANSWERED, after_backend, translate};
use lb_common::parse::{Headers, TCP, Transport};
use lb_common::{Reason, Stop};

use super::table::{self, Found};
use crate::count;
use crate::maps::{nat, scratch};
use crate::packet::XdpPacket;
use crate::way::Way;

/// Back to the client, from the VIP. What belongs to no connection is the host's.
#[inline(always)]
pub(crate) fn process(context: &XdpContext) -> super::Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let found = table::find(&super::key(&headers, &transport)).filter(|found| found.is_reply);
    let Some(found) = found else {
        return Err(Stop::Reason(Reason::NatReplyUnknown));
    };
    note_segment(context, &headers, &transport, &found);
    let slot = found.slot;
    let mut packet = XdpPacket::new(context);
    let (old, new) = (slot.backend_ends().reversed(), slot.client_ends().reversed());
    translate(&mut packet, &super::place(&headers, &transport), &old, &new).ok_or(Reason::BadTransportHeader)?;
    let way = Way::back(slot);
    way.address_packet(&mut packet).ok_or(Reason::NoRoom)?;
    count::nat_reply(slot.service, &headers);
    Ok((Reason::NatReply, way.take(context)))
}

#[inline(always)]
fn note_segment(context: &XdpContext, headers: &Headers, transport: &Transport, found: &Found) {
    if headers.protocol != TCP {
        return table::change(found, |word| word | ANSWERED);
    }
    let Some(segment) = super::segment(context, headers, transport) else {
        return;
    };
    if segment.is_answer() {
        // Before the word says so.
        nat::write_backend_sequence(found.number, segment.sequence);
    }
    table::change(found, |word| after_backend(word, &segment));
}
