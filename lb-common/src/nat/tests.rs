use core::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::Address;
use crate::parse::{TCP, UDP};

const POLICY: NatPolicy = NatPolicy {
    blocks: 4,
    first_port: 10_000,
    last_port: 10_099,
    tcp_idle_steps: steps_of(3600),
    udp_idle_steps: steps_of(60),
    ..NatPolicy::NONE
};

const SEQUENCE: u32 = u32::MAX - 3;

fn segment(flags: u8) -> Segment {
    Segment { flags, sequence: SEQUENCE, acknowledgement: SEQUENCE.wrapping_add(1) }
}

fn client(word: u64, flags: u8) -> u64 {
    after_client(word, &segment(flags), SEQUENCE)
}

fn backend(word: u64, flags: u8) -> u64 {
    after_backend(word, &segment(flags))
}

/// Seconds of silence after which the slot may be taken.
fn lasts_seconds(word: u64) -> u32 {
    let begin = word as u32;
    let steps = (0..).find(|steps| is_free(word, begin.wrapping_add(*steps), &POLICY)).expect("some day");
    (u64::from(steps) << STEP_BITS).div_euclid(1_000_000_000) as u32
}

#[test]
fn each_state_of_a_tcp_connection_lasts_as_long_as_it_should() {
    let syn = begun(true, 7);
    let answered = backend(syn, SYN | ACK);
    let confirmed = client(answered, ACK);
    let rows = [
        ("SYN", syn, 10),
        ("SYN, SYN-ACK", answered, 10),
        ("SYN, ACK of nothing", client(syn, ACK), 10),
        ("the handshake", confirmed, 3600),
        ("data both ways", backend(client(confirmed, ACK), ACK), 3600),
        ("FIN of the client", client(confirmed, FIN | ACK), 120),
        ("FIN of the backend", backend(confirmed, FIN | ACK), 120),
        ("both FINs", backend(client(confirmed, FIN | ACK), FIN | ACK), 60),
        ("RST of the client", client(confirmed, RST), 10),
        ("RST of the backend", backend(syn, RST | ACK), 10),
        ("data after RST", client(client(confirmed, RST), ACK), 10),
        ("a SYN after both FINs", client(backend(client(confirmed, FIN), FIN), SYN), 10),
        ("a SYN in the middle", client(confirmed, SYN), 3600),
    ];
    for (name, word, seconds) in rows {
        let lasts = lasts_seconds(word);
        assert!((seconds..=seconds + 3).contains(&lasts), "{name}: {lasts} s instead of {seconds}");
    }
}

#[test]
fn udp_lasts_longer_once_the_backend_has_answered() {
    for (word, seconds) in [(begun(false, 0), 10), (begun(false, 0) | ANSWERED, 60)] {
        let lasts = lasts_seconds(word);
        assert!((seconds..=seconds + 3).contains(&lasts), "{lasts} s instead of {seconds}");
    }
}

#[test]
fn an_acknowledgement_of_what_the_backend_never_said_confirms_nothing() {
    let answered = backend(begun(true, 0), SYN | ACK);
    for (acknowledgement, confirms) in [
        (SEQUENCE, false),
        (0, true),
        (SEQUENCE.wrapping_add(1), true),
        (SEQUENCE.wrapping_add(65_537), false),
        (1 << 31, false),
    ] {
        let word = after_client(answered, &Segment { flags: ACK, sequence: 1, acknowledgement }, SEQUENCE);
        assert_eq!(word & CONFIRMED != 0, confirms, "{acknowledgement}");
    }
}

#[test]
fn a_slot_is_free_when_nobody_holds_it_and_a_clock_ahead_is_no_age() {
    assert!(is_free(0, 0, &POLICY));
    assert!(is_free(12_345, 12_345, &POLICY), "freed");
    assert!(!is_free(HELD | 5, 5, &POLICY), "in the making");
    assert!(is_free(HELD | 5, 500, &POLICY), "left in the making");
    assert!(!is_free(begun(true, 5), 4, &POLICY), "another CPU's clock");
    assert!(!is_free(begun(true, u32::MAX), 3, &POLICY), "the clock wraps around");
    assert_eq!(touched(begun(true, 5), 9), begun(true, 9));
}

