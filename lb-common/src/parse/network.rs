//! IP headers of every shape, up to what they carry.

use super::{Packet, ipv4, ipv6, link};
use crate::address::Address;
use crate::verdict::Reason;

/// What the IP headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub source: Address,
    pub destination: Address,
    /// IP protocol number of what the headers carry. An extension header's own number if the packet hides what is
    /// behind it.
    pub protocol: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IP bytes by the IP header's own account: Ethernet padding does not count.
    pub length_bytes: u32,
    /// Bytes from the start of the frame to the IP header, to what it carries, and to the end of that.
    pub link_bytes: usize,
    pub transport_offset: usize,
    pub end_offset: usize,
    pub fragment: Fragment,
    /// Why nothing behind the IP header can be believed. The offsets mean nothing then.
    pub fault: Option<Reason>,
}

impl Network {
    /// Does [`parse_bare_network`] read the packet too?
    #[inline(always)]
    pub fn is_bare(&self) -> bool {
        const IPV4_BYTES: usize = 20;
        const IPV6_BYTES: usize = 40;
        let header_bytes = if self.source.is_v4() { IPV4_BYTES } else { IPV6_BYTES };
        self.fragment.is_whole() && self.transport_offset == self.link_bytes + header_bytes
    }

    /// Does the chain of extension headers end before what the packet carries?
    #[inline(always)]
    pub fn hides_protocol(&self) -> bool {
        !self.source.is_v4() && ipv6::is_extension(self.protocol)
    }
}

/// Which part of which datagram a packet is; all zero for a whole one. An option of it would be one whose absent words
/// the compiler moves about unwritten, which the verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// With the addresses, and in IPv4 the protocol, the name of the datagram.
    pub identification: u32,
    /// Where the part starts and ends, in units of 8 bytes.
    pub start_units: u16,
    pub end_units: u16,
}

impl Fragment {
    pub const WHOLE: Self = Self { identification: 0, start_units: 0, end_units: 0 };

    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.end_units == 0
    }

    /// The only one with ports.
    #[inline(always)]
    pub const fn is_first(&self) -> bool {
        self.start_units == 0 && self.end_units != 0
    }

    /// The part of `bytes` at `start_units`, or why there can be none (RFC 791 §3.2, RFC 8200 §4.5): only the last part
    /// may end between units, and no datagram is longer than its length field can say.
    #[inline(always)]
    pub(super) const fn new(
        identification: u32,
        start_units: u16,
        bytes: usize,
        is_last: bool,
    ) -> Result<Self, Reason> {
        const LONGEST_BYTES: usize = u16::MAX as usize;
        let is_cut_between_units = !is_last && !bytes.is_multiple_of(UNIT_BYTES);
        if bytes == 0 || is_cut_between_units || start_units as usize * UNIT_BYTES + bytes > LONGEST_BYTES {
            return Err(Reason::BadFragment);
        }
        let end_units = start_units + bytes.div_ceil(UNIT_BYTES) as u16;
        Ok(Self { identification, start_units, end_units })
    }
}

const UNIT_BYTES: usize = 8;

/// Reads the IP headers, whatever they carry. An error means that there is no IP header.
#[inline(always)]
pub fn parse_network(packet: &impl Packet) -> Result<Network, Reason> {
    let (ether_type, offset) = link::network_layer(packet).ok_or(Reason::NotInspected)?;
    match ether_type {
        link::IPV4 => ipv4::parse(packet, offset),
        link::IPV6 => ipv6::parse(packet, offset),
        _ => Err(Reason::NotInspected),
    }
}

/// Source and destination, whatever else the IP header says: no walk, for those who only want to name a packet.
#[inline(always)]
pub fn parse_addresses(packet: &impl Packet) -> Option<(Address, Address)> {
    let (ether_type, offset) = link::network_layer(packet)?;
    match ether_type {
        link::IPV4 => ipv4::addresses(packet, offset),
        link::IPV6 => ipv6::addresses(packet, offset),
        _ => None,
    }
}

/// What [`parse_network`] reads, of a whole datagram without IPv4 options and IPv6 extension headers, and of no other: no walk, and no
/// offsets that the verifier would have to follow one by one.
#[inline(always)]
pub fn parse_bare_network(packet: &impl Packet) -> Result<Network, Reason> {
    let (ether_type, offset) = link::network_layer(packet).ok_or(Reason::NotInspected)?;
    match ether_type {
        link::IPV4 => ipv4::parse_bare(packet, offset),
        link::IPV6 => ipv6::parse_bare(packet, offset),
        _ => Err(Reason::NotInspected),
    }
}

/// The header of a packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub source: Address,
    pub destination: Address,
    pub protocol: u8,
    /// Bytes from the start of the frame.
    pub transport_offset: usize,
    /// Why there are no ports behind it. Not an error in place of the rest, with which the compiler would make it share
    /// bytes of the stack, to move them about in pieces that the verifier refuses.
    pub fault: Option<Reason>,
}

impl Quoted {
    const UNREADABLE: Self = Self {
        source: Address { words_be: [0; 4] },
        destination: Address { words_be: [0; 4] },
        protocol: 0,
        transport_offset: 0,
        fault: Some(Reason::BadIcmp),
    };
}

/// Reads the IP header at `offset`, of the same version as those of `carrier`, inside whose data it is. What it says of
/// lengths goes unheeded: no more than the start of a packet is quoted.
#[inline(always)]
pub fn parse_quoted(packet: &impl Packet, carrier: &Network, offset: usize) -> Quoted {
    let quoted =
        if carrier.source.is_v4() { ipv4::parse_quoted(packet, offset) } else { ipv6::parse_quoted(packet, offset) };
    match quoted {
        Some(quoted) if quoted.transport_offset <= carrier.end_offset => quoted,
        _ => Quoted::UNREADABLE,
    }
}
