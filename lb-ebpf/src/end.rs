//! How a packet's way through any program ends: counted once, with an XDP action, or in another program.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use lb_common::slow_path::Stop;
use lb_common::{Reason, Verdict};

use crate::{count, log, maps, sample};

/// The one place where a reason becomes a verdict. `Ok` has the XDP action beside the reason.
#[inline(always)]
pub(crate) fn end(context: &XdpContext, outcome: Result<(Reason, u32), Stop>) -> u32 {
    let (reason, action) = match outcome {
        Ok((reason, action)) => (reason, action),
        Err(Stop::Reason(reason)) if reason.verdict() == Verdict::Drop => (reason, xdp_action::XDP_DROP),
        Err(Stop::Reason(reason)) => (reason, xdp_action::XDP_PASS),
        Err(Stop::Slow(path)) => {
            maps::go_on_in(context, path);
            (Reason::InternalError, xdp_action::XDP_PASS)
        }
    };
    let packets = count::outcome(reason);
    if action == xdp_action::XDP_DROP {
        log::drop(context, reason, packets);
        sample::dropped(context, reason);
    } else {
        sample::let_in(context, reason, action, packets);
    }
    action
}
