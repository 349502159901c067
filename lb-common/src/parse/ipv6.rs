//! IPv6 (RFC 8200) and its extension headers.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Fragment, Headers, ICMPV6, Network, Packet, Quoted, TCP, UDP, transport};
use crate::address::Address;
use crate::decapsulation::is_ip_in_ip;
use crate::slow_path::{SlowPath, Stop};
use crate::verdict::Reason;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ipv6 {
    version_and_class: u8,
    class_and_flow_label: u8,
    _flow_label: [u8; 2],
    payload_length: U16,
    next_header: u8,
    _hop_limit: u8,
    source: [[u8; 4]; 4],
    destination: [[u8; 4]; 4],
}

/// The first bytes that all extension headers walked here share.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Extension {
    next_header: u8,
    length: u8,
    _rest: [u8; 6],
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FragmentHeader {
    _next_header: u8,
    _reserved: u8,
    offset_and_more: U16,
    identification: U32,
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// RFC 8200 §4.1 lists six at most, each once, destination options twice. A longer chain only serves to hide ports.
const MAX_EXTENSIONS: usize = 7;

const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET_SHIFT: u32 = 3;

impl Ipv6 {
    #[inline(always)]
    fn source(&self) -> Address {
        Address { words_be: self.source.map(u32::from_ne_bytes) }
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address { words_be: self.destination.map(u32::from_ne_bytes) }
    }

    /// A v4-mapped address never belongs on the wire (RFC 4291 §2.5.5.2). Believed, it would let an IPv6 packet spend
    /// an IPv4 source's limit or borrow its verification.
    #[inline(always)]
    fn is_believable(&self) -> bool {
        self.version_and_class >> 4 == 6 && !self.source().is_v4() && !self.destination().is_v4()
    }

    #[inline(always)]
    fn traffic_class(&self) -> u8 {
        self.version_and_class << 4 | self.class_and_flow_label >> 4
    }

    #[inline(always)]
    fn length_bytes(&self) -> u32 {
        size_of::<Self>() as u32 + self.payload_length.get() as u32
    }
}

/// A datagram with TCP or UDP right behind the header.
#[inline(always)]
pub(super) fn parse_ordinary(packet: &impl Packet, offset: usize) -> Result<Headers, Stop> {
    let header = packet.load::<Ipv6>(offset).ok_or(Reason::NotInspected)?;
    match header.next_header {
        TCP | UDP => {}
        ICMPV6 => return Err(Stop::Slow(SlowPath::Icmp)),
        next_header if is_extension(next_header) || is_ip_in_ip(next_header) => {
            return Err(Stop::Slow(SlowPath::Unusual));
        }
        _ => return Err(Stop::Reason(Reason::NotInspected)),
    }
    if !header.is_believable() {
        return Err(Stop::Reason(Reason::NotInspected));
    }
    let place = offset + size_of::<Ipv6>();
    let end = place + header.payload_length.get() as usize;
    // Longer than what is here at once: a lie, or a jumbo frame in several buffers.
    if end > packet.length_bytes() {
        return Err(Stop::Slow(SlowPath::Unusual));
    }
    Ok(Headers {
        source: header.source(),
        destination: header.destination(),
        traffic_class: header.traffic_class(),
        link_bytes: offset,
        protocol: header.next_header,
        length_bytes: header.length_bytes(),
        transport: transport::parse(packet, place, end, header.next_header),
        fragment: Fragment::WHOLE,
    })
}

#[inline(always)]
pub(super) fn addresses(packet: &impl Packet, offset: usize) -> Option<(Address, Address)> {
    packet.load::<Ipv6>(offset).map(|header| (header.source(), header.destination()))
}

#[inline(always)]
pub(super) fn parse(packet: &impl Packet, offset: usize) -> Result<Network, Reason> {
    let header = packet.load::<Ipv6>(offset).ok_or(Reason::NotInspected)?;
    if !header.is_believable() {
        return Err(Reason::NotInspected);
    }
    let start = offset + size_of::<Ipv6>();
    let end_offset = start + header.payload_length.get() as usize;
    let mut chain = Chain { protocol: header.next_header, offset: start, fragment: Fragment::WHOLE };
    let fault = if end_offset > packet.length_bytes() {
        Some(Reason::BadIpHeader)
    } else {
        chain.walk(packet, end_offset).err()
    };
    Ok(Network {
        source: header.source(),
        destination: header.destination(),
        protocol: chain.protocol,
        traffic_class: header.traffic_class(),
        length_bytes: header.length_bytes(),
        link_bytes: offset,
        transport_offset: chain.offset,
        end_offset,
        fragment: chain.fragment,
        fault,
    })
}

#[inline(always)]
pub(super) fn parse_bare(packet: &impl Packet, offset: usize) -> Result<Network, Reason> {
    let header = packet.load::<Ipv6>(offset).ok_or(Reason::NotInspected)?;
    if !header.is_believable() || is_extension(header.next_header) {
        return Err(Reason::NotInspected);
    }
    let transport_offset = offset + size_of::<Ipv6>();
    let end_offset = transport_offset + header.payload_length.get() as usize;
    Ok(Network {
        source: header.source(),
        destination: header.destination(),
        protocol: header.next_header,
        traffic_class: header.traffic_class(),
        length_bytes: header.length_bytes(),
        link_bytes: offset,
        transport_offset,
        end_offset,
        fragment: Fragment::WHOLE,
        fault: (end_offset > packet.length_bytes()).then_some(Reason::BadIpHeader),
    })
}

#[inline(always)]
pub(super) fn parse_quoted(packet: &impl Packet, offset: usize) -> Option<Quoted> {
    let header = packet.load::<Ipv6>(offset)?;
    if !header.is_believable() {
        return None;
    }
    Some(Quoted {
        source: header.source(),
        destination: header.destination(),
        protocol: header.next_header,
        transport_offset: offset + size_of::<Ipv6>(),
        fault: is_extension(header.next_header).then_some(Reason::IcmpPassed),
    })
}

/// How far the walk over the extension headers has come.
struct Chain {
    /// Of the header at `offset`: an extension's own if the walk ended early.
    protocol: u8,
    offset: usize,
    fragment: Fragment,
}

impl Chain {
    /// To the first header that is none of them, or to the data of a fragment that is not the first.
    #[inline(always)]
    fn walk(&mut self, packet: &impl Packet, end: usize) -> Result<(), Reason> {
        for index in 0..MAX_EXTENSIONS {
            if !is_extension(self.protocol) {
                return Ok(());
            }
            // RFC 8200 §4.1: nowhere but first. Routers would not look for it here, and hosts refuse it.
            if self.protocol == HOP_BY_HOP && index != 0 {
                return Err(Reason::BadExtensionChain);
            }
            let extension = packet.load::<Extension>(self.offset).ok_or(Reason::BadExtensionChain)?;
            // RFC 4302 §2.2: its fixed part alone is longer.
            if self.protocol == AUTHENTICATION && extension.length == 0 {
                return Err(Reason::BadExtensionChain);
            }
            let next = self.offset + extension_bytes(self.protocol, extension.length);
            if next > end {
                return Err(Reason::BadExtensionChain);
            }
            let is_fragment = self.protocol == FRAGMENT;
            let place = self.offset;
            self.offset = next;
            self.protocol = extension.next_header;
            if is_fragment && self.read_fragment(packet, place, end - next)? {
                return Ok(());
            }
        }
        if is_extension(self.protocol) { Err(Reason::BadExtensionChain) } else { Ok(()) }
    }

    /// Reads the fragment header at `place`: `true` if what follows it is data without a header of its own. Offset and
    /// more-fragments flag both zero are an atomic fragment, a whole datagram (RFC 6946).
    #[inline(always)]
    fn read_fragment(&mut self, packet: &impl Packet, place: usize, bytes: usize) -> Result<bool, Reason> {
        let header = packet.load::<FragmentHeader>(place).ok_or(Reason::BadExtensionChain)?;
        let bits = header.offset_and_more.get();
        let (start_units, is_last) = (bits >> FRAGMENT_OFFSET_SHIFT, bits & MORE_FRAGMENTS == 0);
        if start_units == 0 && is_last {
            return Ok(false);
        }
        if !self.fragment.is_whole() {
            return Err(Reason::BadExtensionChain);
        }
        self.fragment = Fragment::new(header.identification.get(), start_units, bytes, is_last)?;
        Ok(!self.fragment.is_first())
    }
}

/// ESP and "no next header" are not: what follows them cannot be a readable TCP or UDP header.
#[inline(always)]
pub(super) fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Each kind counts its length in its own unit: RFC 8200 §4.3, and RFC 4302 §2.2 for AH.
#[inline(always)]
fn extension_bytes(protocol: u8, length: u8) -> usize {
    match protocol {
        FRAGMENT => size_of::<FragmentHeader>(),
        AUTHENTICATION => (length as usize + 2) * 4,
        _ => (length as usize + 1) * 8,
    }
}
