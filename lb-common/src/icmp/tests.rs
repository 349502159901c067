use super::*;
use crate::parse::parse_bare_network;
use core::net::{IpAddr, Ipv6Addr};
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const ROUTER: [u8; 4] = [192, 0, 2, 254];
const VIP: [u8; 4] = [198, 51, 100, 10];

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    !checksum::fold(words.sum())
}

fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x45, 0];
    packet.extend((20 + data.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 17, protocol, 0, 0]);
    packet.extend([source, destination].concat());
    let checksum = sum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(data);
    packet
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x60, 0, 0, 0];
    packet.extend((data.len() as u16).to_be_bytes());
    packet.extend([protocol, 17]);
    packet.extend([source.octets(), destination.octets()].concat());
    packet.extend(data);
    packet
}

fn icmp(kind: u8, code: u8, rest: [u8; 4], data: &[u8], pseudo_header: &[u8]) -> Vec<u8> {
    let mut message = std::vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(data);
    let checksum = sum(&[pseudo_header, &message].concat()).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    message
}

fn icmp_v6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, data: &[u8]) -> Vec<u8> {
    let length = 8 + data.len() as u32;
    let pseudo = [&source.octets()[..], &destination.octets(), &length.to_be_bytes(), &[0, 0, 0, ICMPV6]].concat();
    v6(source, destination, ICMPV6, &icmp(kind, 0, [0, 7, 0, 9], data, &pseudo))
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let ether_type: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ether_type, packet].concat()
}

fn kind_of(frame: &[u8]) -> Result<Kind, Reason> {
    let network = parse_bare_network(&frame).expect("IP");
    assert!(is_icmp(&network));
    kind(&frame, &network)
}

fn quoted_by(frame: &[u8]) -> Result<Connection, Reason> {
    assert_eq!(kind_of(frame), Ok(Kind::Error));
    quoted(&frame, &parse_bare_network(&frame).expect("IP"), |connection| Ok(*connection))
}

const PORTS: [u8; 8] = [0x01, 0xbb, 0x9c, 0x40, 0, 0, 0, 1];

fn unreachable(quoted: &[u8]) -> Vec<u8> {
    frame(&v4(ROUTER, VIP, ICMP, &icmp(3, 4, [0, 0, 5, 0], quoted, &[])))
}

#[test]
fn an_error_names_the_connection_as_the_client_does() {
    let expected = Connection {
        source: IpAddr::from(CLIENT).into(),
        destination: IpAddr::from(VIP).into(),
        source_port: 40_000,
        destination_port: 443,
        protocol: TCP,
    };
    assert_eq!(quoted_by(&unreachable(&v4(VIP, CLIENT, TCP, &PORTS))), Ok(expected));
    let mut with_options = v4(VIP, CLIENT, TCP, &[&[1; 8][..], &PORTS].concat());
    with_options[0] = 0x47;
    assert_eq!(quoted_by(&unreachable(&with_options)), Ok(expected), "behind options");
    let mut longer_than_quoted = v4(VIP, CLIENT, UDP, &PORTS);
    longer_than_quoted[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    let expected = Connection { protocol: UDP, ..expected };
    assert_eq!(quoted_by(&unreachable(&longer_than_quoted)), Ok(expected), "cut short");
}

#[test]
fn every_kind_is_told_from_the_others() {
    let quoted = v4(VIP, CLIENT, TCP, &PORTS);
    let of_kind = |kind, code| kind_of(&frame(&v4(ROUTER, VIP, ICMP, &icmp(kind, code, [0; 4], &quoted, &[]))));
    assert_eq!(of_kind(8, 0), Ok(Kind::EchoRequest));
    for (kind, code) in [(0, 0), (8, 1), (5, 1), (4, 0), (13, 0), (9, 0), (255, 0)] {
        assert_eq!(of_kind(kind, code), Ok(Kind::Other), "type {kind} code {code}");
    }
    for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)] {
        assert_eq!(of_kind(kind, code), Ok(Kind::Error), "type {kind} code {code}");
    }
    let [router, vip, client] = [1, 2, 3].map(|number| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number));
    let quoted = v6(vip, client, UDP, &PORTS);
    let frame_of = |kind| frame(&icmp_v6(router, vip, kind, &quoted));
    let of_kind = |kind| kind_of(&frame_of(kind));
    assert_eq!(of_kind(128), Ok(Kind::EchoRequest));
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
        assert_eq!(of_kind(kind), Ok(Kind::Discovery), "type {kind}");
    }
    for kind in [0, 5, 100, 127, 129, 138, 142, 144, 255] {
        assert_eq!(of_kind(kind), Ok(Kind::Other), "type {kind}");
    }
    for kind in 1..=4 {
        assert_eq!(quoted_by(&frame_of(kind)).map(|one| one.source), Ok(client.into()), "type {kind}");
    }
}

