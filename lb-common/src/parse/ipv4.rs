//! IPv4 (RFC 791).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Fragment, Headers, ICMP, Network, Packet, Quoted, TCP, UDP, transport};
use crate::address::Address;
use crate::decapsulation::is_ip_in_ip;
use crate::slow_path::{SlowPath, Stop};
use crate::verdict::Reason;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ipv4 {
    version_and_words: u8,
    service_type: u8,
    total_length: U16,
    identification: U16,
    flags_and_fragment_offset: U16,
    _time_to_live: u8,
    protocol: u8,
    _checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const WITHOUT_OPTIONS: u8 = 0x45;

impl Ipv4 {
    #[inline(always)]
    fn source(&self) -> Address {
        Address::from_v4_word(u32::from_ne_bytes(self.source))
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address::from_v4_word(u32::from_ne_bytes(self.destination))
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        self.flags_and_fragment_offset.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    #[inline(always)]
    fn is_bare(&self) -> bool {
        self.version_and_words == WITHOUT_OPTIONS && !self.is_fragment()
    }
}

/// A whole datagram with TCP or UDP right behind 20 bytes of header.
#[inline(always)]
pub(super) fn parse_ordinary(packet: &impl Packet, offset: usize) -> Result<Headers, Stop> {
    let header = packet.load::<Ipv4>(offset).ok_or(Reason::NotInspected)?;
    match header.protocol {
        TCP | UDP => {}
        ICMP if header.is_bare() => return Err(Stop::Slow(SlowPath::Icmp)),
        ICMP => return Err(Stop::Slow(SlowPath::Unusual)),
        protocol if is_ip_in_ip(protocol) => return Err(Stop::Slow(SlowPath::Unusual)),
        _ => return Err(Stop::Reason(Reason::NotInspected)),
    }
    if !header.is_bare() {
        return Err(Stop::Slow(SlowPath::Unusual));
    }
    let length_bytes = header.total_length.get();
    let end = offset + length_bytes as usize;
    let place = offset + size_of::<Ipv4>();
    // Shorter than its own header: a lie. Longer than what is here at once: a lie, or a jumbo frame in several buffers.
    if end < place || end > packet.length_bytes() {
        return Err(Stop::Slow(SlowPath::Unusual));
    }
    Ok(Headers {
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.service_type,
        link_bytes: offset,
        protocol: header.protocol,
        length_bytes: length_bytes as u32,
        transport: transport::parse(packet, place, end, header.protocol),
        fragment: Fragment::WHOLE,
    })
}

#[inline(always)]
pub(super) fn addresses(packet: &impl Packet, offset: usize) -> Option<(Address, Address)> {
    packet.load::<Ipv4>(offset).map(|header| (header.source(), header.destination()))
}

#[inline(always)]
pub(super) fn parse(packet: &impl Packet, offset: usize) -> Result<Network, Reason> {
    let header = packet.load::<Ipv4>(offset).ok_or(Reason::NotInspected)?;
    if header.version_and_words >> 4 != 4 {
        return Err(Reason::NotInspected);
    }
    let header_bytes = (header.version_and_words & 0x0f) as usize * 4;
    let transport_offset = offset + header_bytes;
    let end_offset = offset + header.total_length.get() as usize;
    let is_impossible = header_bytes < size_of::<Ipv4>() || transport_offset > end_offset;
    let (fragment, fault) = if is_impossible || end_offset > packet.length_bytes() {
        (Fragment::WHOLE, Some(Reason::BadIpHeader))
    } else {
        match fragment(&header, end_offset - transport_offset) {
            Ok(fragment) => (fragment, None),
            Err(reason) => (Fragment::WHOLE, Some(reason)),
        }
    };
    Ok(Network {
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol,
        traffic_class: header.service_type,
        length_bytes: header.total_length.get() as u32,
        link_bytes: offset,
        transport_offset,
        end_offset,
        fragment,
        fault,
    })
}

#[inline(always)]
fn fragment(header: &Ipv4, bytes: usize) -> Result<Fragment, Reason> {
    if !header.is_fragment() {
        return Ok(Fragment::WHOLE);
    }
    let bits = header.flags_and_fragment_offset.get();
    let identification = header.identification.get() as u32;
    Fragment::new(identification, bits & FRAGMENT_OFFSET, bytes, bits & MORE_FRAGMENTS == 0)
}

#[inline(always)]
pub(super) fn parse_bare(packet: &impl Packet, offset: usize) -> Result<Network, Reason> {
    let header = packet.load::<Ipv4>(offset).ok_or(Reason::NotInspected)?;
    if !header.is_bare() {
        return Err(Reason::NotInspected);
    }
    let transport_offset = offset + size_of::<Ipv4>();
    let end_offset = offset + header.total_length.get() as usize;
    let is_impossible = transport_offset > end_offset || end_offset > packet.length_bytes();
    Ok(Network {
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol,
        traffic_class: header.service_type,
        length_bytes: header.total_length.get() as u32,
        link_bytes: offset,
        transport_offset,
        end_offset,
        fragment: Fragment::WHOLE,
        fault: is_impossible.then_some(Reason::BadIpHeader),
    })
}

#[inline(always)]
pub(super) fn parse_quoted(packet: &impl Packet, offset: usize) -> Option<Quoted> {
    let header = packet.load::<Ipv4>(offset)?;
    let header_bytes = (header.version_and_words & 0x0f) as usize * 4;
    if header.version_and_words >> 4 != 4 || header_bytes < size_of::<Ipv4>() {
        return None;
    }
    Some(Quoted {
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol,
        transport_offset: offset + header_bytes,
        fault: header.is_fragment().then_some(Reason::IcmpPassed),
    })
}
