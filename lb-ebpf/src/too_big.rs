//! A packet that does not fit the way to its backend: its sender is told what does (RFC 1191, RFC 8201), because nobody
//! else would tell it. Routers before us see it fit, and those behind would tell us, who did not send it.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::icmp::too_big::{
    FRONT_BYTES_4, FRONT_BYTES_6, QUOTED_BYTES_4, QUOTED_BYTES_6, front_4, front_6, is_worth_telling,
};
use lb_common::parse::{Headers, Packet, Transport};
use lb_common::{Reason, SlowPath, Source, Stop};

use crate::end::end;
use crate::limits;
use crate::maps::scratch;
use crate::packet::{Front, Tags, XdpPacket};

/// Notes how much would fit, for [`lb_too_big`].
#[inline(always)]
pub(crate) fn noted(fits_bytes: u16) -> Reason {
    match scratch::write_fits(fits_bytes) {
        Some(()) => Reason::TooBigForBackend,
        None => Reason::InternalError,
    }
}

/// Of a packet that could not be sent on, and is no error itself: nothing is ever told about those.
#[inline(always)]
pub(crate) fn tell(reason: Reason, headers: &Headers, transport: &Transport) -> Stop {
    match reason {
        Reason::TooBigForBackend if scratch::write(headers, transport).is_some() => Stop::Slow(SlowPath::TooBig),
        other => Stop::Reason(other),
    }
}

#[xdp(frags)]
pub(crate) fn lb_too_big(context: XdpContext) -> u32 {
    end(&context, process(&context))
}

#[inline(always)]
fn process(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let (headers, _) = scratch::read().ok_or(Reason::InternalError)?;
    let fits_bytes = scratch::read_fits().ok_or(Reason::InternalError)?;
    let is_group = XdpPacket::new(context).load::<u8>(0).ok_or(Reason::TooBigForBackend)? & 1 != 0;
    if is_group
        || !is_worth_telling(&headers.source, &headers.fragment, fits_bytes)
        || !limits::may_be_told(&Source::of_address(headers.source))
    {
        return Err(Stop::Reason(Reason::TooBigForBackend));
    }
    answer(context, &headers, fits_bytes).ok_or(Reason::NoRoom)?;
    Ok((Reason::TooBigAnswered, xdp_action::XDP_TX))
}

/// Turns the packet into the message: what is quoted stays where it is, the rest is cut off.
#[inline(always)]
fn answer(context: &XdpContext, headers: &Headers, fits_bytes: u16) -> Option<()> {
    let (vip, sender) = (&headers.destination, &headers.source);
    if sender.is_v4() {
        let quoted_sum = quote::<{ QUOTED_BYTES_4 / 4 }>(context, headers)?;
        before(context, headers, &front_4(vip, sender, fits_bytes, quoted_sum), FRONT_BYTES_4)
    } else {
        let quoted_sum = quote::<{ QUOTED_BYTES_6 / 4 }>(context, headers)?;
        before(context, headers, &front_6(vip, sender, fits_bytes, quoted_sum), FRONT_BYTES_6)
    }
}

/// Leaves so many words from the IP header on, and returns their sum.
#[inline(always)]
fn quote<const WORDS: usize>(context: &XdpContext, headers: &Headers) -> Option<u64> {
    let front = Front::resized(context, headers.link_bytes + WORDS * size_of::<u32>())?;
    front.sum_words::<WORDS>(headers.link_bytes)
}

/// Puts the Ethernet header back to front, and `words` behind it.
#[inline(always)]
fn before<const WORDS: usize>(
    context: &XdpContext,
    headers: &Headers,
    words: &[u32; WORDS],
    front_bytes: usize,
) -> Option<()> {
    let tags = Tags::read(context, headers.link_bytes);
    let [a, b, c, d, e, f] = XdpPacket::new(context).load::<[u16; 6]>(0)?;
    let front = Front::grown(context, front_bytes)?;
    let head = front.head(tags.link_bytes())?;
    head.store(0, [d, e, f, a, b, c]);
    tags.write(&head, headers.source.is_v4());
    front.store_words(tags.link_bytes(), words)
}
