//! What a tunnel packet carries, and what of the outer header outlives it: the other direction of
//! [`crate::encapsulation`].

use crate::checksum;
use crate::encapsulation::{IPV4_BYTES, IPV4_IN_IP, IPV6_BYTES, IPV6_IN_IP, UDP_BYTES};
use crate::parse::{Packet, PacketMut, UDP};
use crate::verdict::Reason;

/// A packet in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Bytes from the start of the frame.
    pub offset: usize,
    pub is_ipv4: bool,
    /// DSCP and ECN of its own header.
    pub traffic_class: u8,
}

/// Is it the number of a protocol that carries IP packets right behind the outer IP header?
#[inline(always)]
pub const fn is_ip_in_ip(protocol: u8) -> bool {
    matches!(protocol, IPV4_IN_IP | IPV6_IN_IP)
}

/// The packet inside an outer one of `protocol`, whose payload lies from `start` to `end`: an IP packet itself, or a UDP
/// header with GUE variant 1 behind it, which is the IP packet right there (draft-ietf-intarea-gue §4). Any other variant,
/// one with options too, is not what a tier sends, nor is one tunnel inside another.
///
/// The outer header is taken away, the frame's end stays: what the inner header says of its length must hold within the
/// outer packet, or bytes behind that, which nobody answers for, would become part of it.
///
/// `None` rather than a reason: the compiler would put the two into the same bytes of the stack, and move them about in
/// pieces that the verifier refuses.
#[inline(always)]
pub fn inner(packet: &impl Packet, protocol: u8, start: usize, end: usize) -> Option<Inner> {
    let (offset, end) = if protocol == UDP {
        let udp_end = start + u16::from_be(packet.load::<u16>(start + 4)?) as usize;
        if udp_end > end {
            return None;
        }
        (start + UDP_BYTES, udp_end)
    } else {
        (start, end)
    };
    let [first, second] = u16::from_be(packet.load::<u16>(offset)?).to_be_bytes();
    let is_ipv4 = match (protocol, first >> 4) {
        (UDP | IPV4_IN_IP, 4) => true,
        (UDP | IPV6_IN_IP, 6) => false,
        _ => return None,
    };
    let (header_bytes, length_bytes, carried, traffic_class) = if is_ipv4 {
        let length_bytes = u16::from_be(packet.load::<u16>(offset + 2)?) as usize;
        ((first & 0x0f) as usize * 4, length_bytes, packet.load::<u8>(offset + 9)?, second)
    } else {
        let payload_bytes = u16::from_be(packet.load::<u16>(offset + 4)?) as usize;
        (IPV6_BYTES, IPV6_BYTES + payload_bytes, packet.load::<u8>(offset + 6)?, first << 4 | second >> 4)
    };
    if header_bytes < IPV4_BYTES || length_bytes < header_bytes || offset + length_bytes > end || is_ip_in_ip(carried) {
        return None;
    }
    Some(Inner { offset, is_ipv4, traffic_class })
}

const CONGESTION_EXPERIENCED: u8 = 3;
const NOT_CAPABLE: u8 = 0;

/// Hands congestion that the tunnel met on to the packet inside (RFC 6040 §4.2). A packet whose sender would not heed the
/// mark is dropped, as a router would have dropped it.
#[inline(always)]
pub fn hand_on_congestion(packet: &mut impl PacketMut, inner: &Inner, outer_traffic_class: u8) -> Result<(), Reason> {
    let congestion = |traffic_class: u8| traffic_class & CONGESTION_EXPERIENCED;
    if congestion(outer_traffic_class) != CONGESTION_EXPERIENCED
        || congestion(inner.traffic_class) == CONGESTION_EXPERIENCED
    {
        return Ok(());
    }
    if congestion(inner.traffic_class) == NOT_CAPABLE {
        return Err(Reason::TunnelCongested);
    }
    mark(packet, inner).ok_or(Reason::BadTunnel)
}

#[inline(always)]
fn mark(packet: &mut impl PacketMut, inner: &Inner) -> Option<()> {
    let old = u16::from_be(packet.load::<u16>(inner.offset)?);
    if !inner.is_ipv4 {
        return packet.store(inner.offset, (old | (CONGESTION_EXPERIENCED as u16) << 4).to_be());
    }
    let new = old | CONGESTION_EXPERIENCED as u16;
    let sum = u16::from_be(packet.load::<u16>(inner.offset + 10)?);
    packet.store(inner.offset, new.to_be())?;
    packet.store(inner.offset + 10, checksum::replace(sum, old, new).to_be())
}

#[cfg(test)]
mod tests;
