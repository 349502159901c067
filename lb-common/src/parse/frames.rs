//! Random frames for the tests: well-made ones of every shape, then bent.

use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{ICMP, ICMPV6, TCP, UDP};

/// Mostly well-made, partly bent in a few bytes or cut, sometimes noise.
pub(crate) fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let bends = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    let bent = (well_made(), bends, any::<Index>(), prop_oneof![3 => Just(false), 1 => Just(true)]).prop_map(
        |(mut frame, bends, cut, is_cut)| {
            for (place, byte) in bends {
                let place = place.index(frame.len());
                frame[place] = byte;
            }
            if is_cut {
                frame.truncate(cut.index(frame.len()));
            }
            frame
        },
    );
    prop_oneof![4 => bent, 4 => well_made(), 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

/// Frames with consistent lengths.
pub(super) fn well_made() -> impl Strategy<Value = Vec<u8>> {
    (tags(), prop_oneof![ipv4(), ipv6()], proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(tags, (ether_type, packet), padding)| {
            let mut frame = std::vec![2; 12];
            for tag in tags {
                frame.extend(u16::to_be_bytes(tag));
                frame.extend([0, 7]);
            }
            frame.extend(u16::to_be_bytes(ether_type));
            frame.extend(packet);
            frame.extend(padding);
            frame
        },
    )
}

/// How many extension headers `bytes`, a well-made chain of them, holds.
pub(super) fn ipv6_next_headers(first: u8, bytes: &[u8]) -> usize {
    let (mut next, mut at, mut count) = (first, 0, 0);
    while at < bytes.len() {
        let length = usize::from(bytes[at + 1]);
        let step = match next {
            44 => 8,
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        (next, at, count) = (bytes[at], at + step, count + 1);
    }
    count
}

fn tags() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![
        4 => Just(Vec::new()),
        2 => proptest::collection::vec(select(std::vec![0x8100, 0x88a8]), 1..3),
        1 => proptest::collection::vec(select(std::vec![0x8100, 0x88a8, 0x9100]), 1..4),
    ]
}

fn transport() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let tcp = (any::<[u8; 12]>(), 0_usize..11, any::<[u8; 7]>(), proptest::collection::vec(any::<u8>(), 40..60))
        .prop_map(|(start, option_words, rest, tail)| {
            let mut segment = start.to_vec();
            segment.push(((5 + option_words) << 4) as u8);
            segment.extend(rest);
            segment.extend(&tail);
            (TCP, segment)
        });
    let udp = (any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..20), select(std::vec![0_u16, 0, 0, 8, 9]))
        .prop_map(|(ports, data, lie)| {
            let mut datagram = ports.to_vec();
            let length = if lie == 9 { 0 } else { 8 + data.len() as u16 + lie };
            datagram.extend(length.to_be_bytes());
            datagram.extend([0, 0]);
            datagram.extend(data);
            (UDP, datagram)
        });
    let other = (select(std::vec![ICMP, ICMPV6, 50, 51, 59, 4]), proptest::collection::vec(any::<u8>(), 0..40));
    prop_oneof![4 => tcp, 3 => udp, 1 => other]
}

fn fragment_bits() -> impl Strategy<Value = (u16, bool)> {
    prop_oneof![3 => Just((0, false)), 1 => Just((0, true)), 1 => (0_u16..0x2000, any::<bool>())]
}

fn ipv4() -> impl Strategy<Value = (u16, Vec<u8>)> {
    (transport(), any::<[u8; 8]>(), 0_usize..11, any::<bool>(), fragment_bits()).prop_map(
        |((protocol, data), addresses, option_words, has_options, (offset, more))| {
            let header_bytes = 20 + if has_options { option_words * 4 } else { 0 };
            let mut packet = std::vec![0x40 | (header_bytes / 4) as u8, 0];
            packet.extend(((header_bytes + data.len()) as u16).to_be_bytes());
            packet.extend([0, 7]);
            packet.extend((offset | u16::from(more) << 13).to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend(addresses);
            packet.resize(header_bytes, 1);
            packet.extend(data);
            (0x0800, packet)
        },
    )
}

fn ipv6() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let extension = (select(std::vec![0_u8, 43, 44, 51, 60, 60]), 0_u8..3, fragment_bits());
    let address = prop_oneof![
        9 => any::<[u8; 16]>(),
        1 => any::<[u8; 4]>().prop_map(|v4| core::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()),
    ];
    (transport(), [address.clone(), address], proptest::collection::vec(extension, 0..9)).prop_map(
        |((protocol, data), addresses, mut chain)| {
            // Hop-by-hop options stand first, if anywhere.
            chain.sort_by_key(|(number, ..)| *number != 0);
            let numbers: Vec<u8> = chain.iter().map(|(number, ..)| *number).chain([protocol]).collect();
            let mut body = Vec::new();
            for (index, (number, length, (offset, more))) in chain.into_iter().enumerate() {
                let next = numbers[index + 1];
                match number {
                    44 => {
                        body.extend([next, 0]);
                        body.extend((offset << 3 | u16::from(more)).to_be_bytes());
                        body.extend([0, 0, 0, 7]);
                    }
                    51 => {
                        body.extend([next, length]);
                        body.extend(std::vec![0; (usize::from(length) + 2) * 4 - 2]);
                    }
                    _ => {
                        body.extend([next, length]);
                        body.extend(std::vec![0; (usize::from(length) + 1) * 8 - 2]);
                    }
                }
            }
            body.extend(data);
            let mut packet = std::vec![0x60, 0, 0, 0];
            packet.extend((body.len() as u16).to_be_bytes());
            packet.extend([numbers[0], 64]);
            packet.extend(addresses.concat());
            packet.extend(body);
            (0x86dd, packet)
        },
    )
}
