//! The headers of nearly every packet.

use super::{Headers, Packet, ipv4, ipv6, link};
use crate::slow_path::{SlowPath, Stop};
use crate::verdict::Reason;

/// Reads a packet without VLAN tags, IPv4 options, IPv6 extension headers and fragmentation: all headers are where they
/// are known to be beforehand. Of any other packet it says where its way goes on. [`super::parse`] reads the same out of
/// every packet that this reads.
#[inline(always)]
pub fn parse_ordinary(packet: &impl Packet) -> Result<Headers, Stop> {
    match family(packet)? {
        Family::Ipv4 => parse_ordinary_ipv4(packet),
        Family::Ipv6 => parse_ordinary_ipv6(packet),
    }
}

/// Whose header is right behind an Ethernet header without tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

#[inline(always)]
pub fn family(packet: &impl Packet) -> Result<Family, Stop> {
    match link::ether_type(packet).ok_or(Reason::NotInspected)? {
        link::IPV4 => Ok(Family::Ipv4),
        link::IPV6 => Ok(Family::Ipv6),
        link::VLAN | link::VLAN_SERVICE => Err(Stop::Slow(SlowPath::Unusual)),
        _ => Err(Stop::Reason(Reason::NotInspected)),
    }
}

/// [`parse_ordinary`] of a packet whose [`family`] is known.
#[inline(always)]
pub fn parse_ordinary_ipv4(packet: &impl Packet) -> Result<Headers, Stop> {
    ipv4::parse_ordinary(packet, link::ETHERNET_BYTES)
}

#[inline(always)]
pub fn parse_ordinary_ipv6(packet: &impl Packet) -> Result<Headers, Stop> {
    ipv6::parse_ordinary(packet, link::ETHERNET_BYTES)
}
