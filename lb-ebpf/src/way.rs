//! The way to a backend: the next hop's Ethernet address and the interface that leads there.
#![expect(unsafe_code, reason = "the kernel's routes are asked through a helper that fills a structure of its own")]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_fib_lookup, xdp_action};
use aya_ebpf::helpers::{bpf_fib_lookup as ask_kernel, bpf_redirect};
use aya_ebpf::programs::XdpContext;
use lb_common::parse::PacketMut;
use lb_common::types::{BackendEntry, NatSlot};
use lb_common::{Address, Reason};

use crate::maps;
use crate::packet::{Head, XdpPacket};

#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// The next hop's Ethernet address and ours, one after the other as in the frame.
    pub(crate) addresses: (u64, u32),
    pub(crate) interface: u32,
}

/// User space resolves the way and keeps it fresh; while it has not, the kernel's routes and neighbours are asked.
#[inline(always)]
pub(crate) fn to(context: &XdpContext, backend: &BackendEntry) -> Result<Way, Reason> {
    if backend.interface == 0 {
        return from_kernel(context, backend.address).ok_or(Reason::NoWayToBackend);
    }
    Ok(Way { addresses: maps::link_addresses(backend), interface: backend.interface })
}

impl Way {
    /// The way that a connection's packets came, back.
    #[inline(always)]
    pub(crate) fn back(slot: &NatSlot) -> Self {
        let [first, second, third] = slot.reply_link;
        Self { addresses: (first as u64 | (second as u64) << 32, third), interface: slot.interface }
    }

    /// Writes the two addresses at the start of the frame.
    #[inline(always)]
    pub(crate) fn address(&self, head: &Head) {
        head.store(0, self.addresses.0);
        head.store(8, self.addresses.1);
    }

    /// The same in a frame that other bytes are written to as well.
    #[inline(always)]
    pub(crate) fn address_packet(&self, packet: &mut XdpPacket) -> Option<()> {
        packet.store(0, self.addresses.0)?;
        packet.store(8, self.addresses.1)
    }

    /// The XDP action that sends the frame.
    #[inline(always)]
    pub(crate) fn take(&self, context: &XdpContext) -> u32 {
        if self.interface == context.ingress_ifindex() as u32 {
            return xdp_action::XDP_TX;
        }
        // SAFETY: a helper without pointers.
        (unsafe { bpf_redirect(self.interface, 0) }) as u32
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SUCCESS: i64 = 0;

/// As the kernel's routes and neighbours say for a packet that came in here and goes to `destination`. `None` while they do not
/// know, or the host forwards nothing (`ip_forward`).
#[inline(never)]
pub(crate) fn from_kernel(context: &XdpContext, destination: Address) -> Option<Way> {
    // SAFETY: a plain structure of numbers.
    let mut request: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    request.ifindex = context.ingress_ifindex() as u32;
    if destination.is_v4() {
        request.family = AF_INET;
        request.__bindgen_anon_4.ipv4_dst = destination.words_be[3];
    } else {
        request.family = AF_INET6;
        request.__bindgen_anon_4.ipv6_dst = destination.words_be;
    }
    // SAFETY: the helper reads and writes no more than the structure's size.
    let answer = unsafe { ask_kernel(context.as_ptr(), &raw mut request, size_of::<bpf_fib_lookup>() as i32, 0) };
    if answer != SUCCESS {
        return None;
    }
    // Byte by byte: the compiler would make wider loads, and the verifier takes none across words of the stack.
    // SAFETY: the structure is initialised as a whole.
    let byte = |place: *const [u8; 6], index: usize| unsafe { place.cast::<u8>().add(index).read_volatile() };
    let theirs = |index| byte(&raw const request.dmac, index) as u64;
    let ours = |index| byte(&raw const request.smac, index) as u64;
    let next_hop = theirs(0) | theirs(1) << 8 | theirs(2) << 16 | theirs(3) << 24 | theirs(4) << 32 | theirs(5) << 40;
    let rest = ours(2) | ours(3) << 8 | ours(4) << 16 | ours(5) << 24;
    Some(Way { addresses: (next_hop | ours(0) << 48 | ours(1) << 56, rest as u32), interface: request.ifindex })
}
