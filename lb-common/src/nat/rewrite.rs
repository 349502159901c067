//! Other addresses and ports for a packet, and checksums that follow (RFC 1624).
//!
//! Words are summed as they lie in memory: a sum does not mind the order of bytes as long as it is the same for all.

use crate::address::Address;
use crate::checksum::fold;
use crate::parse::{PacketMut, UDP};

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: Address,
    pub destination: Address,
    /// Host order.
    pub source_port: u16,
    pub destination_port: u16,
}

impl Ends {
    /// Of the packets in the other direction.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Where the headers of a packet are, in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub ip_offset: usize,
    pub is_v4: bool,
    pub transport_offset: usize,
    /// `parse::TCP` or `parse::UDP`.
    pub protocol: u8,
    /// `false` of a later fragment.
    pub has_transport: bool,
}

/// Where those of an ICMP error are, and of the packet that it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPlace {
    pub ip_offset: usize,
    pub is_v4: bool,
    pub icmp_offset: usize,
    /// Of the ports that are quoted.
    pub transport_offset: usize,
    pub protocol: u8,
    /// What is quoted ends here, perhaps before its checksum.
    pub end_offset: usize,
}

const IPV4_CHECKSUM: usize = 10;
const IPV4_ADDRESSES: usize = 12;
const IPV6_ADDRESSES: usize = 8;
const ADDRESS_BYTES: usize = 16;
const ICMP_CHECKSUM: usize = 2;
const ICMP_BYTES: usize = 8;
const UDP_CHECKSUM: usize = 6;
const TCP_CHECKSUM: usize = 16;

/// Replaces `old` ends, which are the packet's, by `new` ones of the same family. `None` if a header is not where it
/// should be; the frame is then half-written.
#[inline(always)]
pub fn translate(packet: &mut (impl PacketMut + ?Sized), place: &Place, old: &Ends, new: &Ends) -> Option<()> {
    let addresses = change_of_addresses(old, new);
    write_addresses(packet, place.ip_offset, place.is_v4, new)?;
    if place.is_v4 {
        change_checksum(packet, place.ip_offset + IPV4_CHECKSUM, addresses)?;
    }
    if !place.has_transport {
        return Some(());
    }
    write_ports(packet, place.transport_offset, new)?;
    change_transport_checksum(packet, place.transport_offset, place.protocol, addresses + change_of_ports(old, new))?;
    Some(())
}

/// Replaces the ends of an ICMP error and of the packet that it quotes; `outer` has no ports.
#[inline(always)]
pub fn translate_error(
    packet: &mut (impl PacketMut + ?Sized),
    place: &ErrorPlace,
    outer: [&Ends; 2],
    quoted: [&Ends; 2],
) -> Option<()> {
    let outer_change = change_of_addresses(outer[0], outer[1]);
    write_addresses(packet, place.ip_offset, place.is_v4, outer[1])?;
    if place.is_v4 {
        change_checksum(packet, place.ip_offset + IPV4_CHECKSUM, outer_change)?;
    }
    let quoted_ip = place.icmp_offset + ICMP_BYTES;
    let addresses = change_of_addresses(quoted[0], quoted[1]);
    let ports = change_of_ports(quoted[0], quoted[1]);
    write_addresses(packet, quoted_ip, place.is_v4, quoted[1])?;
    write_ports(packet, place.transport_offset, quoted[1])?;
    // ICMP sums all that it quotes, checksums too, and ICMPv6 the addresses that carry it.
    let mut change = addresses + ports;
    change += if place.is_v4 { change_checksum(packet, quoted_ip + IPV4_CHECKSUM, addresses)? } else { outer_change };
    let checksum = place.transport_offset + checksum_offset(place.protocol);
    if checksum + size_of::<u16>() <= place.end_offset {
        change += change_transport_checksum(packet, place.transport_offset, place.protocol, addresses + ports)?;
    }
    change_checksum(packet, place.icmp_offset + ICMP_CHECKSUM, change)?;
    Some(())
}

#[inline(always)]
const fn checksum_offset(protocol: u8) -> usize {
    if protocol == UDP { UDP_CHECKSUM } else { TCP_CHECKSUM }
}

#[inline(always)]
fn write_addresses(packet: &mut (impl PacketMut + ?Sized), ip_offset: usize, is_v4: bool, ends: &Ends) -> Option<()> {
    if is_v4 {
        let words = [ends.source.words_be[3], ends.destination.words_be[3]];
        return packet.store(ip_offset + IPV4_ADDRESSES, words);
    }
    packet.store(ip_offset + IPV6_ADDRESSES, ends.source.words_be)?;
    packet.store(ip_offset + IPV6_ADDRESSES + ADDRESS_BYTES, ends.destination.words_be)
}

#[inline(always)]
fn write_ports(packet: &mut (impl PacketMut + ?Sized), offset: usize, ends: &Ends) -> Option<()> {
    packet.store(offset, [ends.source_port.to_be(), ends.destination_port.to_be()])
}

/// What changing the addresses adds to a sum over them. Of IPv4 the words that do not change add nothing.
#[inline(always)]
const fn change_of_addresses(old: &Ends, new: &Ends) -> u64 {
    change_of_address(&old.source, &new.source) + change_of_address(&old.destination, &new.destination)
}

#[inline(always)]
const fn change_of_address(old: &Address, new: &Address) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (old.words_be, new.words_be);
    change(a, e) + change(b, f) + change(c, g) + change(d, h)
}

#[inline(always)]
const fn change_of_ports(old: &Ends, new: &Ends) -> u64 {
    change(ports(old), ports(new))
}

#[inline(always)]
const fn ports(ends: &Ends) -> u32 {
    ends.source_port.to_be() as u32 | (ends.destination_port.to_be() as u32) << 16
}

#[inline(always)]
const fn change(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// Follows with the checksum at `offset` what has changed below it. Returns what that adds to a sum over it.
#[inline(always)]
fn change_checksum(packet: &mut (impl PacketMut + ?Sized), offset: usize, change: u64) -> Option<u64> {
    let old = packet.load::<u16>(offset)?;
    let new = !fold(!old as u64 + change);
    packet.store(offset, new)?;
    Some(!old as u64 + new as u64)
}

/// The same of TCP and UDP. UDP without a checksum has none afterwards (RFC 768), and one that comes out as zero is
/// written as its other form.
#[inline(always)]
fn change_transport_checksum(
    packet: &mut (impl PacketMut + ?Sized),
    offset: usize,
    protocol: u8,
    change: u64,
) -> Option<u64> {
    let at = offset + checksum_offset(protocol);
    let old = packet.load::<u16>(at)?;
    if protocol == UDP && old == 0 {
        return Some(0);
    }
    let mut new = !fold(!old as u64 + change);
    if protocol == UDP && new == 0 {
        new = u16::MAX;
    }
    packet.store(at, new)?;
    Some(!old as u64 + new as u64)
}
