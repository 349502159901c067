//! Log lines for people who look for a lost packet. Only drops: a line costs more than judging a packet does, and a
//! level below debug removes these lines from the program when it is loaded.
#![expect(unsafe_code, reason = "a function that the verifier judges by itself must have its own name in the object")]

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::Reason;
use lb_common::parse::parse_addresses;

use crate::packet::XdpPacket;

/// Of a flood only every so many packets are worth a line.
const SAMPLE: u64 = 1 << 16;

/// One line at the 1st, 2nd, 4th, 8th … packet that a CPU drops for a reason, and then for each [`SAMPLE`]th: the first
/// ones are always seen, and no flood can make many lines.
#[inline(always)]
pub(crate) fn drop(context: &XdpContext, reason: Reason, packets: u64) {
    if packets & (packets - 1) == 0 || packets & (SAMPLE - 1) == 0 {
        lb_log_drop(context.ctx, reason as u64, packets);
    }
}

/// Global, and never inlined: what a line is put together in would take the stack of all that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_log_drop(context: *mut xdp_md, reason: u64, packets: u64) -> u64 {
    let context = XdpContext::new(context);
    let (Some(reason), Some((source, destination))) =
        (Reason::of_number(reason), parse_addresses(&XdpPacket::new(&context)))
    else {
        return 0;
    };
    debug!(
        &context,
        target: "xdp",
        "drop {} from {:i} to {:i}, {} so far on this CPU",
        reason.metric_name(),
        source.octets(),
        destination.octets(),
        packets
    );
    0
}
