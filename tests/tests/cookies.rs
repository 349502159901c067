//! SYN cookies: what is answered, with which bytes, and what a packet must show under pressure.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;

use lb_datapath::{Datapath, Desired, DesiredService, Limits, Ports, Rate, Rates, SynCookies, Verdict, WorkerSocket};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::packet::{ACK, Packet, RST, SYN, has_right_checksums};
use lb_tests::program::{Bench, chain, moved, unique_options};

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1:1::1]:40000";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";
const FAMILIES: [(&str, &str); 2] = [(CLIENT_4, WEB_4), (CLIENT_6, WEB_6)];

/// As Linux sends them: segment size 1460, selective acknowledgements, timestamp 0x01020304, window scale 7.
const USUAL_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

const ALWAYS: SynCookies = SynCookies::Always { threshold_syns_per_second: 1_000_000 };
/// Every SYN but the first is pressure.
const PRESSED: SynCookies = SynCookies::Auto { threshold_syns_per_second: 1 };
const CALM: SynCookies = SynCookies::Auto { threshold_syns_per_second: 1_000_000 };

const COOKIES_ALWAYS: (&str, &str) = ("tcp_syncookies", "2");
const COOKIES_WHEN_FULL: (&str, &str) = ("tcp_syncookies", "1");
const NO_COOKIES: (&str, &str) = ("tcp_syncookies", "0");
const PLAIN_TIMESTAMPS: (&str, &str) = ("tcp_timestamps", "2");

