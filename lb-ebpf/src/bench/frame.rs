//! Frames: written by the driver, read by the floor.
#![expect(unsafe_code, reason = "packet bytes and map elements are reached by raw pointers; the verifier checks them")]

use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use aya_ebpf::{EbpfContext, Global};

/// Frame bytes from two before its start, in words: so every word of the IP header, and what stands together in it,
/// lies in one word. A program that read across two fresh stores would wait for both, as it never does for a packet
/// that a network card wrote.
const WORDS: usize = 10;

#[btf_map]
static TEMPLATE: Array<[u64; WORDS], 1> = Array::new();
#[btf_map]
static PACKETS: Array<u64, 1> = Array::new();
#[btf_map]
static SUBJECT: ProgramArray<1> = ProgramArray::new();

/// Set before loading: the verifier knows them as constants and removes the branches not taken.
///
/// Bytes of the template's frame.
#[unsafe(no_mangle)]
static FRAME_BYTES: Global<u32> = Global::new(60);
#[unsafe(no_mangle)]
static IS_IPV6: Global<u32> = Global::new(0);
/// Bits, in network order, of the source address (the second word of an IPv6 one) that change with each packet; they
/// are 0 in the template.
#[unsafe(no_mangle)]
static VARIED_BITS: Global<u32> = Global::new(0);
/// Likewise of the first word of an IPv6 source; other bits than the second word's only if those change too.
#[unsafe(no_mangle)]
static VARIED_FIRST_BITS: Global<u32> = Global::new(0);

#[btf_map]
static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn count_arrival() {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: a per-CPU element; XDP runs are not preempted by another XDP run on the same CPU.
        unsafe { *arrived += 1 };
    }
}

const ETHERNET_BYTES: usize = 14;
const IPV4_TCP_BYTES: usize = 54;
const IPV6_TCP_BYTES: usize = 74;

/// Makes the packet the next one of its kind; `None` if it cannot be given its length.
#[inline(always)]
pub(crate) fn rewrite(context: &XdpContext) -> Option<()> {
    restore_length(context)?;
    let template = TEMPLATE.get(0)?;
    let drawn = if VARIED_BITS.load() == 0 { 0 } else { draw()? };
    if IS_IPV6.load() == 0 {
        write_ipv4(context, template, drawn & VARIED_BITS.load())
    } else {
        write_ipv6(context, template, drawn)
    }
}

/// Runs the measured program in place of this one; returns only if there is none.
#[inline(always)]
pub(crate) fn tail_call_subject(context: &XdpContext) {
    // SAFETY: nothing here waits to be dropped.
    unsafe { SUBJECT.tail_call(context, 0) }
}

/// A subject that put headers before the packet, or took some off, moved its start.
#[inline(always)]
fn restore_length(context: &XdpContext) -> Option<()> {
    let grown_bytes = (context.data_end() - context.data()) as i64 - FRAME_BYTES.load() as i64;
    if grown_bytes == 0 {
        return Some(());
    }
    // SAFETY: the helper checks the room itself.
    let failure = unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), grown_bytes as i32) };
    (failure == 0).then_some(())
}

/// Another number each time, for 2^32 times, in an order that no prefetcher foresees: each step can be undone.
#[inline(always)]
fn draw() -> Option<u32> {
    let packets = PACKETS.get_ptr_mut(0)?;
    // SAFETY: an element of an array map never goes away; one CPU at a time runs the bench.
    let number = unsafe {
        *packets += 1;
        *packets as u32
    };
    let number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
    let number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
    Some(number ^ number >> 16)
}

/// The varied bits are in the source address, which both checksums cover.
#[inline(always)]
fn write_ipv4(context: &XdpContext, template: &[u64; WORDS], varied: u32) -> Option<()> {
    let start = writable(context, IPV4_TCP_BYTES)?;
    let with_source = raise_checksum(template[3], 16, varied) | (varied as u64) << 32;
    let with_checksum = raise_checksum(template[6], 32, varied);
    // SAFETY: all of it lies in the bytes that `writable` found.
    unsafe {
        write_ethernet(start, template);
        write(start + 14, template[2]);
        write(start + 22, with_source);
        write(start + 30, template[4]);
        write(start + 38, template[5]);
        write(start + 46, with_checksum);
    }
    Some(())
}

