//! Packets that do not fit somewhere on their way to or from a backend: errors find the backend whose packet was too big,
//! and senders of what is too big for the way to a backend are told.

use std::time::{Duration, Instant};

use lb_datapath::{BackendState, Desired, Forward, Verdict};
use lb_tests::forwarding_link::{EDGE_4, EDGE_6, EDGE_MAC, VIP_4, VIP_6, backend_mac, desired, edge, with_forwarding};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Extension, Packet, SYN};
use lb_tests::program::{Bench, Judged, with_bench_in};

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1:1::1]:40000";
const ROUTER_4: &str = "192.0.2.254:0";
const ROUTER_6: &str = "[2001:db8:1:ff::1]:0";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";
const FAMILIES: [(&str, &str, &str); 2] = [(CLIENT_4, WEB_4, ROUTER_4), (CLIENT_6, WEB_6, ROUTER_6)];

const BACKEND_4: &str = "10.9.0.2:443";
const BACKEND_6: &str = "[2001:db8:9::2]:443";

const ETHERNET_BYTES: usize = 14;
const MTU_BYTES: usize = 1500;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;

/// Every way of forwarding that leaves the packet whole, over both families, with what it adds.
const WAYS: [(Forward, &str, usize); 5] = [
    (Forward::Ipip, BACKEND_4, IPV4_BYTES),
    (Forward::Ipip, BACKEND_6, IPV6_BYTES),
    (Forward::Gue, BACKEND_4, IPV4_BYTES + UDP_BYTES),
    (Forward::Gue, BACKEND_6, IPV6_BYTES + UDP_BYTES),
    (Forward::L2, BACKEND_4, 0),
];

/// The same programs, told to forward one way after the other.
fn each_way(test: fn(&mut Bench, Forward, usize)) {
    if !has_root("program runs") {
        return;
    }
    with_forwarding(Desired::default(), move |bench| {
        for (forward, backend, outer_bytes) in WAYS {
            bench.datapath.apply(&desired(forward, &[backend])).expect("applied");
            test(bench, forward, outer_bytes);
        }
    });
}

/// The frame to the backend with this number, without its outer headers.
fn inside(frame: &[u8], number: u8, outer_bytes: usize) -> &[u8] {
    assert_eq!(frame[..6], backend_mac(number), "the next hop");
    assert_eq!(frame[6..12], EDGE_MAC, "our own address");
    &frame[ETHERNET_BYTES + outer_bytes..]
}

/// The outer headers without what differs from packet to packet: lengths, checksums, and inside UDP its length.
fn outer(frame: &[u8], outer_bytes: usize) -> Vec<u8> {
    let mut outer = frame[12..ETHERNET_BYTES + outer_bytes].to_vec();
    let variable: &[usize] = match (outer[0], outer_bytes) {
        (_, 0) => &[],
        (0x08, _) => &[4, 5, 12, 13, 26, 27],
        _ => &[6, 7, 46, 47],
    };
    for at in variable {
        if let Some(byte) = outer.get_mut(*at) {
            *byte = 0;
        }
    }
    outer
}

