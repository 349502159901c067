use super::segment::{ACK, FIN, RST, SYN};
use super::*;
use crate::Address;
use crate::parse::{Headers, Transport, parse};
use crate::rate::conform;
use crate::types::CookiePolicy;
use core::net::IpAddr;
use proptest::prelude::*;
use std::vec::Vec;

const TICK_NS: u64 = 4_000_000;

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

/// A SYN to port 443 in a frame, IPv4 with so many option words, and with these TCP options.
fn syn(ipv4_option_words: usize, tcp_options: &[u8]) -> Vec<u8> {
    assert_eq!(tcp_options.len() % 4, 0);
    let mut frame = [[0x02; 12].as_slice(), &[0x08, 0]].concat();
    let header_bytes = 20 + ipv4_option_words * 4;
    let length = (header_bytes + 20 + tcp_options.len()) as u16;
    frame.extend([0x40 | (header_bytes / 4) as u8, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 10]);
    frame.resize(14 + header_bytes, 1);
    frame.extend([0x9c, 0x40, 0x01, 0xbb, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 7]);
    frame.extend([((5 + tcp_options.len() / 4) << 4) as u8, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(tcp_options);
    frame
}

fn read(frame: &[u8]) -> (Headers, Transport, Segment) {
    let headers = parse(&frame).expect("IPv4");
    let transport = headers.transport.expect("TCP");
    (headers, transport, Segment::read(&frame, &transport).expect("readable"))
}

fn options(frame: &[u8]) -> SynOptions {
    let (_, _, segment) = read(frame);
    let mut bytes = [0_u8; OPTION_BUFFER_BYTES];
    let written = &frame[segment.offset + TCP_BYTES..segment.offset + segment.header_bytes];
    bytes[..written.len()].copy_from_slice(written);
    let mut walk = OptionWalk::new(zerocopy::transmute!(bytes), segment.header_bytes);
    let steps = (0..MOST_STEPS).filter(|_| walk.step()).count();
    assert!(steps < MOST_STEPS as usize || !walk.step(), "the bound is enough");
    walk.found()
}

const NOTHING: SynOptions =
    SynOptions { max_segment_bytes: 0, window_scale: None, selective_acknowledgements: false, timestamp: None };

/// As Linux sends them.
const USUAL: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
const USUAL_READ: SynOptions = SynOptions {
    max_segment_bytes: 1460,
    window_scale: Some(7),
    selective_acknowledgements: true,
    timestamp: Some(0x0102_0304),
};

#[test]
fn the_options_of_a_syn_are_read_wherever_they_stand() {
    let rows: [(&str, &[u8], SynOptions); 8] = [
        ("none", &[], NOTHING),
        ("the usual ones", &USUAL, USUAL_READ),
        ("forty bytes of nothing", &[1; 40], NOTHING),
        ("behind the end of options", &[0, 0, 0, 0, 2, 4, 5, 180], NOTHING),
        ("the last of two counts", &[2, 4, 5, 180, 2, 4, 1, 0], SynOptions { max_segment_bytes: 256, ..NOTHING }),
        ("a scale that cannot be is the largest", &[3, 3, 200, 1], SynOptions { window_scale: Some(14), ..NOTHING }),
        ("an option of length 0 ends it", &[254, 0, 1, 1, 2, 4, 5, 180], NOTHING),
        ("one that leaves the header is none", &[1, 1, 8, 10], NOTHING),
    ];
    for (name, bytes, expected) in rows {
        assert_eq!(options(&syn(0, bytes)), expected, "{name}");
        assert_eq!(options(&syn(10, bytes)), expected, "{name}, behind IPv4 options");
    }
}

#[test]
fn only_what_can_be_the_third_packet_brings_a_cookie_back() {
    let (.., plain) = read(&syn(0, &[]));
    let rows = [(ACK, true), (ACK | FIN, true), (SYN | ACK, false), (RST | ACK, false), (RST, false), (FIN, false)];
    for (flags, expected) in rows {
        let segment = Segment { flags, ..plain };
        assert_eq!((segment.may_bring_cookie(), segment.is_plain_syn()), (expected, false), "{flags:#x}");
    }
    assert!(plain.is_plain_syn() && !plain.may_bring_cookie());
    assert!(!Segment { flags: SYN | FIN, ..plain }.is_plain_syn());
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn folded_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

const OFFER: Offer = Offer { max_segment_bytes: 1440, window_scale: 9, timestamp_clock_ms: Some(0x1000) };

#[test]
fn the_answer_says_what_both_sides_agree_on() {
    let (headers, _, segment) = read(&syn(0, &USUAL));
    let ends = [&headers.source, &headers.destination];
    let full = SynAck::new(&segment, ends, 0xabcd_ef01, &USUAL_READ, &OFFER);
    let bytes = bytes_of(&full.words);
    assert_eq!(full.bytes, 40);
    assert_eq!(bytes[..16], [1, 0xbb, 0x9c, 0x40, 0xab, 0xcd, 0xef, 1, 0, 0, 0, 0, 0xa0, 0x12, 0xff, 0xff]);
    // Timestamp 0x1000 with scale 7 and selective acknowledgements in its six low bits, moved out of the future.
    let stamp = [0, 0, 0x0f, 0xd7];
    assert_eq!(bytes[20..28], [2, 4, 5, 160, 4, 2, 8, 10]);
    assert_eq!(bytes[28..], [&stamp[..], &[1, 2, 3, 4], &[1, 3, 3, 9]].concat());

    let plain = SynAck::new(&segment, ends, 1, &NOTHING, &OFFER);
    assert_eq!((plain.bytes, plain.words[6]), (24, 0), "who sends no timestamp gets none");
    let mute = Offer { timestamp_clock_ms: None, ..OFFER };
    let silent = SynAck::new(&segment, ends, 1, &USUAL_READ, &mute);
    assert_eq!((silent.bytes, silent.words[6]), (24, 0), "a kernel that reads no timestamps offers none");
    let bare = SynOptions { timestamp: Some(1), ..NOTHING };
    let bytes = bytes_of(&SynAck::new(&segment, ends, 1, &bare, &OFFER).words);
    assert_eq!(bytes[24..28], [1, 1, 8, 10]);
    assert_eq!(bytes[36..], [1, 1, 1, 1], "neither scale nor selective acknowledgements were asked for");
}

#[test]
fn pressure_begins_above_the_threshold_and_not_at_it() {
    for threshold in [1, 10, 1_000, 10_000, 1_000_000] {
        let policy = CookiePolicy::new(SynCookies::Auto { threshold_syns_per_second: threshold }, TICK_NS);
        assert!((policy.batch_mask + 1).is_power_of_two() && policy.batch_mask < 32, "{threshold}");
        assert!(!policy.is_always() && policy.is_on());
        let pressed_at = |rate: f64| {
            let (mut arrival_ps, mut now_ns) = (0, 1_000_000_000_f64);
            let batches_in_two_seconds = (2.0 * rate / f64::from(policy.batch_mask + 1)) as u32;
            (0..batches_in_two_seconds.max(2)).any(|_| {
                now_ns += 1e9 * f64::from(policy.batch_mask + 1) / rate;
                let next_ps = conform(&policy.pressure, arrival_ps, (1000.0 * now_ns) as u64);
                arrival_ps = next_ps.unwrap_or(arrival_ps);
                next_ps.is_none()
            })
        };
        assert!(!pressed_at(f64::from(threshold) * 0.99), "{threshold}");
        assert!(pressed_at(f64::from(threshold) * 1.3), "{threshold}");
    }
    assert!(!CookiePolicy::new(SynCookies::Off, TICK_NS).is_on());
    assert!(CookiePolicy::new(SynCookies::Always { threshold_syns_per_second: 0 }, TICK_NS).is_always());
}

proptest! {
    #[test]
    fn no_options_make_the_walk_leave_its_bytes(
        words in 0_usize..=10,
        bytes in proptest::collection::vec(any::<u8>(), 40),
    ) {
        let found = options(&syn(0, &bytes[..words * 4]));
        prop_assert!(found.window_scale.is_none_or(|scale| scale <= 14));
    }

    #[test]
    fn every_answer_has_right_checksums(
        (sequence, cookie, clock_ms, echo) in any::<(u32, u32, u32, u32)>(),
        scale in proptest::option::of(0_u8..=14),
        sack: bool,
        is_v6: bool,
    ) {
        let (.., segment) = read(&syn(0, &USUAL));
        let segment = Segment { sequence, ..segment };
        let texts = if is_v6 { ["2001:db8::1", "2001:db8:100::10"] } else { ["192.0.2.1", "198.51.100.10"] };
        let [client, vip] = texts.map(address);
        let options = SynOptions { window_scale: scale, selective_acknowledgements: sack, timestamp: Some(echo), ..NOTHING };
        for timestamp_clock_ms in [None, Some(clock_ms)] {
            let answer = SynAck::new(&segment, [&client, &vip], cookie, &options, &Offer { timestamp_clock_ms, ..OFFER });
            let segment = &bytes_of(&answer.words)[..answer.bytes];
            let ip = if is_v6 {
                bytes_of(&ipv6_header(&vip, &client, answer.bytes))
            } else {
                bytes_of(&ipv4_header(&vip, &client, answer.bytes))
            };
            prop_assert!(is_v6 || folded_sum(&ip) == 0xffff);
            let addresses = if is_v6 { &ip[8..] } else { &ip[12..] };
            let covered = [addresses, &[0, answer.bytes as u8, 0, 6], segment].concat();
            prop_assert_eq!(folded_sum(&covered), 0xffff);
        }
    }

    #[test]
    fn the_kernel_reads_back_from_a_timestamp_what_was_put_into_it(
        clock_ms in 64_u32..,
        scale in proptest::option::of(0_u8..=14),
        sack: bool,
    ) {
        let (headers, _, segment) = read(&syn(0, &USUAL));
        let options = SynOptions { window_scale: scale, selective_acknowledgements: sack, timestamp: Some(1), ..NOTHING };
        let offer = Offer { timestamp_clock_ms: Some(clock_ms), ..OFFER };
        let answer = SynAck::new(&segment, [&headers.source, &headers.destination], 1, &options, &offer);
        let stamp = u32::from_be(answer.words[7]);
        prop_assert!(stamp <= clock_ms && clock_ms - stamp < 128);
        prop_assert_eq!(stamp & 0xf, scale.map_or(0xf, u32::from));
        prop_assert_eq!(stamp >> 4 & 1 == 1, sack);
    }
}
