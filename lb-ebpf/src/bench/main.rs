//! The bench of the packet path: never part of the object that is shipped.
//!
//! The kernel's runner does not restore a packet between two runs, so a program that changed it would be timed on its
//! own output. `driver` therefore gives the packet its length and all its header bytes anew, then tail-calls the program
//! that is measured. The floor below which nothing can go is measured through the same driver.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod frame;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;

    use crate::frame;

    // All of them take fragmented packets, because the measured program does: a program array holds either kind, not
    // both.

    /// Writes the next packet and runs the subject on it. Aborts if the packet has lost its room or no subject is set.
    #[xdp(frags)]
    pub(crate) fn driver(context: XdpContext) -> u32 {
        if frame::rewrite(&context).is_some() {
            frame::tail_call_subject(&context);
        }
        xdp_action::XDP_ABORTED
    }

    /// The least that a forwarder does: reads addresses, ports and flags of a TCP packet, and sends it back.
    #[xdp(frags)]
    pub(crate) fn floor(context: XdpContext) -> u32 {
        match frame::parse(&context) {
            // Some use of what was read, or the compiler would leave the reading out.
            Some(digest) if digest != u64::MAX => xdp_action::XDP_TX,
            _ => xdp_action::XDP_DROP,
        }
    }

    /// Does nothing: alone it shows the runner's loop, behind the driver what the driver adds.
    #[xdp(frags)]
    pub(crate) fn bare(_context: XdpContext) -> u32 {
        xdp_action::XDP_TX
    }

    /// The end of the line: counts what arrives, and lets go of it.
    #[xdp(frags)]
    pub(crate) fn sink(_context: XdpContext) -> u32 {
        frame::count_arrival();
        xdp_action::XDP_DROP
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