#[test]
fn ports_and_blocks_stay_inside_and_all_come_up() {
    let (mut ports, mut blocks) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for hash in (0..4000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        ports.insert(POLICY.port(hash, 0));
        blocks.insert(POLICY.block(hash, 1, 3));
        assert_ne!(POLICY.block(1, 0, 0), POLICY.block(1, 0, 5), "a packet that comes again looks elsewhere");
    }
    assert_eq!(ports, (10_000..=10_099).collect());
    assert_eq!(blocks, (0..4).collect());
    assert_eq!(NatPolicy { first_port: 0, last_port: u16::MAX, ..POLICY }.port(u64::MAX, 0) as u32 >> 16, 0);
    let asked: std::collections::BTreeSet<u16> = (0..PORTS_TRIED).map(|attempt| POLICY.port(99, attempt)).collect();
    assert!(asked.len() > 10, "attempts differ: {asked:?}");
}

fn address(is_v4: bool, seed: u64) -> Address {
    let ip: IpAddr = if is_v4 {
        IpAddr::from((seed as u32).to_be_bytes())
    } else {
        IpAddr::from(((u128::from(seed) * 0x1_0000_0000_0001) | (1 << 127)).to_be_bytes())
    };
    ip.into()
}

fn ends(is_v4: bool, seeds: [u64; 2], ports: [u16; 2]) -> Ends {
    let [source, destination] = seeds.map(|seed| address(is_v4, seed));
    Ends { source, destination, source_port: ports[0], destination_port: ports[1] }
}

/// RFC 1071, in network order.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn wire(address: &Address) -> Vec<u8> {
    let octets = address.octets();
    if address.is_v4() { octets[12..].to_vec() } else { octets.to_vec() }
}

fn ip(ends: &Ends, protocol: u8, body: &[u8]) -> Vec<u8> {
    let addresses = [wire(&ends.source), wire(&ends.destination)].concat();
    if !ends.source.is_v4() {
        let length = (body.len() as u16).to_be_bytes();
        return [&[0x60, 0, 0, 0][..], &length, &[protocol, 64], &addresses, body].concat();
    }
    let length = (20 + body.len() as u16).to_be_bytes();
    let mut header = [&[0x45, 0][..], &length, &[0, 7, 0, 0, 64, protocol, 0, 0], &addresses].concat();
    let checksum = sum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    [header, body.to_vec()].concat()
}

/// As a sender would compute it.
fn packet(ends: &Ends, protocol: u8, data: &[u8], udp_sum: bool) -> Vec<u8> {
    let ports = [ends.source_port.to_be_bytes(), ends.destination_port.to_be_bytes()].concat();
    let (mut segment, at) = match protocol {
        TCP => ([&ports[..], &[9, 9, 9, 9, 8, 8, 8, 8, 0x50, 0x10, 1, 1, 0, 0, 0, 0], data].concat(), 16),
        _ => ([&ports[..], &(8 + data.len() as u16).to_be_bytes(), &[0, 0], data].concat(), 6),
    };
    let length = (segment.len() as u32).to_be_bytes();
    let addresses = [wire(&ends.source), wire(&ends.destination)].concat();
    let mut checksum = sum(&[&addresses, &length, &[0, 0, 0, protocol], &segment]);
    if protocol == UDP {
        checksum = if checksum == 0 { 0xffff } else { checksum };
        checksum = if udp_sum { checksum } else { 0 };
    }
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    ip(ends, protocol, &segment)
}

/// An ICMP error from `outer` that quotes the first bytes of `quoted`.
fn error(outer: &Ends, quoted: &[u8]) -> Vec<u8> {
    let is_v4 = outer.source.is_v4();
    let (kind, protocol) = if is_v4 { (3, 1) } else { (2, 58) };
    let mut message = [&[kind, 0, 0, 0, 0, 0, 5, 0][..], quoted].concat();
    let addresses = [wire(&outer.source), wire(&outer.destination)].concat();
    let length = (message.len() as u32).to_be_bytes();
    let checksum = if is_v4 { sum(&[&message]) } else { sum(&[&addresses, &length, &[0, 0, 0, protocol], &message]) };
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip(outer, protocol, &message)
}

fn place(is_v4: bool, protocol: u8) -> Place {
    let transport_offset = if is_v4 { 20 } else { 40 };
    Place { ip_offset: 0, is_v4, transport_offset, protocol, has_transport: true }
}