#[test]
fn errors_about_what_the_vip_never_sent_or_cut_short_are_bad_and_those_without_ports_are_the_hosts() {
    let fragment = |mut packet: Vec<u8>| {
        packet[6..8].copy_from_slice(&[0x20, 0x09]);
        packet
    };
    let version = |mut packet: Vec<u8>, first| {
        packet[0] = first;
        packet
    };
    let whole = v4(VIP, CLIENT, TCP, &PORTS);
    for (what, quoted, expected) in [
        ("another source", v4(CLIENT, VIP, TCP, &PORTS), Err(Reason::BadIcmp)),
        ("no ports", v4(VIP, CLIENT, TCP, &PORTS[..3]), Err(Reason::BadIcmp)),
        ("half a header", whole[..19].to_vec(), Err(Reason::BadIcmp)),
        ("nothing", Vec::new(), Err(Reason::BadIcmp)),
        ("another version", version(whole.clone(), 0x65), Err(Reason::BadIcmp)),
        ("a header below 20 bytes", version(whole.clone(), 0x44), Err(Reason::BadIcmp)),
        ("a header beyond the end", version(whole.clone(), 0x4f), Err(Reason::BadIcmp)),
        ("a ping", v4(VIP, CLIENT, ICMP, &PORTS), Err(Reason::IcmpPassed)),
        ("a fragment", fragment(whole), Err(Reason::IcmpPassed)),
    ] {
        assert_eq!(quoted_by(&unreachable(&quoted)), expected, "{what}");
    }
    let short = frame(&v4(ROUTER, VIP, ICMP, &[3, 4, 0, 0, 0, 0, 0]));
    assert_eq!(kind_of(&short), Err(Reason::BadIcmp), "seven bytes");
}

#[test]
fn a_request_for_many_is_answered_by_nobody() {
    let mut request = frame(&v4(CLIENT, VIP, ICMP, &icmp(8, 0, [0; 4], b"ping", &[])));
    request[0] = 0xff;
    let network = parse_bare_network(&request.as_slice()).expect("IP");
    let before = request.clone();
    assert_eq!(answer_echo(request.as_mut_slice(), &network), None);
    assert_eq!(request, before);
}

fn answered(mut frame: Vec<u8>) -> Vec<u8> {
    let network = parse_bare_network(&frame.as_slice()).expect("IP");
    answer_echo(frame.as_mut_slice(), &network).expect("answered");
    frame
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reply_is_the_one_made_from_scratch(data in proptest::collection::vec(any::<u8>(), 0..100), rest: [u8; 4]) {
        let request = frame(&v4(CLIENT, VIP, ICMP, &icmp(8, 0, rest, &data, &[])));
        let reply = answered(request);
        let mut expected = frame(&v4(VIP, CLIENT, ICMP, &icmp(0, 0, rest, &data, &[])));
        expected[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        expected[14 + 8] = 64;
        expected[14 + 10..14 + 12].fill(0);
        let checksum = sum(&expected[14..34]).to_be_bytes();
        expected[14 + 10..14 + 12].copy_from_slice(&checksum);
        prop_assert_eq!(reply, expected);
    }

    #[test]
    fn a_reply_is_the_one_made_from_scratch_ipv6(data in proptest::collection::vec(any::<u8>(), 0..100)) {
        let [client, vip] = [1, 2].map(|number| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number));
        let reply = answered(frame(&icmp_v6(client, vip, 128, &data)));
        let mut expected = frame(&icmp_v6(vip, client, 129, &data));
        expected[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        expected[14 + 7] = 64;
        prop_assert_eq!(reply, expected);
    }

    #[test]
    fn no_bytes_make_it_panic_and_a_connection_it_names_leads_to_the_destination(
        kind: u8,
        quoted in proptest::collection::vec(any::<u8>(), 0..80),
        bend in any::<proptest::sample::Index>(),
        byte: u8,
    ) {
        let mut bent = v4(VIP, CLIENT, TCP, &PORTS);
        let place = bend.index(bent.len());
        bent[place] = byte;
        for quoted in [&quoted, &bent] {
            let frame = frame(&v4(ROUTER, VIP, ICMP, &icmp(kind, 0, [0; 4], quoted, &[])));
            if kind_of(&frame) == Ok(Kind::Error)
                && let Ok(connection) = quoted_by(&frame)
            {
                prop_assert_eq!(IpAddr::from(connection.destination).to_string(), IpAddr::from(VIP).to_string());
                prop_assert!(matches!(connection.protocol, TCP | UDP));
            }
        }
    }
}
