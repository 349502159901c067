//! What cookies need of a TCP header beyond its ports.

use zerocopy::byteorder::network_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::parse::{Packet, Transport};

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Tcp {
    _ports: [u8; 4],
    sequence: U32,
    acknowledgement: U32,
    header_words: u8,
    flags: u8,
}

/// A TCP header whose lengths [`crate::parse::parse`] has found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From the frame's start.
    pub offset: usize,
    pub header_bytes: usize,
    /// Ports and numbers in host order.
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

impl Segment {
    /// Of a packet that [`crate::parse::parse_ordinary`] has read.
    #[inline(always)]
    pub fn read(packet: &impl Packet, transport: &Transport) -> Option<Self> {
        let header = packet.load::<Tcp>(transport.offset)?;
        Some(Self {
            offset: transport.offset,
            header_bytes: (header.header_words >> 4) as usize * 4,
            source_port: transport.source_port,
            destination_port: transport.destination_port,
            sequence: header.sequence.get(),
            acknowledgement: header.acknowledgement.get(),
            flags: header.flags,
        })
    }

    /// A SYN and nothing else that contradicts it.
    #[inline(always)]
    pub const fn is_plain_syn(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == SYN
    }

    /// May it bring a cookie back? The first packet after the SYN-ACK does, and if that was lost the one with the first
    /// data, which repeats its numbers.
    #[inline(always)]
    pub const fn may_bring_cookie(&self) -> bool {
        self.flags & (SYN | ACK | RST) == ACK
    }

    /// The header alone, as far as the kernel's cookie helpers read it, with a maximum segment size as its only option:
    /// words in network order. 0 is read as none.
    #[inline(always)]
    pub const fn in_brief(&self, max_segment_bytes: u16) -> [u32; 6] {
        const WORDS: u32 = 6;
        const MSS_OPTION: u32 = 0x0204_0000;
        let ports = (self.source_port as u32) << 16 | self.destination_port as u32;
        let flags = WORDS << 28 | (self.flags as u32) << 16;
        let option = MSS_OPTION | max_segment_bytes as u32;
        [ports.to_be(), self.sequence.to_be(), self.acknowledgement.to_be(), flags.to_be(), 0, option.to_be()]
    }
}
