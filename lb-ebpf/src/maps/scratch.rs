//! What one program found out about a packet, for the one that goes on with it.
//!
//! After a walk over headers the verifier knows a packet's offsets in dozens of exact combinations, and would follow each
//! of them through the rest of the way, which it refuses once that is a million instructions. To the program that reads
//! them here they are any numbers, and all the combinations are one.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use lb_common::parse::{Fragment, Headers, Transport};
use lb_common::{Address, Listed};

use crate::way::Way;

const WORDS: usize = 30;

/// This CPU's alone while a packet is on its way: a tail call is not interrupted by another packet.
#[btf_map]
static SCRATCH: PerCpuArray<[u32; WORDS], 1> = PerCpuArray::new();

/// `None` only if the map is missing, as for all functions here.
#[inline(always)]
pub(crate) fn write(headers: &Headers, transport: &Transport) -> Option<()> {
    let words = Words::get()?;
    for index in 0..4 {
        words.write(index, headers.source.words_be[index]);
        words.write(4 + index, headers.destination.words_be[index]);
    }
    words.write(8, headers.traffic_class as u32);
    words.write(9, headers.link_bytes as u32);
    words.write(10, headers.protocol as u32);
    words.write(11, headers.length_bytes);
    words.write(12, headers.fragment.identification);
    words.write(13, headers.fragment.start_units as u32);
    words.write(14, headers.fragment.end_units as u32);
    words.write(15, transport.source_port as u32);
    words.write(16, transport.destination_port as u32);
    words.write(17, transport.opens_connection as u32);
    words.write(18, transport.closes_connection as u32);
    words.write(19, transport.offset as u32);
    Some(())
}

#[inline(always)]
pub(crate) fn read() -> Option<(Headers, Transport)> {
    let words = Words::get()?;
    let transport = Transport {
        source_port: words.read(15) as u16,
        destination_port: words.read(16) as u16,
        opens_connection: words.read(17) & 1 != 0,
        closes_connection: words.read(18) & 1 != 0,
        offset: words.read(19) as usize,
    };
    let headers = Headers {
        source: words.address(0),
        destination: words.address(4),
        traffic_class: words.read(8) as u8,
        link_bytes: words.read(9) as usize,
        protocol: words.read(10) as u8,
        length_bytes: words.read(11),
        transport: Ok(transport),
        fragment: Fragment {
            identification: words.read(12),
            start_units: words.read(13) as u16,
            end_units: words.read(14) as u16,
        },
    };
    Some((headers, transport))
}

/// Gives the packet the ports, and the protocol, of another.
#[inline(always)]
pub(crate) fn write_ports(protocol: u8, source_port: u16, destination_port: u16) -> Option<()> {
    let words = Words::get()?;
    words.write(10, protocol as u32);
    words.write(15, source_port as u32);
    words.write(16, destination_port as u32);
    Some(())
}

/// Says whose packet it is, and whether it was let in for its source's sake.
#[inline(always)]
pub(crate) fn write_admission(service: u16, prioritised: bool) -> Option<()> {
    let words = Words::get()?;
    words.write(20, service as u32);
    words.write(21, prioritised as u32);
    Some(())
}

#[inline(always)]
pub(crate) fn read_admission() -> Option<(u16, bool)> {
    let words = Words::get()?;
    Some((words.read(20) as u16, words.read(21) & 1 != 0))
}

/// Says that the SYN announces no more than it should, until [`write_admission`] begins with another packet.
#[inline(always)]
pub(crate) fn write_lowered() -> Option<()> {
    Words::get().map(|words| words.write(21, words.read(21) | LOWERED))
}

#[inline(always)]
pub(crate) fn is_lowered() -> bool {
    Words::get().is_some_and(|words| words.read(21) & LOWERED != 0)
}

const LOWERED: u32 = 1 << 1;

/// Of a source that no list denies: does one allow it?
#[inline(always)]
pub(crate) fn write_allowed(is_allowed: bool) -> Option<()> {
    Words::get().map(|words| words.write(22, is_allowed as u32))
}

#[inline(always)]
pub(crate) fn read_listed() -> Option<Listed> {
    Words::get().map(|words| if words.read(22) & 1 != 0 { Listed::Allowed } else { Listed::Unlisted })
}

/// Says how large a packet may be that does fit.
#[inline(always)]
pub(crate) fn write_fits(fits_bytes: u16) -> Option<()> {
    Words::get().map(|words| words.write(23, fits_bytes as u32))
}

#[inline(always)]
pub(crate) fn read_fits() -> Option<u16> {
    Words::get().map(|words| words.read(23) as u16)
}

/// What was done about the state of a packet's connection.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// It was looked for and made where it was wanting, so that no second try will bring more.
    pub(crate) is_done: bool,
    /// It was made on account of this very packet.
    pub(crate) is_new: bool,
}

#[inline(always)]
pub(crate) fn write_effort(effort: Effort) -> Option<()> {
    Words::get().map(|words| words.write(24, effort.is_done as u32 | (effort.is_new as u32) << 1))
}

#[inline(always)]
pub(crate) fn read_effort() -> Option<Effort> {
    Words::get().map(|words| {
        let bits = words.read(24);
        Effort { is_done: bits & 1 != 0, is_new: bits & 2 != 0 }
    })
}

/// Says whether the packet came out of a tunnel, so that what answers it must not go back where it came from.
#[inline(always)]
pub(crate) fn write_unpacked(is_unpacked: bool) -> Option<()> {
    Words::get().map(|words| words.write(25, is_unpacked as u32))
}

#[inline(always)]
pub(crate) fn is_unpacked() -> bool {
    Words::get().is_some_and(|words| words.read(25) != 0)
}

/// Says by which way an answer goes.
#[inline(always)]
pub(crate) fn write_way(way: &Way) -> Option<()> {
    let words = Words::get()?;
    words.write(26, way.addresses.0 as u32);
    words.write(27, (way.addresses.0 >> 32) as u32);
    words.write(28, way.addresses.1);
    words.write(29, way.interface);
    Some(())
}

#[inline(always)]
pub(crate) fn read_way() -> Option<Way> {
    let words = Words::get()?;
    let first = words.read(26) as u64 | (words.read(27) as u64) << 32;
    Some(Way { addresses: (first, words.read(28)), interface: words.read(29) })
}

struct Words {
    start: *mut u32,
}

impl Words {
    #[inline(always)]
    fn get() -> Option<Self> {
        SCRATCH.get_ptr_mut(0).map(|words| Self { start: words.cast() })
    }

    /// Volatile, or the compiler would keep the numbers in registers.
    #[inline(always)]
    fn write(&self, index: usize, word: u32) {
        // SAFETY: an element of a map never goes away, and the verifier checks that the index is inside it.
        unsafe { self.start.add(index).write_volatile(word) };
    }

    #[inline(always)]
    fn read(&self, index: usize) -> u32 {
        // SAFETY: as in `write`.
        unsafe { self.start.add(index).read_volatile() }
    }

    #[inline(always)]
    fn address(&self, index: usize) -> Address {
        Address { words_be: [self.read(index), self.read(index + 1), self.read(index + 2), self.read(index + 3)] }
    }
}
