//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo requests, and errors about packets that a VIP sent.

pub mod too_big;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::checksum;
use crate::hash::Connection;
use crate::parse::{ICMP, ICMPV6, Network, Packet, PacketMut, TCP, UDP, parse_quoted};
use crate::types::Limit;
use crate::verdict::Reason;

/// What one source may send to VIPs: 100 packets a second, and as many at once. A path that changes sends an error or
/// two to each sender, a person's ping one packet a second; a router in front of many clients stays below it as well.
pub const SOURCE_LIMIT: Limit = Limit { cost_ps: 10_000_000_000, tolerance_ps: 990_000_000_000 };

/// Stands for ICMP where the limiter wants a service: one that no service has.
pub const LIMITED_AS: u16 = u16::MAX;

/// The same for the messages that are sent to one source about packets too big for a backend: a limit of its own, or who
/// forges its address could use up what it may send.
pub const TOLD_AS: u16 = u16::MAX - 1;

/// What a message to a VIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EchoRequest,
    /// About a packet that the VIP sent, which [`quoted`] reads.
    Error,
    /// Neighbour discovery and multicast listener discovery: without them the host would fall off its link.
    Discovery,
    /// Everything else.
    Other,
}

/// Of every message.
const HEADER_BYTES: usize = 8;
/// Of both ports.
const PORTS_BYTES: usize = 4;

/// What the packet, which carries [`ICMP`] or [`ICMPV6`], is. An error means that it is none, for want of a header.
#[inline(always)]
pub fn kind(packet: &impl Packet, network: &Network) -> Result<Kind, Reason> {
    let offset = network.transport_offset;
    if offset + HEADER_BYTES > network.end_offset {
        return Err(Reason::BadIcmp);
    }
    let [kind, code] = u16::from_be(packet.load::<u16>(offset).ok_or(Reason::BadIcmp)?).to_be_bytes();
    Ok(match (network.source.is_v4(), kind) {
        (true, 8) | (false, 128) if code == 0 => Kind::EchoRequest,
        // Unreachable (of which code 4 is "fragmentation needed"), time exceeded, parameter problem.
        (true, 3 | 11 | 12) => Kind::Error,
        // The same, and packet too big.
        (false, 1..=4) => Kind::Error,
        (false, 130..=137 | 143) => Kind::Discovery,
        _ => Kind::Other,
    })
}

/// The connection that a [`Kind::Error`] is about, named as the client's packets to the VIP name it, so that it finds
/// the same backend: `take` gets it, or the error is why there is none.
///
/// A closure rather than a result: the compiler would put connection and error into the same bytes of the stack, and move
/// them about in pieces that the verifier refuses.
#[inline(always)]
pub fn quoted<T>(
    packet: &impl Packet,
    network: &Network,
    take: impl FnOnce(&Connection) -> Result<T, Reason>,
) -> Result<T, Reason> {
    let offset = network.transport_offset + HEADER_BYTES;
    let quoted = parse_quoted(packet, network, offset);
    // What the VIP never sent it need not hear about (RFC 5927 §3): whoever forges errors must guess the ports too.
    if quoted.source != network.destination {
        return Err(Reason::BadIcmp);
    }
    // Fragments have no ports, nor do packets behind extension headers, or the host's own pings.
    if let Some(fault) = quoted.fault {
        return Err(fault);
    }
    if !matches!(quoted.protocol, TCP | UDP) {
        return Err(Reason::IcmpPassed);
    }
    if quoted.transport_offset + PORTS_BYTES > network.end_offset {
        return Err(Reason::BadIcmp);
    }
    let ports = u32::from_be(packet.load::<u32>(quoted.transport_offset).ok_or(Reason::BadIcmp)?);
    take(&Connection {
        source: quoted.destination,
        destination: quoted.source,
        source_port: ports as u16,
        destination_port: (ports >> 16) as u16,
        protocol: quoted.protocol,
    })
}

/// Turns the echo request into its reply, back to whence it came, as the host itself would: identifier, sequence number
/// and data stay, the hop limit starts anew. `None` if the frame was for many, or is too short after all.
///
/// A request with a wrong checksum becomes a reply with a wrong one, which nobody takes.
#[inline(always)]
pub fn answer_echo(packet: &mut (impl PacketMut + ?Sized), network: &Network) -> Option<()> {
    let is_group = packet.load::<u8>(0)? & 1 != 0;
    if is_group {
        return None;
    }
    let (ip, message) = (network.link_bytes, network.transport_offset);
    if network.source.is_v4() {
        swap::<u32>(packet, ip + 12, ip + 16)?;
        replace_high(packet, ip + 8, HOPS, ip + 10)?;
        replace_high(packet, message, ECHO_REPLY, message + CHECKSUM_OFFSET)?;
    } else {
        for word in 0..4 {
            swap::<u32>(packet, ip + 8 + 4 * word, ip + 24 + 4 * word)?;
        }
        packet.store(ip + 7, HOPS)?;
        replace_high(packet, message, ECHO_REPLY_6, message + CHECKSUM_OFFSET)?;
    }
    (0..3).try_for_each(|half_word| swap::<u16>(packet, 2 * half_word, 6 + 2 * half_word))
}

const CHECKSUM_OFFSET: usize = 2;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_6: u8 = 129;
/// What Linux gives its own packets.
const HOPS: u8 = 64;

/// Two words change places. Addresses move by words, as the eBPF back end does; checksums do not mind.
#[inline(always)]
fn swap<T: FromBytes + IntoBytes + Immutable + Copy>(
    packet: &mut (impl PacketMut + ?Sized),
    first: usize,
    second: usize,
) -> Option<()> {
    let (one, other) = (packet.load::<T>(first)?, packet.load::<T>(second)?);
    packet.store(first, other)?;
    packet.store(second, one)
}

/// Replaces the first byte of the half word at `offset`, and the checksum at `sum_offset` with it.
#[inline(always)]
fn replace_high(packet: &mut (impl PacketMut + ?Sized), offset: usize, byte: u8, sum_offset: usize) -> Option<()> {
    let old = u16::from_be(packet.load::<u16>(offset)?);
    let new = (byte as u16) << 8 | old & 0xff;
    let sum = u16::from_be(packet.load::<u16>(sum_offset)?);
    packet.store(offset, new.to_be())?;
    packet.store(sum_offset, checksum::replace(sum, old, new).to_be())
}

/// Is the packet ICMP of its own IP version? ICMPv6 in IPv4 is nobody's.
#[inline(always)]
pub const fn is_icmp(network: &Network) -> bool {
    network.protocol == if network.source.is_v4() { ICMP } else { ICMPV6 }
}

#[cfg(test)]
mod tests;
