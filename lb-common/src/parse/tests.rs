//! The hand-written rows that follow a packet from end to end are in lb-tests; here random bytes look for what no row
//! thought of.

use super::*;
use crate::slow_path::{SlowPath, Stop};
use proptest::prelude::*;
use std::vec::Vec;

/// A packet that notes the furthest byte it was asked for and given.
struct Watched<'a> {
    bytes: &'a [u8],
    furthest: core::cell::Cell<usize>,
}

impl Packet for Watched<'_> {
    fn length_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let value = self.bytes.load(offset)?;
        self.furthest.set(self.furthest.get().max(offset + size_of::<T>()));
        Some(value)
    }
}

fn ipv4_tcp() -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, TCP, 0, 0, 192, 0, 2, 1, 198, 51, 100, 10]);
    frame.extend([0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

fn ipv6_tcp_behind_extensions() -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend([0x81, 0x00, 0, 7, 0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 36, 0, 64]);
    frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    frame.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend([TCP, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend([0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

#[test]
fn a_plain_syn_gives_its_addresses_and_ports() {
    let headers = parse(&ipv4_tcp().as_slice()).expect("IPv4");
    assert_eq!(core::net::IpAddr::from(headers.source).to_canonical(), core::net::IpAddr::from([192, 0, 2, 1]));
    assert_eq!(headers.length_bytes, 40);
    let expected = Transport {
        source_port: 40_000,
        destination_port: 443,
        opens_connection: true,
        closes_connection: false,
        offset: 34,
    };
    assert_eq!(headers.transport, Ok(expected));
}

#[test]
fn extension_headers_behind_a_vlan_tag_are_walked() {
    let headers = parse(&ipv6_tcp_behind_extensions().as_slice()).expect("IPv6");
    let expected = Transport {
        source_port: 40_000,
        destination_port: 443,
        opens_connection: false,
        closes_connection: false,
        offset: 74,
    };
    assert_eq!((headers.protocol, headers.transport), (TCP, Ok(expected)));
}

/// Frames of every shape, and two that are only a few bends away from an ordinary one.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let bends = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8);
    let start = prop_oneof![Just(ipv4_tcp()), Just(ipv6_tcp_behind_extensions())];
    let bent = (start, bends).prop_map(|(mut frame, bends)| {
        for (place, byte) in bends {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        frame
    });
    prop_oneof![1 => bent, 2 => frames::any_frame()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_makes_it_panic_or_claim_bytes_beyond_the_end(frame in frames()) {
        let packet = Watched { bytes: &frame, furthest: core::cell::Cell::new(0) };
        let parsed = parse(&packet);
        prop_assert!(packet.furthest.get() <= frame.len());
        if let Ok(headers) = parsed {
            prop_assert!(matches!(headers.protocol, TCP | UDP));
            if let Ok(transport) = headers.transport {
                prop_assert!(headers.link_bytes + headers.length_bytes as usize <= frame.len());
                prop_assert!(transport.offset < frame.len());
            }
        }
    }

    #[test]
    fn the_quick_reading_is_the_whole_one_or_says_who_reads_on(frame in frames()) {
        let whole = parse(&frame.as_slice());
        match parse_ordinary(&frame.as_slice()) {
            Ok(headers) => {
                prop_assert_eq!(Ok(headers), whole);
                prop_assert!(headers.fragment.is_whole());
            }
            Err(Stop::Reason(reason)) => prop_assert_eq!(Err(reason), whole),
            // It leaves nothing to a slow path that it could have read itself, nor to the wrong one.
            Err(Stop::Slow(path @ (SlowPath::SynCookie | SlowPath::CookieAnswer | SlowPath::CookieCheck))) => panic!("{path:?} reads no headers"),
            Err(Stop::Slow(SlowPath::Unusual)) => {
                let is_ordinary = |network: &Network| network.fault.is_none()
                    && network.link_bytes == 14
                    && network.fragment.is_whole()
                    && matches!(network.protocol, TCP | UDP)
                    && matches!(network.transport_offset - network.link_bytes, 20 | 40);
                let network = parse_network(&frame.as_slice());
                prop_assert!(!network.is_ok_and(|network| is_ordinary(&network) && network.source.is_v4()
                    == (network.transport_offset - network.link_bytes == 20)));
            }
            Err(Stop::Slow(SlowPath::Icmp)) => {
                prop_assert_eq!(whole.err(), Some(Reason::NotInspected));
                if let Ok(network) = parse_network(&frame.as_slice()) {
                    prop_assert!(matches!(network.protocol, ICMP | ICMPV6));
                }
            }
            Err(Stop::Slow(_)) => {
                prop_assert!(false, "nobody has read the headers yet");
            }
        }
    }

    #[test]
    fn bytes_after_the_datagram_change_nothing(frame in frames(), padding in proptest::collection::vec(any::<u8>(), 1..64)) {
        let Ok(headers) = parse(&frame.as_slice()) else { return Ok(()) };
        if headers.transport.is_err() {
            return Ok(());
        }
        let padded: Vec<u8> = frame.iter().chain(&padding).copied().collect();
        prop_assert_eq!(parse(&padded.as_slice()), Ok(headers));
    }

    #[test]
    fn a_fragment_lies_inside_the_longest_datagram_and_only_the_last_ends_between_units(frame in frames()) {
        let Ok(network) = parse_network(&frame.as_slice()) else { return Ok(()) };
        let fragment = network.fragment;
        if network.fault.is_some() || fragment.is_whole() {
            return Ok(());
        }
        prop_assert!(fragment.start_units < fragment.end_units);
        let bytes = network.end_offset - network.transport_offset;
        prop_assert!(usize::from(fragment.start_units) * 8 + bytes <= 65_535);
    }

    #[test]
    fn without_options_and_extensions_both_readings_of_the_ip_header_are_one(frame in frames()) {
        let Ok(network) = parse_network(&frame.as_slice()) else { return Ok(()) };
        if network.fault.is_none() {
            let expected = if network.is_bare() { Ok(network) } else { Err(Reason::NotInspected) };
            prop_assert_eq!(parse_bare_network(&frame.as_slice()), expected);
        }
    }
}
