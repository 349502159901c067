//! The same frames read by a packet library: whatever both read, they read alike, and where only one reads a frame, a
//! named difference says why.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::frames::{any_frame, ipv6_next_headers};
use super::*;

/// What both have a word for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Source port, destination port, and whether it is a SYN without ACK.
    ports: (u16, u16, bool),
}

fn our_reading(frame: &[u8]) -> Option<Reading> {
    let headers = parse(&frame).ok()?;
    if !headers.fragment.is_whole() {
        return None;
    }
    let transport = headers.transport.ok()?;
    Some(Reading {
        source: headers.source.into(),
        destination: headers.destination.into(),
        protocol: headers.protocol,
        ports: (transport.source_port, transport.destination_port, transport.opens_connection),
    })
}

fn their_reading(frame: &[u8]) -> Option<Reading> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            (Ipv4Addr::from(ip.header().source()).into(), Ipv4Addr::from(ip.header().destination()).into())
        }
        NetSlice::Ipv6(ip) => {
            (Ipv6Addr::from(ip.header().source()).into(), Ipv6Addr::from(ip.header().destination()).into())
        }
        NetSlice::Arp(_) => return None,
    };
    let (protocol, ports) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (TCP, (tcp.source_port(), tcp.destination_port(), tcp.syn() && !tcp.ack())),
        TransportSlice::Udp(udp) => (UDP, (udp.source_port(), udp.destination_port(), false)),
        _ => return None,
    };
    Some(Reading { source, destination, protocol, ports })
}

/// Why we refuse what they read; `None` if there is no reason.
fn stricter(frame: &[u8]) -> Option<&'static str> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let tags: Vec<u16> =
        (0..packet.link_exts.len()).map(|tag| u16::from_be_bytes([frame[12 + 4 * tag], frame[13 + 4 * tag]])).collect();
    if tags.len() > 2 {
        return Some("more tags than have a standard meaning");
    }
    if tags.iter().any(|ether_type| !matches!(ether_type, 0x8100 | 0x88a8)) {
        return Some("a tag that is neither a customer's nor a service's");
    }
    if let Some(TransportSlice::Udp(udp)) = &packet.transport
        && udp.length() < 8
    {
        return Some("a UDP length of 0 is taken for a jumbogram's");
    }
    match packet.net? {
        NetSlice::Ipv4(ip) if ip.header().protocol().0 == 51 => Some("AH in IPv4 is no service's traffic"),
        NetSlice::Ipv6(ip) if ip.header().payload_length() == 0 => Some("no jumbogram fits a frame"),
        NetSlice::Ipv6(ip)
            if [ip.header().source_addr(), ip.header().destination_addr()]
                .iter()
                .any(|address| address.to_ipv4_mapped().is_some()) =>
        {
            Some("a v4-mapped address does not belong on the wire")
        }
        NetSlice::Ipv6(ip) if ipv6_next_headers(ip.header().next_header().0, ip.extensions().slice()) > 7 => {
            Some("more extension headers than any datagram needs")
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_we_read_the_library_reads_alike(frame in any_frame()) {
        if let Some(ours) = our_reading(&frame) {
            prop_assert_eq!(Some(ours), their_reading(&frame));
        }
    }

    #[test]
    fn what_the_library_reads_we_read_alike_or_refuse_for_a_named_reason(frame in any_frame()) {
        if let Some(theirs) = their_reading(&frame) {
            match stricter(&frame) {
                None => prop_assert_eq!(our_reading(&frame), Some(theirs)),
                Some(why) => prop_assert_eq!(our_reading(&frame), None, "{}", why),
            }
        }
    }

    #[test]
    fn both_tell_fragments_from_whole_datagrams(frame in any_frame()) {
        let Ok(packet) = SlicedPacket::from_ethernet(&frame) else { return Ok(()) };
        let Ok(network) = parse_network(&frame.as_slice()) else { return Ok(()) };
        if network.fault.is_none() && packet.ip_payload().is_some() {
            prop_assert_eq!(!network.fragment.is_whole(), packet.is_ip_payload_fragmented());
        }
    }
}

/// The random frames reach every outcome often enough to be worth reading twice.
#[test]
fn the_random_frames_are_neither_all_good_nor_all_bad() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut whole, mut fragments, mut refused, mut theirs_only) = (0, 0, 0, 0);
    for _ in 0..4000 {
        let frame = any_frame().new_tree(&mut runner).expect("a frame").current();
        match parse(&frame.as_slice()) {
            Ok(headers) if !headers.fragment.is_whole() => fragments += 1,
            Ok(headers) if headers.transport.is_ok() => whole += 1,
            _ => refused += 1,
        }
        theirs_only += usize::from(their_reading(&frame).is_some() && our_reading(&frame).is_none());
    }
    for (what, count) in [("whole", whole), ("fragments", fragments), ("refused", refused), ("stricter", theirs_only)] {
        assert!(count > 40, "only {count} of 4000 frames are {what}");
    }
}
