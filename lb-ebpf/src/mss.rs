//! A SYN on its way to a backend, of a service that lowers what SYNs announce.

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::mss::{lower, most};
use lb_common::parse::{Headers, Transport};
use lb_common::{Reason, SlowPath, Stop};

use crate::end::end;
use crate::maps::{self, scratch};
use crate::packet::XdpPacket;
use crate::{flow, forward, syn_cookie};

#[xdp(frags)]
pub(crate) fn lb_mss(context: XdpContext) -> u32 {
    end(&context, process(&context))
}

/// Goes back to [`SlowPath::Forward`]: to send the packet as well would be more than the stack holds.
#[inline(always)]
fn process(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    scratch::write_lowered().ok_or(Reason::InternalError)?;
    // What cannot be read or changed here is sent as it is: a header that goes on in another buffer, and a SYN that no
    // backend will get.
    let _ = lower_announced(context, &headers, &transport);
    Err(Stop::Slow(SlowPath::Forward))
}

#[inline(always)]
fn lower_announced(context: &XdpContext, headers: &Headers, transport: &Transport) -> Option<()> {
    let (_, walk) = syn_cookie::read(context, transport)?;
    let (service, _) = scratch::read_admission()?;
    let forward = maps::forward(service)?;
    let picked = flow::foreseen(forward, headers, transport)?;
    let fits_bytes = forward::fits_bytes(forward, picked.backend).ok()?;
    let most_bytes = most(forward.max_segment_bytes, fits_bytes, headers.source.is_v4());
    lower(&mut XdpPacket::new(context), transport.offset, &walk, most_bytes)
}
