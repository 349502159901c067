use core::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::parse::frames;
use crate::parse::{TCP, UDP};

/// Ethernet, IPv4 or IPv6, then the eight bytes that begin TCP and UDP.
fn frame(source: &str, destination: &str, protocol: u8, ip_bytes: usize) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) =
        (source.parse().expect("source"), destination.parse().expect("other"));
    let mut frame = std::vec![2; 12];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((ip_bytes as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((ip_bytes as u16 - 40).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend([0x9c, 0x40, 0x01, 0xbb]);
    if protocol == UDP {
        frame.extend([0x05, 0x78, 0, 0])
    } else {
        frame.extend([0; 8])
    }
    if protocol == TCP {
        frame.extend([0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    }
    frame.resize(14 + ip_bytes, 0xaa);
    frame
}

#[test]
fn of_a_long_packet_the_first_bytes_tell_who_sent_it_to_whom() {
    for (source, destination) in [("192.0.2.1", "198.51.100.10"), ("2001:db8::1", "2001:db8:100::10")] {
        let whole = frame(source, destination, TCP, 1440);
        let captured = Captured { bytes: &whole[..SAMPLE_BYTES], frame_bytes: whole.len() };
        let ends = ends(&captured).expect("an IP packet");
        assert_eq!((IpAddr::from(ends.source), IpAddr::from(ends.destination)), (parsed(source), parsed(destination)));
        assert_eq!((ends.protocol, ends.ports), (Some(TCP), Some((40_000, 443))), "{source}");
    }
}

fn parsed(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

#[test]
fn what_lies_beyond_the_captured_bytes_is_not_made_up() {
    let whole = frame("2001:db8::1", "2001:db8:100::10", TCP, 1440);
    // The ports are cut off.
    let captured = Captured { bytes: &whole[..54], frame_bytes: whole.len() };
    let ends = ends(&captured).expect("addresses");
    assert_eq!((ends.protocol, ends.ports), (Some(TCP), None));
    assert_eq!(super::ends(&Captured { bytes: &whole[..30], frame_bytes: whole.len() }), None);
    assert_eq!(super::ends(&Captured { bytes: &[], frame_bytes: 0 }), None);
}

#[test]
fn a_sample_that_lies_about_its_length_is_read_to_its_end_only() {
    let bytes = [7; SAMPLE_BYTES];
    let sample = |captured_bytes| PacketSample {
        monotonic_ns: 0,
        interface: 0,
        queue: 0,
        frame_bytes: 60,
        captured_bytes,
        reason: 0,
        action: 0,
        cpu: 0,
        unused: 0,
        bytes,
    };
    for (captured_bytes, read) in [(0, 0), (60, 60), (128, 128), (129, 128), (u32::MAX, 128)] {
        assert_eq!(sample(captured_bytes).captured().len(), read, "{captured_bytes}");
    }
}

proptest! {
    #[test]
    fn a_whole_frame_is_described_as_the_parser_reads_it(frame in frames::any_frame()) {
        let described = ends(&Captured { bytes: &frame, frame_bytes: frame.len() });
        if let Ok(headers) = parse::parse(&&frame[..]) {
            let ends = described.unwrap_or_else(|| panic!("{frame:02x?}"));
            prop_assert_eq!((ends.source, ends.destination), (headers.source, headers.destination));
            let ports = headers.transport.ok().map(|transport| (transport.source_port, transport.destination_port));
            prop_assert_eq!(ends.ports, ports);
        }
    }

    #[test]
    fn cut_anywhere_a_frame_is_described_no_differently_or_less(frame in frames::any_frame(), cut in 0..200_usize) {
        let whole = ends(&Captured { bytes: &frame, frame_bytes: frame.len() });
        let cut = ends(&Captured { bytes: &frame[..cut.min(frame.len())], frame_bytes: frame.len() });
        if let (Some(whole), Some(cut)) = (whole, cut) {
            prop_assert_eq!((cut.source, cut.destination), (whole.source, whole.destination));
            prop_assert!(cut.ports.is_none() || cut.ports == whole.ports);
        }
    }
}