/// The varied bits are in the second word of the source address, still in its /64, and in the first.
#[inline(always)]
fn write_ipv6(context: &XdpContext, template: &[u64; WORDS], drawn: u32) -> Option<()> {
    let start = writable(context, IPV6_TCP_BYTES)?;
    let varied = drawn & VARIED_BITS.load();
    let varied_first = drawn.wrapping_mul(0x9e37_79b1).rotate_left(16) & VARIED_FIRST_BITS.load();
    let with_checksum = raise_checksum(raise_checksum(template[9], 0, varied), 0, varied_first);
    // SAFETY: as above.
    unsafe {
        write_ethernet(start, template);
        write(start + 14, template[2]);
        write(start + 22, template[3] | (varied as u64) << 32 | varied_first as u64);
        write(start + 30, template[4]);
        write(start + 38, template[5]);
        write(start + 46, template[6]);
        write(start + 54, template[7]);
        write(start + 62, template[8]);
        write(start + 70, with_checksum as u32);
    }
    Some(())
}

/// `word` with the checksum at `shift` of a packet in which `varied` was added to a field of zeros (RFC 1624 §3).
#[inline(always)]
fn raise_checksum(word: u64, shift: u32, varied: u32) -> u64 {
    if VARIED_BITS.load() == 0 {
        return word;
    }
    let sum = (!(word >> shift) & 0xffff) + (varied & 0xffff) as u64 + (varied >> 16) as u64;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    word & !(0xffff << shift) | (!sum & 0xffff) << shift
}

/// The packet's start, if it has that many bytes.
#[inline(always)]
fn writable(context: &XdpContext, bytes: usize) -> Option<usize> {
    (context.data() + bytes <= context.data_end()).then_some(context.data())
}

/// # Safety
/// There are 14 bytes at `start`.
#[inline(always)]
unsafe fn write_ethernet(start: usize, template: &[u64; WORDS]) {
    // SAFETY: by this function's contract. The first word's two bytes too many are overwritten by the second.
    unsafe {
        write(start, template[0] >> 16);
        write(start + 6, template[1]);
    }
}

/// # Safety
/// There are as many bytes at `place` as `T` has.
#[inline(always)]
unsafe fn write<T>(place: usize, value: T) {
    // SAFETY: by this function's contract.
    unsafe { core::ptr::write_unaligned(place as *mut T, value) }
}

/// Reads what a forwarder must know of TCP or UDP in IPv4 without options, or in IPv6 without extension headers, and folds it
/// into one number; `None` for any other packet.
#[inline(always)]
pub(crate) fn parse(context: &XdpContext) -> Option<u64> {
    const IPV4: u16 = 0x0800_u16.to_be();
    const IPV6: u16 = 0x86dd_u16.to_be();
    let start = writable(context, IPV4_TCP_BYTES)?;
    // SAFETY: `writable` found the bytes up to the end of what is read.
    unsafe {
        match read::<u16>(start + 12) {
            IPV4 => parse_ipv4(start + ETHERNET_BYTES),
            IPV6 => parse_ipv6(writable(context, IPV6_TCP_BYTES)? + ETHERNET_BYTES),
            _ => None,
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// # Safety
/// There are 40 bytes at `header`.
#[inline(always)]
unsafe fn parse_ipv4(header: usize) -> Option<u64> {
    const VERSION_AND_LENGTH: u8 = 0x45;
    const FRAGMENT_BITS: u16 = 0x3fff_u16.to_be();
    // SAFETY: by this function's contract.
    unsafe {
        let is_fragment = read::<u16>(header + 6) & FRAGMENT_BITS != 0;
        if read::<u8>(header) != VERSION_AND_LENGTH || is_fragment || !matches!(read::<u8>(header + 9), TCP | UDP) {
            return None;
        }
        let addresses = (read::<u32>(header + 12) ^ read::<u32>(header + 16)) as u64;
        Some(addresses ^ parse_tcp(header + 20))
    }
}

/// # Safety
/// There are 60 bytes at `header`.
#[inline(always)]
unsafe fn parse_ipv6(header: usize) -> Option<u64> {
    // SAFETY: by this function's contract.
    unsafe {
        if read::<u8>(header) >> 4 != 6 || !matches!(read::<u8>(header + 6), TCP | UDP) {
            return None;
        }
        let source = read::<u64>(header + 8) ^ read::<u64>(header + 16);
        let destination = read::<u64>(header + 24) ^ read::<u64>(header + 32);
        Some(source ^ destination ^ parse_tcp(header + 40))
    }
}

/// # Safety
/// There are 20 bytes at `header`.
#[inline(always)]
unsafe fn parse_tcp(header: usize) -> u64 {
    // SAFETY: by this function's contract.
    unsafe { (read::<u32>(header) as u64) << 8 ^ read::<u8>(header + 13) as u64 }
}

/// # Safety
/// There are as many bytes at `place` as `T` has, and any bytes make a `T`.
#[inline(always)]
unsafe fn read<T>(place: usize) -> T {
    // SAFETY: by this function's contract.
    unsafe { core::ptr::read_unaligned(place as *const T) }
}