/// Of each family the errors that its senders must hear of: type and code.
fn errors(is_v4: bool) -> Vec<(u8, u8)> {
    if is_v4 {
        vec![(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]
    } else {
        vec![(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)]
    }
}

#[test]
fn an_error_about_a_backends_packet_goes_to_that_backend_as_its_flow_does() {
    each_way(|bench, _, outer_bytes| {
        for (client, vip, router) in FAMILIES {
            let (_, of_flow) = bench.judge_and_send(&Packet::new(client, vip).tcp_flags(ACK).data(9).build());
            for udp in [false, true] {
                let sent = Packet::new(vip, client).tcp_flags(ACK).data(1400);
                let sent = if udp { sent.udp() } else { sent };
                let quoted = &sent.build_packet()[..if vip == WEB_4 { 28 } else { 1232 }];
                for (kind, code) in errors(vip == WEB_4) {
                    let error = Packet::new(router, vip).icmp(kind, code, [0, 0, 5, 0], quoted).build();
                    let (judged, sent) = bench.judge_and_send(&error);
                    assert_eq!(judged, Judged::only(Verdict::Redirect, "icmp_forwarded"), "{vip} type {kind} {code}");
                    assert_eq!(inside(&sent, 2, outer_bytes), &error[ETHERNET_BYTES..], "{vip} type {kind} {code}");
                    if !udp {
                        assert_eq!(outer(&sent, outer_bytes), outer(&of_flow, outer_bytes), "as the flow's packets");
                    }
                }
            }
        }
    });
}

#[test]
fn the_vlan_tags_of_an_error_stay() {
    each_way(|bench, _, outer_bytes| {
        let quoted = Packet::new(WEB_4, CLIENT_4).tcp_flags(ACK).build_packet();
        let error =
            Packet::new(ROUTER_4, WEB_4).icmp(3, 4, [0, 0, 5, 0], &quoted).vlan(0x88a8, 5).vlan(0x8100, 6).build();
        let (judged, sent) = bench.judge_and_send(&error);
        assert_eq!(judged, Judged::only(Verdict::Redirect, "icmp_forwarded"));
        assert_eq!(sent[12..20], error[12..20], "the tags");
        assert_eq!(sent[ETHERNET_BYTES + 8 + outer_bytes..], error[ETHERNET_BYTES + 8..]);
    });
}

#[test]
fn an_error_follows_its_flow_and_not_the_table_when_the_backends_change() {
    if !has_root("program runs") {
        return;
    }
    const BACKENDS: [&str; 4] = ["10.9.0.2:443", "10.9.0.3:443", "10.9.0.4:443", "10.9.0.5:443"];
    let to = |port: u16| format!("192.0.2.1:{port}");
    with_forwarding(desired(Forward::Ipip, &BACKENDS[..1]), move |bench| {
        let flows: Vec<u16> = (40_000..40_040).collect();
        for port in &flows {
            bench.judge_and_send(&Packet::new(&to(*port), WEB_4).build());
        }
        let mut changed = desired(Forward::Ipip, &BACKENDS);
        changed.backends[0].state = BackendState::Draining;
        bench.datapath.apply(&changed).expect("applied");
        let receiver = |bench: &Bench, port: u16| {
            let quoted = Packet::new(WEB_4, &to(port)).tcp_flags(ACK).build_packet();
            let error = Packet::new(ROUTER_4, WEB_4).icmp(3, 4, [0, 0, 5, 0], &quoted).build();
            let (judged, sent) = bench.judge_and_send(&error);
            assert_eq!(judged, Judged::only(Verdict::Redirect, "icmp_forwarded"));
            sent[5]
        };
        assert!(flows.iter().all(|port| receiver(bench, *port) == 2), "flows that are known stay");
        changed.backends[0].state = BackendState::Down;
        bench.datapath.apply(&changed).expect("applied");
        let receivers: std::collections::BTreeSet<u8> = flows.iter().map(|port| receiver(bench, *port)).collect();
        assert_eq!(receivers, [3, 4, 5].into(), "as the flows themselves will");
        // Nor has the error made a flow of itself: the next packet is its flow's first.
        let (judged, _) = bench.judge_and_send(&Packet::new(&to(50_000), WEB_4).tcp_flags(ACK).build());
        assert_eq!(judged.moved.values().copied().max(), Some(40), "{judged:?}");
    });
}

#[test]
fn errors_about_what_the_vip_never_sent_reach_no_backend() {
    each_way(|bench, _, _| {
        for (client, vip, router) in FAMILIES {
            let (kind, code) = if vip == WEB_4 { (3, 4) } else { (2, 0) };
            let other = if vip == WEB_4 { "198.51.100.11:443" } else { "[2001:db8:100::11]:443" };
            let error = |quoted: &[u8]| Packet::new(router, vip).icmp(kind, code, [0, 0, 5, 0], quoted).build();
            let ours = Packet::new(vip, client).tcp_flags(ACK).build_packet();
            let header_bytes = if vip == WEB_4 { 20 } else { 40 };
            let rows = [
                ("another address's packet", error(&Packet::new(other, client).tcp_flags(ACK).build_packet())),
                ("the client's own packet", error(&Packet::new(client, vip).tcp_flags(ACK).build_packet())),
                ("nothing", error(&[])),
                ("half an IP header", error(&ours[..header_bytes - 1])),
                ("half the ports", error(&ours[..header_bytes + 3])),
            ];
            for (name, frame) in rows {
                assert_eq!(bench.judge(&frame), Judged::only(Verdict::Drop, "bad_icmp"), "{vip} {name}");
            }
            let port = Packet::new(&vip.replace("443", "444"), client).tcp_flags(ACK).build_packet();
            assert_eq!(bench.judge(&error(&port)), Judged::only(Verdict::Pass, "icmp_passed"), "another port");
        }
    });
}

/// A packet of so many IP bytes.
fn sized(client: &str, vip: &str, ip_bytes: usize) -> Packet {
    let header_bytes = if vip == WEB_4 { 20 } else { 40 } + 20;
    Packet::new(client, vip).tcp_flags(ACK).data(ip_bytes - header_bytes)
}

/// What the VIP must say of `frame`, whose tags stay.
fn told(frame: &[u8], fits_bytes: usize, tags: usize) -> Vec<u8> {
    let start = ETHERNET_BYTES + 4 * tags;
    let packet = &frame[start..];
    let [high, low] = (fits_bytes as u16).to_be_bytes();
    let message = if packet[0] >> 4 == 4 {
        Packet::new("198.51.100.10:0", "192.0.2.1:0")
            .icmp(3, 4, [0, 0, high, low], &packet[..548])
            .traffic_class(0xc0)
            .ipv4_identification(0, true)
    } else {
        Packet::new("[2001:db8:100::10]:0", "[2001:db8:1:1::1]:0").icmp(2, 0, [0, 0, high, low], &packet[..1232])
    };
    [&frame[6..12], &frame[..6], &frame[12..start], &message.build_packet()].concat()
}

/// Counted by the service like any packet, and by no backend.
fn answered(ip_bytes: usize) -> Judged {
    let moved =
        [("reason too_big_answered unknown", 1), ("service web admitted", 1), ("service web bytes", ip_bytes as u64)];
    Judged::moving(Verdict::Transmit, &moved)
}

fn unanswered(ip_bytes: usize) -> Judged {
    let moved = [
        ("reason too_big_for_backend unknown", 1),
        ("service web admitted", 1),
        ("service web bytes", ip_bytes as u64),
    ];
    Judged::moving(Verdict::Drop, &moved)
}

#[test]
fn who_sends_what_is_too_big_for_the_way_is_told_byte_for_byte_what_fits() {
    each_way(|bench, _, outer_bytes| {
        let fits_bytes = MTU_BYTES - outer_bytes;
        for (client, vip, _) in FAMILIES {
            let (judged, sent) = bench.judge_and_send(&sized(client, vip, fits_bytes).build());
            assert_eq!(judged.verdict, Verdict::Redirect, "{vip}: just fits: {judged:?}");
            assert_eq!(sent.len(), ETHERNET_BYTES + MTU_BYTES);
            for ip_bytes in [fits_bytes + 1, fits_bytes + 20, 2000] {
                let packet = sized(client, vip, ip_bytes);
                let frame = packet.build();
                assert_eq!(bench.judge_and_send(&frame), (answered(ip_bytes), told(&frame, fits_bytes, 0)), "{vip}");
                let frame = packet.clone().vlan(0x88a8, 5).vlan(0x8100, 6).build();
                assert_eq!(bench.judge_and_send(&frame), (answered(ip_bytes), told(&frame, fits_bytes, 2)), "{vip}");
            }
            let datagram = sized(client, vip, 1600).udp();
            let frame = datagram.build();
            let ip_bytes = frame.len() - ETHERNET_BYTES;
            assert_eq!(bench.judge_and_send(&frame), (answered(ip_bytes), told(&frame, fits_bytes, 0)), "{vip} UDP");
        }
    });
}

#[test]
fn without_the_bit_that_forbids_fragments_the_sender_is_told_too() {
    each_way(|bench, _, outer_bytes| {
        for do_not_fragment in [false, true] {
            let frame = sized(CLIENT_4, WEB_4, 1600).ipv4_identification(7, do_not_fragment).build();
            let expected = (answered(1600), told(&frame, MTU_BYTES - outer_bytes, 0));
            assert_eq!(bench.judge_and_send(&frame), expected);
        }
    });
}

#[test]
fn a_packet_with_options_or_extension_headers_is_quoted_with_them() {
    each_way(|bench, _, outer_bytes| {
        let with_options = sized(CLIENT_4, WEB_4, 1600).ipv4_options(3).build();
        let with_extension = sized(CLIENT_6, WEB_6, 1600).extension(Extension::DestinationOptions).build();
        for frame in [with_options, with_extension] {
            let expected = (answered(frame.len() - ETHERNET_BYTES), told(&frame, MTU_BYTES - outer_bytes, 0));
            assert_eq!(bench.judge_and_send(&frame), expected);
        }
    });
}

#[test]
fn nobody_is_told_about_later_fragments_nor_at_an_address_that_is_no_hosts() {
    each_way(|bench, _, outer_bytes| {
        let fits_bytes = MTU_BYTES - outer_bytes;
        let first = Packet::new(CLIENT_4, WEB_4).udp().data(1592).ipv4_fragment(0, true).udp_length(4000).build();
        let expected = (answered(1620), told(&first, fits_bytes, 0));
        let later = Packet::new(CLIENT_4, WEB_4).protocol(17).data(1600).ipv4_fragment(200, true).build();
        // A first fragment is remembered for two seconds, which a busy machine may take for the two.
        let later_in_time = (0..10).find_map(|_| {
            let begun = Instant::now();
            assert_eq!(bench.judge_and_send(&first), expected, "the first fragment");
            let judged = bench.judge_and_send(&later).0;
            (begun.elapsed() < Duration::from_secs(1)).then_some(judged)
        });
        assert_eq!(later_in_time, Some(unanswered(1620)), "a later one");
        for (source, vip) in [
            ("0.0.0.0:1", WEB_4),
            ("127.0.0.1:1", WEB_4),
            ("224.0.0.1:1", WEB_4),
            ("255.255.255.255:1", WEB_4),
            ("[::]:1", WEB_6),
            ("[::1]:1", WEB_6),
            ("[ff02::1]:1", WEB_6),
        ] {
            assert_eq!(bench.judge_and_send(&sized(source, vip, 1600).build()).0, unanswered(1600), "{source}");
        }
        let mut for_many = sized(CLIENT_4, WEB_4, 1600).build();
        for_many[0] = 0xff;
        assert_eq!(bench.judge_and_send(&for_many).0, unanswered(1600), "to a group of hosts");
    });
}

#[test]
fn an_error_that_is_too_big_itself_is_dropped_without_a_word() {
    each_way(|bench, _, _| {
        let quoted = Packet::new(WEB_4, CLIENT_4).tcp_flags(ACK).data(1480).build_packet();
        let error = Packet::new(ROUTER_4, WEB_4).icmp(3, 4, [0, 0, 5, 0], &quoted).build();
        assert_eq!(bench.judge_and_send(&error).0, Judged::only(Verdict::Drop, "too_big_for_backend"));
    });
}

#[test]
fn a_source_is_told_a_hundred_times_a_second_and_its_pings_are_answered_all_the_same() {
    if !has_root("program runs") {
        return;
    }
    with_forwarding(desired(Forward::Ipip, &[BACKEND_4]), |bench| {
        let frame = sized(CLIENT_4, WEB_4, 1600).build();
        // Without reading counters in between, which takes longer than the limit needs to forgive.
        let verdict = |_| bench.datapath.try_out(&frame, 1).expect("judged").verdict;
        let verdicts: Vec<_> = (0..1000).map(verdict).collect();
        let told = verdicts.iter().filter(|verdict| **verdict == Verdict::Transmit).count();
        assert!((100..1000).contains(&told), "{told} of 1000");
        assert!(verdicts[..100].iter().all(|verdict| *verdict == Verdict::Transmit), "a hundred at once");
        let ping = Packet::new(CLIENT_4, WEB_4).icmp(8, 0, [0, 7, 0, 9], b"ping").build();
        assert_eq!(bench.judge_and_send(&ping).0, Judged::only(Verdict::Transmit, "echo_answered"));
        let neighbour = sized("192.0.2.2:40000", WEB_4, 1600).build();
        assert_eq!(bench.judge_and_send(&neighbour).0, answered(1600));
    });
}

#[test]
fn on_a_way_too_narrow_for_ipv6_only_ipv4_is_told() {
    if !has_root("program runs") {
        return;
    }
    let (edge, _peer) = edge();
    edge.ip("route add 10.8.0.0/24 via 10.9.0.2 mtu 1299");
    with_bench_in(&edge, &[], desired(Forward::Ipip, &["10.8.0.1:443"]), |bench| {
        let frame = sized(CLIENT_4, WEB_4, 1400).build();
        assert_eq!(bench.judge_and_send(&frame), (answered(1400), told(&frame, 1279, 0)));
        assert_eq!(bench.judge_and_send(&sized(CLIENT_6, WEB_6, 1400).build()).0, unanswered(1400));
        let (judged, _) = bench.judge_and_send(&sized(CLIENT_6, WEB_6, 1279).build());
        assert_eq!(judged.verdict, Verdict::Redirect, "what fits goes on");
    });
}

fn clamped(forward: Forward, backend: &str, most_bytes: u16) -> Desired {
    let mut desired = desired(forward, &[backend]);
    desired.services[0].max_segment_bytes = most_bytes;
    desired
}

/// A SYN with these options and so much data.
fn syn(client: &str, vip: &str, options: &[u8], data_bytes: usize) -> Packet {
    Packet::new(client, vip).tcp_flags(SYN).tcp_options(options).data(data_bytes)
}

fn mss(bytes: u16) -> [u8; 4] {
    let [high, low] = bytes.to_be_bytes();
    [2, 4, high, low]
}

#[test]
fn a_syn_announces_no_larger_segment_than_fits_the_way_with_a_right_checksum() {
    if !has_root("program runs") {
        return;
    }
    with_forwarding(Desired::default(), |bench| {
        for (forward, backend, outer_bytes) in WAYS {
            bench.datapath.apply(&clamped(forward, backend, u16::MAX)).expect("applied");
            for (client, vip, header_bytes) in [(CLIENT_4, WEB_4, 40), (CLIENT_6, WEB_6, 60)] {
                let most = (MTU_BYTES - outer_bytes - header_bytes) as u16;
                for (announced, expected) in
                    [(9000, most), (most + 1, most), (most, most), (most - 1, most - 1), (88, 88)]
                {
                    for data_bytes in [0, 5] {
                        let frame = syn(client, vip, &mss(announced), data_bytes).build();
                        let (judged, sent) = bench.judge_and_send(&frame);
                        assert_eq!(judged.verdict, Verdict::Redirect, "{judged:?}");
                        assert_eq!(judged.moved["service web syns"], 1);
                        let expected = syn(client, vip, &mss(expected), data_bytes).build();
                        assert_eq!(inside(&sent, 2, outer_bytes), &expected[ETHERNET_BYTES..], "{vip} {announced}");
                    }
                }
            }
        }
    });
}

#[test]
fn only_a_syn_that_announces_too_much_is_changed() {
    if !has_root("program runs") {
        return;
    }
    with_forwarding(clamped(Forward::Ipip, BACKEND_4, 1400), |bench| {
        let odd = |bytes: u16| [&[1][..], &mss(bytes), &[1, 1, 0]].concat();
        let linux = |bytes: u16| [&mss(bytes)[..], &[4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]].concat();
        let rows: [(&str, Vec<u8>, Vec<u8>); 9] = [
            ("as Linux sends it", linux(1460), linux(1400)),
            ("at an odd place", odd(1460), odd(1400)),
            ("none", vec![1, 1, 1, 0], vec![1, 1, 1, 0]),
            ("no options", vec![], vec![]),
            ("a wrong length", vec![2, 3, 5, 180], vec![2, 3, 5, 180]),
            ("cut short", vec![1, 1, 2, 4], vec![1, 1, 2, 4]),
            ("without a length", vec![9, 0, 2, 4, 5, 180, 0, 0], vec![9, 0, 2, 4, 5, 180, 0, 0]),
            ("behind the end", vec![0, 0, 0, 0, 2, 4, 5, 180], vec![0, 0, 0, 0, 2, 4, 5, 180]),
            (
                "forty bytes of nothing, and last of all",
                [&[1; 36][..], &mss(1460)].concat(),
                [&[1; 36][..], &mss(1400)].concat(),
            ),
        ];
        for (name, options, expected) in rows {
            for (client, vip, _) in FAMILIES {
                let (judged, sent) = bench.judge_and_send(&syn(client, vip, &options, 0).build());
                assert_eq!(judged.verdict, Verdict::Redirect, "{name}");
                let expected = syn(client, vip, &expected, 0).build();
                assert_eq!(inside(&sent, 2, IPV4_BYTES), &expected[ETHERNET_BYTES..], "{vip} {name}");
            }
        }
        for flags in [ACK, SYN | ACK] {
            let frame = Packet::new(CLIENT_4, WEB_4).tcp_flags(flags).tcp_options(&mss(1460)).build();
            let (_, sent) = bench.judge_and_send(&frame);
            assert_eq!(inside(&sent, 2, IPV4_BYTES), &frame[ETHERNET_BYTES..], "flags {flags:02x}");
        }
        let behind_options = syn(CLIENT_4, WEB_4, &mss(1460), 0).ipv4_options(2).vlan(0x8100, 5).build();
        let (_, sent) = bench.judge_and_send(&behind_options);
        let expected = syn(CLIENT_4, WEB_4, &mss(1400), 0).ipv4_options(2).build_packet();
        assert_eq!(&sent[ETHERNET_BYTES + 4 + IPV4_BYTES..], expected);
    });
    with_forwarding(desired(Forward::Ipip, &[BACKEND_4]), |bench| {
        let frame = syn(CLIENT_4, WEB_4, &mss(1460), 0).build();
        let (_, sent) = bench.judge_and_send(&frame);
        assert_eq!(inside(&sent, 2, IPV4_BYTES), &frame[ETHERNET_BYTES..], "a service that leaves SYNs alone");
    });
}

/// What the tests above take for granted.
#[test]
fn the_names_of_the_tests_and_of_the_scene_are_the_same() {
    assert_eq!((format!("{VIP_4}:443"), format!("[{VIP_6}]:443")), (WEB_4.to_owned(), WEB_6.to_owned()));
    assert!(EDGE_4.parse::<std::net::Ipv4Addr>().is_ok() && EDGE_6.parse::<std::net::Ipv6Addr>().is_ok());
}
