//! From frame to addresses and ports.
//!
//! Everything here reads bytes an attacker wrote. It reads through [`Packet`], which cannot be asked for a byte beyond
//! the end, and every walk is bounded.
//!
//! There are two ways in. [`parse_ordinary`] reads the headers nearly every packet has, at offsets known in advance, and
//! names the program that knows the others. [`parse`] reads all of them.

mod ipv4;
mod ipv6;
mod link;
mod network;
mod ordinary;
mod transport;

use crate::address::Address;
use crate::verdict::Reason;

pub use network::{Fragment, Network, Quoted, parse_addresses, parse_bare_network, parse_network, parse_quoted};
pub use ordinary::{Family, family, parse_ordinary, parse_ordinary_ipv4, parse_ordinary_ipv6};

/// The bytes of a frame: the XDP context in the kernel, a slice in tests.
pub trait Packet {
    /// Bytes from the Ethernet header to the end.
    fn length_bytes(&self) -> usize;

    /// A copy of the bytes at `offset`; `None` unless all of them are inside the packet.
    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T>;
}

/// A frame whose bytes may be written.
pub trait PacketMut: Packet {
    /// `None`, and nothing written, unless all of the bytes are inside the packet.
    fn store<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, offset: usize, value: T) -> Option<()>;
}

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub source: Address,
    pub destination: Address,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes of the Ethernet header with its VLAN tags.
    pub link_bytes: usize,
    /// IP protocol number, [`TCP`] or [`UDP`]; [`TCP`] if the packet hides it.
    pub protocol: u8,
    /// IP bytes by the IP header's own account: Ethernet padding does not count.
    pub length_bytes: u32,
    /// Or why there are no ports. It becomes a drop only if the destination is a VIP.
    pub transport: Result<Transport, Reason>,
    pub fragment: Fragment,
}

/// What the TCP or UDP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Host order, as the destination port.
    pub source_port: u16,
    pub destination_port: u16,
    /// A TCP packet that asks for a new connection (SYN without ACK).
    pub opens_connection: bool,
    /// A TCP packet after which the connection is over in this direction (FIN or RST).
    pub closes_connection: bool,
    /// Bytes from the start of the frame to the TCP or UDP header; of a fragment without that header, to its data.
    pub offset: usize,
}

/// IP protocol numbers.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Reads the headers. An error means that the packet names no destination a service could have.
#[inline(always)]
pub fn parse(packet: &impl Packet) -> Result<Headers, Reason> {
    headers_of(packet, &parse_network(packet)?)
}

/// What follows the IP headers, if that is TCP or UDP.
#[inline(always)]
pub fn headers_of(packet: &impl Packet, network: &Network) -> Result<Headers, Reason> {
    let protocol = match network.protocol {
        TCP | UDP => network.protocol,
        // A packet that hides its protocol is judged as what services speak.
        _ if network.hides_protocol() => TCP,
        _ => return Err(Reason::NotInspected),
    };
    Ok(Headers {
        source: network.source,
        destination: network.destination,
        protocol,
        length_bytes: network.length_bytes,
        traffic_class: network.traffic_class,
        link_bytes: network.link_bytes,
        transport: transport_of(packet, network, protocol),
        fragment: network.fragment,
    })
}

#[inline(always)]
fn transport_of(packet: &impl Packet, network: &Network, protocol: u8) -> Result<Transport, Reason> {
    if let Some(fault) = network.fault {
        return Err(fault);
    }
    let (offset, end) = (network.transport_offset, network.end_offset);
    if network.fragment.is_whole() {
        transport::parse(packet, offset, end, protocol)
    } else if network.fragment.is_first() {
        // RFC 1858 §3: a first fragment that leaves part of the header to the next one serves to hide it.
        transport::parse_first(packet, offset, end, protocol).map_err(|_| Reason::TinyFragment)
    } else {
        Err(Reason::FragmentUnknown)
    }
}

impl Packet for [u8] {
    fn length_bytes(&self) -> usize {
        self.len()
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        T::read_from_prefix(self.get(offset..)?).ok().map(|(value, _)| value)
    }
}

impl PacketMut for [u8] {
    fn store<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, offset: usize, value: T) -> Option<()> {
        value.write_to_prefix(self.get_mut(offset..)?).ok()
    }
}

impl<P: Packet + ?Sized> Packet for &P {
    fn length_bytes(&self) -> usize {
        (**self).length_bytes()
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        (**self).load(offset)
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
pub(crate) mod frames;
#[cfg(test)]
mod tests;
