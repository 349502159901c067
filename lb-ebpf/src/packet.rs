//! The frame under the XDP program. All reads and writes of packet bytes are here.
#![expect(unsafe_code, reason = "packet bytes are reached by raw pointers; the verifier checks every access")]

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use lb_common::parse::{Packet, PacketMut};

pub(crate) struct XdpPacket {
    start: usize,
    end: usize,
    /// Bytes in further buffers, which cannot be read here.
    elsewhere_bytes: usize,
}

/// The verifier only accepts a variable packet offset whose upper bound it knows. Two tags, IPv6 and seven extension
/// headers of 2,048 bytes stay below it.
const MAX_OFFSET: usize = 0x7fff;

impl XdpPacket {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self { start: context.data(), end: context.data_end(), elsewhere_bytes: 0 }
    }

    /// With what a jumbo frame has in further buffers counted in. Asking is a call: off the fast path only.
    #[inline(always)]
    pub(crate) fn whole(context: &XdpContext) -> Self {
        let packet = Self::new(context);
        // SAFETY: the context is the program's own.
        let length_bytes = unsafe { bpf_xdp_get_buff_len(context.ctx) } as usize;
        let elsewhere_bytes = length_bytes.saturating_sub(unrelated(packet.end - packet.start));
        Self { elsewhere_bytes, ..packet }
    }
}

impl XdpPacket {
    /// Where a whole `T` is. The end is kept from the compiler, which would move a constant to the side of `data_end`,
    /// where the verifier allows no arithmetic.
    #[inline(always)]
    fn place<T>(&self, offset: usize) -> Option<usize> {
        if offset > MAX_OFFSET {
            return None;
        }
        let place = self.start + offset;
        (unrelated(place + size_of::<T>()) <= self.end).then_some(place)
    }
}

/// The first bytes of the frame, to be written.
pub(crate) struct Front {
    start: usize,
    end: usize,
}

impl Front {
    #[inline(always)]
    pub(crate) fn of(context: &XdpContext) -> Self {
        Self { start: context.data(), end: context.data_end() }
    }

    /// `None` if the frame is shorter.
    #[inline(always)]
    pub(crate) fn head(&self, bytes: usize) -> Option<Head> {
        (self.start + bytes <= self.end).then_some(Head { start: self.start })
    }

    /// Makes `bytes` of room before the frame. What was read of the packet before stays true; pointers do not.
    #[inline(always)]
    pub(crate) fn grown(context: &XdpContext, bytes: usize) -> Option<Self> {
        // SAFETY: the helper checks the room itself.
        let failure = unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), -(bytes as i32)) };
        (failure == 0).then(|| Self::of(context))
    }

    /// Takes `bytes` away from before the frame. What was read of the packet before stays true; pointers do not.
    #[inline(always)]
    pub(crate) fn shortened(context: &XdpContext, bytes: usize) -> Option<Self> {
        // SAFETY: the helper checks that an Ethernet header is left.
        let failure = unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), bytes as i32) };
        (failure == 0).then(|| Self::of(context))
    }

    /// Both Ethernet addresses, as they are written with two stores.
    #[inline(always)]
    pub(crate) fn addresses(packet: &XdpPacket) -> Option<(u64, u32)> {
        Some((packet.load::<u64>(0)?, packet.load::<u32>(8)?))
    }

    /// Gives the frame so many bytes, new ones zero at its end. What was read of the packet before stays true; pointers
    /// do not.
    #[inline(always)]
    pub(crate) fn resized(context: &XdpContext, frame_bytes: usize) -> Option<Self> {
        let raw = context.as_ptr().cast();
        // SAFETY: the helper only reads.
        let grown_bytes = frame_bytes as i64 - unsafe { bpf_xdp_get_buff_len(raw) } as i64;
        // SAFETY: the helper checks the room itself.
        if grown_bytes != 0 && unsafe { bpf_xdp_adjust_tail(raw, grown_bytes as i32) } != 0 {
            return None;
        }
        Some(Self::of(context))
    }

    /// Back to where it came from.
    #[inline(always)]
    pub(crate) fn swap_ethernet_addresses(&self, packet: &XdpPacket) -> Option<()> {
        let [a, b, c, d, e, f] = packet.load::<[u16; 6]>(0)?;
        self.store(0, [d, e, f, a, b, c])
    }

    /// The sum of words at `offset` for a checksum; `None` if they do not all lie inside the frame.
    #[inline(always)]
    pub(crate) fn sum_words<const WORDS: usize>(&self, offset: usize) -> Option<u64> {
        if offset > MAX_OFFSET {
            return None;
        }
        let place = self.start + offset;
        if place + WORDS * size_of::<u32>() > self.end {
            return None;
        }
        let (mut sum, mut index) = (0, 0);
        while index < WORDS {
            // SAFETY: all the words lie between `data` and `data_end`.
            sum += unsafe { ((place + index * size_of::<u32>()) as *const u32).read_unaligned() } as u64;
            index += 1;
        }
        Some(sum)
    }

    /// Writes whole headers at `offset`; `None` if they would not lie inside the frame.
    #[inline(always)]
    pub(crate) fn store_words<const WORDS: usize>(&self, offset: usize, words: &[u32; WORDS]) -> Option<()> {
        if offset > MAX_OFFSET {
            return None;
        }
        let place = self.start + offset;
        if place + WORDS * size_of::<u32>() > self.end {
            return None;
        }
        let mut index = 0;
        while index < WORDS {
            // SAFETY: all the words lie between `data` and `data_end`.
            unsafe { ((place + index * size_of::<u32>()) as *mut u32).write_unaligned(words[index]) };
            index += 1;
        }
        Some(())
    }

    /// Writes `value` at `offset`; `None` if it would not lie inside the frame.
    #[inline(always)]
    pub(crate) fn store<T: zerocopy::IntoBytes>(&self, offset: usize, value: T) -> Option<()> {
        if offset > MAX_OFFSET {
            return None;
        }
        let place = self.start + offset;
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: all of it lies between `data` and `data_end`.
        unsafe { core::ptr::write_unaligned(place as *mut T, value) };
        Some(())
    }
}

