use super::*;
use crate::encapsulation::{Inside, outer_udp};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A packet of this version with `data` behind its header, which carries `protocol`.
fn ip(version: u8, protocol: u8, traffic_class: u8, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    if version == 4 {
        let mut packet = vec![0x45, traffic_class];
        packet.extend((length + 20).to_be_bytes());
        packet.extend([0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 10]);
        let sum = !crate::checksum::fold(
            packet.chunks(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum(),
        );
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        [&packet, data].concat()
    } else {
        let mut packet = vec![0x60 | traffic_class >> 4, traffic_class << 4, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend([0x20; 32]);
        [&packet, data].concat()
    }
}

fn gue(inner: &[u8]) -> Vec<u8> {
    let inside =
        Inside { is_ipv4: true, length_bytes: inner.len() as u32, traffic_class: 0, gue_port: Some(6080), hash: 1 };
    [&outer_udp(6080, &inside).to_ne_bytes()[..], inner].concat()
}

const START: usize = 3;

/// As behind outer headers of three bytes, with padding behind.
fn read_in(protocol: u8, payload: &[u8]) -> Result<Inner, Reason> {
    let frame = [&[9; START], payload, &[0; 4]].concat();
    inner(&frame.as_slice(), protocol, START, START + payload.len()).ok_or(Reason::BadTunnel)
}

#[test]
fn each_kind_of_tunnel_shows_what_is_inside() {
    for (protocol, version, traffic_class) in [(4, 4, 0xb9), (41, 6, 0x2a), (17, 4, 1), (17, 6, 0xff)] {
        let packet = ip(version, 6, traffic_class, &[7; 20]);
        let (payload, offset) = if protocol == 17 { (gue(&packet), START + 8) } else { (packet, START) };
        let expected = Inner { offset, is_ipv4: version == 4, traffic_class };
        assert_eq!(read_in(protocol, &payload), Ok(expected), "protocol {protocol}, version {version}");
    }
}

#[test]
fn what_lies_about_its_kind_or_length_is_no_tunnel() {
    let bad = Err(Reason::BadTunnel);
    let (v4, v6) = (ip(4, 6, 0, &[7; 20]), ip(6, 6, 0, &[7; 20]));
    assert_eq!(read_in(4, &v6), bad, "IPv6 where IPv4 is announced");
    assert_eq!(read_in(41, &v4), bad, "and the other way round");
    for first in [0x00, 0x01, 0x35, 0x50, 0x85, 0xc5] {
        let mut other = gue(&v4);
        other[8] = first;
        assert_eq!(read_in(17, &other), bad, "GUE that begins with {first:#04x}: variant 0, or no version");
    }
    for (protocol, packet) in [(4, v4.clone()), (41, v6.clone()), (17, gue(&v4)), (17, gue(&v6))] {
        for length in 0..packet.len() {
            assert_eq!(read_in(protocol, &packet[..length]), bad, "{length} bytes, protocol {protocol}");
        }
    }
    let mut short = gue(&v4);
    short[5] -= 1;
    assert_eq!(read_in(17, &short), bad, "the packet goes on behind what UDP carries");
    for length in [0, 19] {
        let mut shorter = v4.clone();
        shorter[3] = length;
        assert_eq!(read_in(4, &shorter), bad, "an IPv4 packet shorter than its header");
    }
    for first in [0x40, 0x44, 0x4f] {
        let mut impossible = v4.clone();
        impossible[0] = first;
        assert_eq!(read_in(4, &impossible), bad, "an IPv4 header that begins with {first:#04x}");
    }
    for carried in [4, 41] {
        assert_eq!(read_in(4, &ip(4, carried, 0, &v4)), bad, "a tunnel in a tunnel");
        assert_eq!(read_in(17, &gue(&ip(6, carried, 0, &v4))), bad, "a tunnel in GUE");
    }
}

fn is_right(header: &[u8]) -> bool {
    let words = header[..20].chunks(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])));
    crate::checksum::fold(words.sum()) == 0xffff
}

#[test]
fn congestion_is_handed_on_as_the_standard_says() {
    // RFC 6040, figure 4: inner, outer, and what leaves; `None` is dropped. Other pairs with an outer ECT(1) keep the
    // inner mark here, which the standard's text allows where nobody uses ECT(1) as a lesser mark.
    let rows = [
        (0, 0, Some(0)),
        (0, 1, Some(0)),
        (0, 2, Some(0)),
        (0, 3, None),
        (1, 0, Some(1)),
        (1, 3, Some(3)),
        (2, 0, Some(2)),
        (2, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 1, Some(3)),
        (3, 3, Some(3)),
    ];
    for version in [4, 6] {
        for (inside, outside, leaves) in rows {
            let mut packet = ip(version, 6, 0xb8 | inside, &[7; 20]);
            let before = packet.clone();
            let protocol = if version == 4 { 4 } else { 41 };
            let inner = inner(&packet.as_slice(), protocol, 0, packet.len()).expect("well made");
            let mut view = Bytes(&mut packet);
            let handed_on = hand_on_congestion(&mut view, &inner, outside);
            match leaves {
                None => assert_eq!((handed_on, &packet), (Err(Reason::TunnelCongested), &before)),
                Some(leaves) => {
                    assert_eq!(handed_on, Ok(()));
                    assert_eq!(packet, ip(version, 6, 0xb8 | leaves, &[7; 20]), "{inside} in {outside}");
                    assert!(version == 6 || is_right(&packet));
                }
            }
        }
    }
}

struct Bytes<'a>(&'a mut [u8]);

impl Packet for Bytes<'_> {
    fn length_bytes(&self) -> usize {
        self.0.length_bytes()
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        (*self.0).load(offset)
    }
}

impl PacketMut for Bytes<'_> {
    fn store<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, offset: usize, value: T) -> Option<()> {
        self.0.store(offset, value)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes: what is found lies inside what the outer header answers for, and an independent reader finds
    /// an IP packet of the same version and length there.
    #[test]
    fn what_is_found_lies_inside(protocol in prop_oneof![Just(4_u8), Just(41), Just(17)], bytes in proptest::collection::vec(any::<u8>(), 0..120), start in 0_usize..20, cut in 0_usize..20, first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()], length in 0_u8..110) {
        let mut frame = bytes;
        let at = start + if protocol == 17 { 8 } else { 0 };
        for (place, byte) in [(at, first), (at + 2, 0), (at + 3, length), (at + 4, 0), (at + 5, length), (start + 4, 0)] {
            if let Some(place) = frame.get_mut(place) {
                *place = byte;
            }
        }
        let end = frame.len().saturating_sub(cut);
        if let Some(inner) = inner(&frame.as_slice(), protocol, start, end) {
            prop_assert!(inner.offset >= start);
            let sliced = etherparse::LaxIpSlice::from_slice(&frame[inner.offset..end]);
            let (sliced, _) = sliced.expect("the other reader finds an IP packet");
            prop_assert_eq!(sliced.ipv4().is_some(), inner.is_ipv4);
        }
    }
}