/// 0 and 0xffff are the same number to whoever sums; UDP alone tells them apart, and there they must not change.
fn assert_same(found: &[u8], expected: &[u8], checksums: &[usize]) {
    let (mut found, mut expected) = (found.to_vec(), expected.to_vec());
    for at in checksums {
        for bytes in [&mut found, &mut expected] {
            if bytes.get(*at..at + 2) == Some(&[0xff, 0xff]) {
                bytes[*at..at + 2].fill(0);
            }
        }
    }
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_translated_packet_is_the_one_that_its_new_sender_would_have_made(
        is_v4: bool, is_tcp: bool, udp_sum: bool,
        old_seeds: [u64; 2], new_seeds: [u64; 2], old_ports: [u16; 2], new_ports: [u16; 2],
        data in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let protocol = if is_tcp { TCP } else { UDP };
        let (old, new) = (ends(is_v4, old_seeds, old_ports), ends(is_v4, new_seeds, new_ports));
        let mut bytes = packet(&old, protocol, &data, udp_sum);
        prop_assert_eq!(translate(bytes.as_mut_slice(), &place(is_v4, protocol), &old, &new), Some(()));
        let expected = packet(&new, protocol, &data, udp_sum);
        let ip_sum = if is_v4 { 10 } else { usize::MAX - 2 };
        let checksums = if is_tcp { std::vec![ip_sum, place(is_v4, protocol).transport_offset + 16] } else { std::vec![ip_sum] };
        assert_same(&bytes, &expected, &checksums);
        prop_assert_eq!(translate(bytes.as_mut_slice(), &place(is_v4, protocol), &new, &old), Some(()));
        assert_same(&bytes, &packet(&old, protocol, &data, udp_sum), &checksums);
    }

    #[test]
    fn of_a_later_fragment_only_the_addresses_change(
        is_v4: bool, old_seeds: [u64; 2], new_seeds: [u64; 2], ports: [u16; 2],
        data in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let (old, new) = (ends(is_v4, old_seeds, ports), ends(is_v4, new_seeds, ports));
        let mut bytes = ip(&old, UDP, &data);
        let place = Place { has_transport: false, ..place(is_v4, UDP) };
        prop_assert_eq!(translate(bytes.as_mut_slice(), &place, &old, &new), Some(()));
        assert_same(&bytes, &ip(&new, UDP, &data), if is_v4 { &[10] } else { &[] });
    }

    #[test]
    fn a_translated_error_is_the_one_that_would_have_been_sent_about_the_other_packet(
        is_v4: bool, is_tcp: bool, seeds: [u64; 8], ports: [u16; 4], quoted_bytes in 8_usize..60,
    ) {
        // Half a checksum is left as it is.
        prop_assume!(!is_tcp || quoted_bytes != 17);
        let protocol = if is_tcp { TCP } else { UDP };
        let [outer_old, outer_new] = [[seeds[0], seeds[1]], [seeds[2], seeds[3]]].map(|seeds| ends(is_v4, seeds, [0; 2]));
        let old = ends(is_v4, [seeds[4], seeds[5]], [ports[0], ports[1]]);
        let new = ends(is_v4, [seeds[6], seeds[7]], [ports[2], ports[3]]);
        let header = if is_v4 { 20 } else { 40 };
        let quote = |ends: &Ends| {
            let whole = packet(ends, protocol, &[0x5a; 32], true);
            whole[..(header + quoted_bytes).min(whole.len())].to_vec()
        };
        let mut bytes = error(&outer_old, &quote(&old));
        let place = ErrorPlace {
            ip_offset: 0, is_v4, icmp_offset: header, transport_offset: header + 8 + header, protocol, end_offset: bytes.len(),
        };
        let translated = translate_error(bytes.as_mut_slice(), &place, [&outer_old, &outer_new], [&old, &new]);
        prop_assert_eq!(translated, Some(()));
        let mut checksums = std::vec![header + 2];
        if is_v4 {
            checksums.extend([10, header + 8 + 10]);
        }
        if is_tcp {
            checksums.push(header + 8 + header + 16);
        }
        assert_same(&bytes, &error(&outer_new, &quote(&new)), &checksums);
    }

    #[test]
    fn cut_short_a_packet_is_never_written_beyond_its_end(length in 0_usize..60, is_v4: bool, is_tcp: bool) {
        let protocol = if is_tcp { TCP } else { UDP };
        let (old, new) = (ends(is_v4, [1, 2], [3, 4]), ends(is_v4, [5, 6], [7, 8]));
        let mut bytes = packet(&old, protocol, &[], true);
        bytes.truncate(length);
        let whole = if is_v4 { 20 } else { 40 } + if is_tcp { 18 } else { 8 };
        let done = translate(bytes.as_mut_slice(), &place(is_v4, protocol), &old, &new);
        prop_assert_eq!(done.is_some(), length >= whole);
    }
}