/// The first bytes of a frame, as many as were asked for: one comparison for all that is written there.
pub(crate) struct Head {
    start: usize,
}

impl Head {
    /// The verifier refuses the program if it could write more than was asked for.
    #[inline(always)]
    pub(crate) fn store<T: zerocopy::IntoBytes>(&self, offset: usize, value: T) {
        // SAFETY: the verifier checks that all of it lies between `data` and what was compared with `data_end`.
        unsafe { core::ptr::write_unaligned((self.start + offset) as *mut T, value) };
    }
}

/// The VLAN tags of a frame, to be written before other bytes.
pub(crate) struct Tags {
    words: [u32; 2],
    count: usize,
}

const ADDRESSES_BYTES: usize = 12;
const TAG_BYTES: usize = 4;
pub(crate) const ETHERNET_BYTES: usize = 14;

impl Tags {
    /// The tags of a frame whose Ethernet header, with them, has `link_bytes`.
    #[inline(always)]
    pub(crate) fn read(context: &XdpContext, link_bytes: usize) -> Self {
        if link_bytes == ETHERNET_BYTES {
            return Self { words: [0; 2], count: 0 };
        }
        let packet = XdpPacket::new(context);
        let word = |index: usize| packet.load::<u32>(ADDRESSES_BYTES + TAG_BYTES * index).unwrap_or(0);
        // Numbers that the verifier knows: each is an offset of all that is written after the tags.
        let count = if link_bytes == ETHERNET_BYTES + TAG_BYTES { 1 } else { 2 };
        Self { words: [word(0), word(1)], count }
    }

    /// Of the Ethernet header with them.
    #[inline(always)]
    pub(crate) fn link_bytes(&self) -> usize {
        ETHERNET_BYTES + TAG_BYTES * self.count
    }

    /// Writes them and the EtherType after them.
    #[inline(always)]
    pub(crate) fn write(&self, head: &Head, is_ipv4: bool) {
        let ether_type: u16 = if is_ipv4 { 0x0800 } else { 0x86dd };
        let mut offset = ADDRESSES_BYTES;
        if self.count > 0 {
            head.store(offset, self.words[0]);
            offset += TAG_BYTES;
        }
        if self.count > 1 {
            head.store(offset, self.words[1]);
            offset += TAG_BYTES;
        }
        head.store(offset, ether_type.to_be());
    }
}

/// Up to 63 bytes of the packet in one piece, zeros behind them. A call where many loads would be many paths for the
/// verifier.
#[inline(always)]
pub(crate) fn copy(context: &XdpContext, offset: usize, bytes: usize) -> Option<[u64; 8]> {
    // Words: bytes would be cleared one by one.
    let mut buffer = [0_u64; 8];
    // The verifier must see the bound right before the call.
    let bytes = unrelated(bytes) & 63;
    if bytes == 0 {
        return Some(buffer);
    }
    // SAFETY: the helper writes no more than `bytes` into the larger buffer, and checks the packet's bounds itself.
    let failure =
        unsafe { bpf_xdp_load_bytes(context.as_ptr().cast(), offset as u32, buffer.as_mut_ptr().cast(), bytes as u32) };
    (failure == 0).then_some(buffer)
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn length_bytes(&self) -> usize {
        unrelated(self.end - self.start) + self.elsewhere_bytes
    }

    #[inline(always)]
    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let place = self.place::<T>(offset)?;
        // SAFETY: the whole value lies between `data` and `data_end`, and any bytes make a `T: FromBytes`.
        Some(unsafe { core::ptr::read_unaligned(place as *const T) })
    }
}

impl PacketMut for XdpPacket {
    #[inline(always)]
    fn store<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, offset: usize, value: T) -> Option<()> {
        let place = self.place::<T>(offset)?;
        // SAFETY: the whole value lies between `data` and `data_end`; nothing else refers to these bytes.
        unsafe { core::ptr::write_unaligned(place as *mut T, value) };
        Some(())
    }
}

/// The same number, but the compiler no longer knows where it came from. Otherwise it concludes from a check against
/// the length that the check against `data_end` in [`XdpPacket::load`] is superfluous, and leaves it out; the verifier
/// wants to see that very check.
#[inline(always)]
pub(crate) fn unrelated(number: usize) -> usize {
    let mut number = number;
    // SAFETY: one instruction that moves a register to itself.
    unsafe {
        core::arch::asm!("{number} = {number}", number = inout(reg) number, options(nomem, nostack, preserves_flags));
    }
    number
}
