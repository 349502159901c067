//! TCP (RFC 9293) and UDP (RFC 768), as far as ports and flags.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Packet, TCP, Transport};
use crate::verdict::Reason;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Tcp {
    source_port: U16,
    destination_port: U16,
    _sequence: [u8; 4],
    _acknowledgement: [u8; 4],
    header_words: u8,
    flags: u8,
    _window: U16,
    _checksum: U16,
    _urgent: U16,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Udp {
    source_port: U16,
    destination_port: U16,
    length: U16,
    _checksum: U16,
}

const FIN_BIT: u32 = 0;
const RST_BIT: u32 = 2;
const SYN_BIT: u32 = 1;
const ACK_BIT: u32 = 4;

/// `end` is where the IP datagram ends, which may be before the frame does.
#[inline(always)]
pub(super) fn parse(packet: &impl Packet, offset: usize, end: usize, protocol: u8) -> Result<Transport, Reason> {
    let transport = if protocol == TCP { tcp(packet, offset, end) } else { udp(packet, offset, end, end) };
    transport.ok_or(Reason::BadTransportHeader)
}

/// The same of a first fragment, of which `end` is the end: the data may go on behind it, the header may not.
#[inline(always)]
pub(super) fn parse_first(packet: &impl Packet, offset: usize, end: usize, protocol: u8) -> Result<Transport, Reason> {
    let transport = if protocol == TCP { tcp(packet, offset, end) } else { udp(packet, offset, end, usize::MAX) };
    transport.ok_or(Reason::BadTransportHeader)
}

#[inline(always)]
fn tcp(packet: &impl Packet, offset: usize, end: usize) -> Option<Transport> {
    if offset + size_of::<Tcp>() > end {
        return None;
    }
    let header = packet.load::<Tcp>(offset)?;
    let header_bytes = (header.header_words >> 4) as usize * 4;
    if header_bytes < size_of::<Tcp>() || offset + header_bytes > end {
        return None;
    }
    Some(Transport {
        source_port: header.source_port.get(),
        destination_port: header.destination_port.get(),
        opens_connection: opens_connection(header.flags),
        closes_connection: closes_connection(header.flags),
        offset,
    })
}

/// SYN without ACK. In arithmetic rather than by comparison: a comparison is a branch on the target, and the verifier
/// would follow each of its ways through all of the program.
#[inline(always)]
const fn opens_connection(flags: u8) -> bool {
    (flags >> SYN_BIT & !(flags >> ACK_BIT)) & 1 != 0
}

/// FIN or RST; in arithmetic for the same reason.
#[inline(always)]
const fn closes_connection(flags: u8) -> bool {
    (flags >> FIN_BIT | flags >> RST_BIT) & 1 != 0
}

/// `data_end` bounds the datagram's own length, `end` its header.
#[inline(always)]
fn udp(packet: &impl Packet, offset: usize, end: usize, data_end: usize) -> Option<Transport> {
    if offset + size_of::<Udp>() > end {
        return None;
    }
    let header = packet.load::<Udp>(offset)?;
    let length_bytes = header.length.get() as usize;
    if length_bytes < size_of::<Udp>() || offset + length_bytes > data_end {
        return None;
    }
    Some(Transport {
        source_port: header.source_port.get(),
        destination_port: header.destination_port.get(),
        opens_connection: false,
        closes_connection: false,
        offset,
    })
}