fn web(limits: Limits, syn_cookies: SynCookies) -> Desired {
    let vips = ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("a VIP")).to_vec();
    let name = String::from("web");
    let web = DesiredService { name, vips, ports: Ports::One(443), limits, syn_cookies, ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

/// Loads in a namespace with these settings of the kernel, and with a listener of each family.
fn with_listeners(settings: &[(&str, &str)], desired: Desired, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    let file = |name: &str| format!("/proc/sys/net/ipv4/{name}");
    let settings: Vec<_> = settings.iter().map(|(name, value)| (file(name), String::from(*value))).collect();
    Namespace::new().run(move || {
        for (file, value) in settings {
            fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let options = unique_options();
        let (mut datapath, _) = Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
        datapath.apply(&desired).expect("applied");
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).expect("a free port"));
        let sockets = listeners.each_ref().map(|listener| WorkerSocket {
            service: "web",
            worker: 0,
            socket: listener.as_fd(),
            ipv6: listener.local_addr().expect("bound").is_ipv6(),
        });
        datapath.steer_to(&sockets).expect("steered");
        let reader = datapath.reader();
        let mut bench = Bench { datapath, reader };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut bench)));
        drop(bench);
        lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloaded");
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs the program once: verdict, what moved, and the frame that came out.
fn run(bench: &Bench, frame: &[u8]) -> (Verdict, BTreeMap<String, u64>, Vec<u8>) {
    let before = bench.reader.stats().expect("counters");
    let outcome = bench.datapath.try_out(frame, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
    (outcome.verdict, moved(&before, &bench.reader.stats().expect("counters")), outcome.frame)
}

fn counters(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
    rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn answered() -> BTreeMap<String, u64> {
    counters(&[("reason syn_cookie_sent unknown", 1), ("cookies web seen", 1), ("cookies web answered", 1)])
}

/// Where the TCP header of a frame without IP options begins.
fn tcp_offset(frame: &[u8], tag_bytes: usize) -> usize {
    14 + tag_bytes + if frame[14 + tag_bytes] >> 4 == 4 { 20 } else { 40 }
}

#[test]
fn a_syn_is_answered_with_its_ends_exchanged_and_nothing_else_moves() {
    with_listeners(&[COOKIES_ALWAYS], web(Limits::default(), ALWAYS), |bench| {
        for (client, vip) in FAMILIES {
            let syn = Packet::new(client, vip).build();
            let (verdict, moved, frame) = run(bench, &syn);
            assert_eq!((verdict, moved), (Verdict::Transmit, answered()), "{vip}");
            assert!(has_right_checksums(&frame), "{vip}: {frame:02x?}");
            let expected = Packet::new(vip, client).tcp_flags(SYN | ACK).tcp_options(&[2, 4, 5, 180]).build();
            let tcp = tcp_offset(&frame, 0);
            let size = if vip == WEB_4 { 1460_u16 } else { 1440 };
            assert_eq!(frame[..12], [&syn[6..12], &syn[..6]].concat(), "Ethernet addresses");
            assert_eq!(frame[tcp - 8..tcp + 4], expected[tcp - 8..tcp + 4], "addresses and ports");
            assert_eq!(frame[tcp + 8..tcp + 14], [0, 0, 0, 2, 0x60, SYN | ACK], "{vip}");
            assert_eq!(frame[tcp + 20..tcp + 24], [&[2, 4][..], &size.to_be_bytes()].concat(), "{vip}");
            assert!(frame.len() >= 60 && frame[tcp + 24..].iter().all(|byte| *byte == 0), "padding is zero");
        }
    });
}

#[test]
fn options_are_answered_as_far_as_the_kernel_can_take_them_back() {
    with_listeners(&[COOKIES_ALWAYS], web(Limits::default(), ALWAYS), |bench| {
        for (client, vip) in FAMILIES {
            let (verdict, _, frame) = run(bench, &Packet::new(client, vip).tcp_options(&USUAL_OPTIONS).build());
            let tcp = tcp_offset(&frame, 0);
            assert_eq!((verdict, frame[tcp + 12]), (Verdict::Transmit, 0x60), "{vip}: the segment size alone");
        }
    });
    with_listeners(&[COOKIES_ALWAYS, PLAIN_TIMESTAMPS], web(Limits::default(), ALWAYS), |bench| {
        for (client, vip) in FAMILIES {
            let (verdict, _, frame) = run(bench, &Packet::new(client, vip).tcp_options(&USUAL_OPTIONS).build());
            assert!(has_right_checksums(&frame), "{vip}: {frame:02x?}");
            let tcp = tcp_offset(&frame, 0);
            assert_eq!((verdict, frame[tcp + 12], frame.len()), (Verdict::Transmit, 0xa0, tcp + 40), "{vip}");
            assert_eq!(frame[tcp + 24..tcp + 28], [4, 2, 8, 10], "{vip}");
            assert_eq!(frame[tcp + 31] & 0x1f, 0x17, "{vip}: scale 7 and selective acknowledgements come back to us");
            assert_eq!(frame[tcp + 32..tcp + 39], [1, 2, 3, 4, 1, 3, 3], "{vip}");
        }
    });
}

#[test]
fn tags_stay_ip_options_go_and_a_long_syn_gets_a_short_answer() {
    with_listeners(&[COOKIES_ALWAYS], web(Limits::default(), ALWAYS), |bench| {
        for (client, vip) in FAMILIES {
            let long = Packet::new(client, vip).vlan(0x88a8, 5).vlan(0x8100, 6).data(900);
            let long = if vip == WEB_4 { long.ipv4_options(3) } else { long };
            let (verdict, moved, frame) = run(bench, &long.build());
            assert_eq!((verdict, moved), (Verdict::Transmit, answered()), "{vip}");
            assert_eq!(frame[12..20], long.build()[12..20], "{vip}: the tags");
            let tcp = tcp_offset(&frame, 8);
            assert_eq!(frame.len(), 60.max(tcp + 24), "{vip}");
            let untagged = [&frame[..12], &frame[20..]].concat();
            assert!(has_right_checksums(&untagged), "{vip}: {frame:02x?}");
        }
    });
}

/// The third packet of a handshake: acknowledges the answer.
fn acknowledgement(client: &str, vip: &str, answer: &[u8]) -> Packet {
    let tcp = tcp_offset(answer, 0);
    let cookie = u32::from_be_bytes(answer[tcp + 4..tcp + 8].try_into().expect("four bytes"));
    Packet::new(client, vip).tcp_flags(ACK).sequence(2).acknowledgement(cookie.wrapping_add(1))
}

fn press(bench: &Bench) {
    let stranger = Packet::new("203.0.113.9:1000", WEB_4).build();
    let is_answered = |_: &i32| run(bench, &stranger).0 == Verdict::Transmit;
    assert!((0..4).any(|round| is_answered(&round)), "a few SYNs at once are pressure");
}

#[test]
fn under_pressure_a_packet_needs_a_connection_or_a_cookie() {
    with_listeners(&[COOKIES_ALWAYS], web(Limits::default(), PRESSED), |bench| {
        press(bench);
        for (client, vip) in FAMILIES {
            let (_, moved, answer) = run(bench, &Packet::new(client, vip).build());
            assert_eq!(moved, answered(), "{vip}");
            let good = acknowledgement(client, vip, &answer);
            let (verdict, moved, frame) = run(bench, &good.build());
            let bytes = frame.len() as u64 - 14;
            let expected = [
                ("reason admitted unknown", 1),
                ("service web admitted", 1),
                ("service web bytes", bytes),
                ("cookies web valid", 1),
            ];
            assert_eq!((verdict, moved), (Verdict::Pass, counters(&expected)), "{vip}");
            assert_eq!(frame, good.build(), "{vip}: untouched");

            let bad = [
                ("another number", good.clone().acknowledgement(7)),
                ("another sequence", good.clone().sequence(9)),
                ("a SYN-ACK", good.clone().tcp_flags(SYN | ACK)),
                ("a reset", good.clone().tcp_flags(RST)),
                ("no acknowledgement", good.clone().tcp_flags(0)),
            ];
            for (name, packet) in bad {
                let (verdict, moved, _) = run(bench, &packet.build());
                let expected =
                    [("reason bad_syn_cookie unknown", 1), ("service web dropped", 1), ("cookies web bad", 1)];
                assert_eq!((verdict, moved), (Verdict::Drop, counters(&expected)), "{vip}: {name}");
            }
        }
    });
}

fn passes_unanswered(bench: &Bench, frame: &[u8]) {
    let (verdict, moved, _) = run(bench, frame);
    let expected = [
        ("reason admitted unknown", 1),
        ("service web admitted", 1),
        ("service web bytes", frame.len() as u64 - 14),
        ("service web syns", 1),
        ("worker 0 picked", 1),
        ("cookies web seen", 1),
    ];
    assert_eq!((verdict, moved), (Verdict::Pass, counters(&expected)));
}

#[test]
fn without_pressure_the_kernel_answers() {
    with_listeners(&[COOKIES_ALWAYS], web(Limits::default(), CALM), |bench| {
        for (client, vip) in FAMILIES {
            passes_unanswered(bench, &Packet::new(client, vip).build());
        }
    });
}

#[test]
fn nothing_is_answered_that_the_kernel_would_not_take_back() {
    with_listeners(&[COOKIES_WHEN_FULL], web(Limits::default(), ALWAYS), |bench| {
        passes_unanswered(bench, &Packet::new(CLIENT_4, WEB_4).build());
    });
    with_listeners(&[NO_COOKIES], web(Limits::default(), ALWAYS), |bench| {
        let (verdict, moved, _) = run(bench, &Packet::new(CLIENT_4, WEB_4).build());
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(moved.get("cookies web seen"), None, "switched off: {moved:?}");
    });
}

#[test]
fn a_source_whose_limit_others_exhausted_is_answered_and_let_in_with_its_cookie() {
    let limit = Rates::of_packets(Rate { per_second: 1, burst: 2 });
    let limits = Limits { source: limit, ..Limits::default() };
    with_listeners(&[COOKIES_ALWAYS], web(limits, CALM), |bench| {
        for (client, vip) in FAMILIES {
            let syn = Packet::new(client, vip).build();
            // Forged, for all that the limiter can tell.
            let verdicts: Vec<_> = (0..10).map(|_| run(bench, &syn).0).collect();
            assert_eq!(verdicts.last(), Some(&Verdict::Transmit), "{vip}: {verdicts:?}");
            let (_, moved, answer) = run(bench, &syn);
            assert_eq!(moved, answered(), "{vip}");
            let good = acknowledgement(client, vip, &answer);
            let (verdict, moved, _) = run(bench, &good.build());
            assert_eq!(verdict, Verdict::Pass, "{vip}: {moved:?}");
            assert_eq!(moved.get("reason proven_by_cookie unknown"), Some(&1), "{vip}: {moved:?}");
            let (verdict, moved, _) = run(bench, &good.clone().acknowledgement(7).build());
            assert_eq!(verdict, Verdict::Drop, "{vip}");
            assert_eq!(moved.get("reason source_limit unknown"), Some(&1), "{vip}: {moved:?}");
        }
    });
}

#[test]
fn what_is_proven_has_a_limit_too() {
    let limit = Rates::of_packets(Rate { per_second: 1, burst: 2 });
    let limits = Limits { source: limit, ..Limits::default() };
    with_listeners(&[COOKIES_ALWAYS], web(limits, ALWAYS), |bench| {
        let admitted = (0..20)
            .filter(|number| {
                let client = format!("192.0.2.1:{}", 30_000 + number);
                let (_, _, answer) = run(bench, &Packet::new(&client, WEB_4).build());
                run(bench, &acknowledgement(&client, WEB_4, &answer).build()).0 == Verdict::Pass
            })
            .count();
        // Two from the limit that all packets charge, two from the one that cookies do.
        assert!((2..=4).contains(&admitted), "{admitted} connections of one source at once");
    });
}

#[test]
fn a_blocked_source_is_not_answered() {
    with_listeners(&[COOKIES_ALWAYS], web(Limits::default(), ALWAYS), |bench| {
        let source = lb_datapath::Source::of("192.0.2.1".parse().expect("an address"));
        bench.datapath.block(source, std::time::Duration::from_secs(60)).expect("blocked");
        let (verdict, moved, _) = run(bench, &Packet::new(CLIENT_4, WEB_4).build());
        assert_eq!(verdict, Verdict::Drop);
        assert_eq!(moved.get("reason blocked unknown"), Some(&1), "{moved:?}");
    });
}
