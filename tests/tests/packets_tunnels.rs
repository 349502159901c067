//! The end of the L4 tier's tunnels: what is unpacked, what is dropped by name, and what is left alone.

use lb_datapath::BackendState::Healthy;
use lb_datapath::{
    Desired, DesiredService, Forward, Limits, Ports, Prefix, Protocols, Rate, Rates, Source, Tier, Verdict,
};
use lb_tests::forwarding::{VIPS, desired as forwarding, with_backends};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::packet::{ACK, Extension, Packet};
use lb_tests::program::{Bench, Judged, chain, with_bench_in};
use std::time::Duration;

const GUE_PORT: u16 = 6080;
/// Of the tier, of this host, and of somebody else.
const TIER: [&str; 2] = ["10.1.0.1", "2001:db8:b::1"];
const OWN: [&str; 2] = ["10.1.0.2", "2001:db8:b::2"];
const OUTSIDE: [&str; 2] = ["203.0.113.9", "2001:db8:bad::9"];
const ELSEWHERE: [&str; 2] = ["10.1.0.99", "2001:db8:b::99"];

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1::1]:40000";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";

fn tier() -> Tier {
    let prefix = |address: &str, length| Prefix::new(address.parse().expect("an address"), length).expect("a prefix");
    Tier { from: vec![prefix("10.1.0.0", 31), prefix("2001:db8:b::1", 128)], gue_port: GUE_PORT }
}

fn desired(tier: Option<Tier>, limits: Limits) -> Desired {
    let vips = || VIPS.iter().map(|vip| vip.parse().expect("a VIP")).collect();
    let web = DesiredService {
        name: String::from("web"),
        vips: vips(),
        ports: Ports::One(443),
        protocols: Protocols::BOTH,
        limits,
        ..DesiredService::default()
    };
    Desired { services: vec![web], tier, ..Desired::default() }
}

/// On a host with the addresses [`OWN`].
fn with_host(desired: Desired, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    let (host, peer) = (Namespace::new(), Namespace::new());
    host.connect("front", &peer, "uplink");
    host.ip(&format!("address add {}/24 dev front", OWN[0]));
    host.ip(&format!("address add {}/64 dev front nodad", OWN[1]));
    with_bench_in(&host, &[], desired, test);
}

/// What is around the inner packet.
#[derive(Clone, Copy, Debug)]
struct Outer {
    from: [&'static str; 2],
    to: [&'static str; 2],
    is_ipv4: bool,
    gue_port: Option<u16>,
    traffic_class: u8,
    tags: usize,
}

const IP_4: Outer = Outer { from: TIER, to: OWN, is_ipv4: true, gue_port: None, traffic_class: 0, tags: 0 };
const IP_6: Outer = Outer { is_ipv4: false, ..IP_4 };
const GUE_4: Outer = Outer { gue_port: Some(GUE_PORT), ..IP_4 };
const GUE_6: Outer = Outer { gue_port: Some(GUE_PORT), ..IP_6 };
const KINDS: [Outer; 4] = [IP_4, IP_6, GUE_4, GUE_6];

impl Outer {
    /// The outer packet before it is built, so that a test can bend it.
    fn packet(self, inner: &[u8]) -> Packet {
        let family = usize::from(!self.is_ipv4);
        let end = |address: &str, port: u16| match self.is_ipv4 {
            true => format!("{address}:{port}"),
            false => format!("[{address}]:{port}"),
        };
        let port = self.gue_port.unwrap_or(0);
        let packet = Packet::new(&end(self.from[family], 0xc123), &end(self.to[family], port));
        let packet = packet.traffic_class(self.traffic_class).body(inner);
        let packet = [(0x88a8, 5), (0x8100, 0x2006)][2 - self.tags..]
            .iter()
            .fold(packet, |packet, (ether_type, id)| packet.vlan(*ether_type, *id));
        match (self.gue_port, inner[0] >> 4) {
            (Some(_), _) => packet.udp(),
            (None, 6) => packet.protocol(41),
            (None, _) => packet.protocol(4),
        }
    }

    fn around(self, inner: &Packet) -> Vec<u8> {
        self.packet(&inner.build_packet()).build()
    }

    fn is_counted_as(self) -> &'static str {
        if self.gue_port.is_some() { "tunnels gue" } else { "tunnels ip" }
    }

    fn link_bytes(self) -> usize {
        14 + 4 * self.tags
    }

    /// The frame that is left: Ethernet addresses and tags as they came, and what was inside.
    fn left(self, frame: &[u8], inner: &[u8]) -> Vec<u8> {
        let ether_type: u16 = if inner[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        [&frame[..self.link_bytes() - 2], &ether_type.to_be_bytes(), inner].concat()
    }
}

fn v4() -> Packet {
    Packet::new(CLIENT_4, WEB_4)
}

fn v6() -> Packet {
    Packet::new(CLIENT_6, WEB_6)
}

/// Unpacked, and then `judged` as if it had come so.
fn check_unpacked(bench: &Bench, name: &str, outer: Outer, inner: &Packet, judged: Judged) {
    let frame = outer.around(inner);
    let expected = judged.with(&[(outer.is_counted_as(), 1)]);
    let left = outer.left(&frame, &inner.build_packet());
    assert_eq!(bench.judge_and_send(&frame), (expected, left), "{name}: {outer:?}");
}

fn let_in(inner: &Packet, opens_connection: bool) -> Judged {
    let judged = Judged::let_into("web", inner.build_packet().len());
    if opens_connection { judged.with(&[("service web syns", 1)]) } else { judged }
}

/// Dropped as it came, or passed as it came, and nothing else counted.
fn check_left_alone(bench: &Bench, name: &str, frame: &[u8], verdict: Verdict, reason: &str) {
    assert_eq!(bench.judge(frame), Judged::only(verdict, reason), "{name}");
}

#[test]
fn every_kind_of_tunnel_is_unpacked_byte_for_byte_and_its_packet_judged() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in KINDS {
            for tags in 0..=2 {
                let outer = Outer { tags, ..kind };
                for packet in [v4(), v6()] {
                    check_unpacked(bench, "a SYN", outer, &packet, let_in(&packet, true));
                    let ack = packet.clone().tcp_flags(ACK).data(1400);
                    check_unpacked(bench, "an ACK with data", outer, &ack, let_in(&ack, false));
                    let datagram = packet.udp().data(33);
                    check_unpacked(bench, "a datagram", outer, &datagram, let_in(&datagram, false));
                }
                let options = v4().ipv4_options(10);
                check_unpacked(bench, "IPv4 options inside", outer, &options, let_in(&options, true));
                let extended = v6().extension(Extension::HopByHop).extension(Extension::DestinationOptions);
                check_unpacked(bench, "extension headers inside", outer, &extended, let_in(&extended, true));
            }
        }
    });
}

#[test]
fn options_and_extension_headers_of_the_outer_header_go_with_it() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for (kind, inner) in KINDS.into_iter().flat_map(|kind| [(kind, v4()), (kind, v6())]) {
            let outer = kind.packet(&inner.build_packet());
            let frame = outer.ipv4_options(3).extension(Extension::DestinationOptions).build();
            let expected = let_in(&inner, true).with(&[(kind.is_counted_as(), 1)]);
            let left = kind.left(&frame, &inner.build_packet());
            assert_eq!(bench.judge_and_send(&frame), (expected, left), "{kind:?}");
        }
    });
}

#[test]
fn padding_behind_the_outer_packet_stays_padding() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in KINDS {
            let mut frame = kind.around(&v4());
            frame.extend([0xee; 9]);
            let left = [&kind.left(&frame, &v4().build_packet())[..], &[0xee; 9]].concat();
            let expected = let_in(&v4(), true).with(&[(kind.is_counted_as(), 1)]);
            assert_eq!(bench.judge_and_send(&frame), (expected, left), "{kind:?}");
            let mut lying = v4().build_packet();
            // Longer by what is padding.
            lying[3] += 9;
            let mut frame = kind.packet(&lying).build();
            frame.extend([0xee; 9]);
            check_left_alone(bench, "padding as part of the packet", &frame, Verdict::Drop, "bad_tunnel");
        }
    });
}

#[test]
fn lists_blocks_and_limits_hold_for_what_is_inside() {
    const LONG: Duration = Duration::from_secs(3600);
    let once = Rates::of_packets(Rate { per_second: 1, burst: 1 });
    with_host(desired(Some(tier()), Limits { source: once, ..Limits::default() }), |bench| {
        let refused = |reason: &str| Judged::only(Verdict::Drop, reason).with(&[("service web dropped", 1)]);
        for (kind, client) in KINDS.into_iter().zip(1..) {
            let inner = Packet::new(&format!("192.0.2.{client}:40000"), WEB_4);
            check_unpacked(bench, "the first", kind, &inner, let_in(&inner, true));
            check_unpacked(bench, "over its source's limit", kind, &inner, refused("source_limit"));
            let other = Packet::new(&format!("192.0.2.{}:40000", client + 10), WEB_4);
            let source = Source::of(format!("192.0.2.{}", client + 10).parse().expect("an address"));
            bench.datapath.block(source, LONG).expect("blocked");
            check_unpacked(bench, "a blocked source inside", kind, &other, refused("blocked"));
        }
    });
}

#[test]
fn fragments_inside_follow_their_first() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for (kind, client) in KINDS.into_iter().zip(1..) {
            for is_ipv4 in [true, false] {
                let packet = match is_ipv4 {
                    true => Packet::new(&format!("192.0.2.{client}:40000"), WEB_4),
                    false => Packet::new(&format!("[2001:db8:1::{client}]:40000"), WEB_6),
                };
                let part = |packet: Packet, offset, more| match is_ipv4 {
                    true => packet.ipv4_fragment(offset, more),
                    false => packet.extension(Extension::Fragment { offset, more }),
                };
                let later = part(packet.clone().protocol(17).data(16), 4, false);
                let unknown = Judged::only(Verdict::Drop, "fragment_unknown");
                check_unpacked(bench, "a later one alone", kind, &later, unknown);
                let first = part(packet.udp().data(24), 0, true);
                check_unpacked(bench, "the first", kind, &first, let_in(&first, false));
                check_unpacked(bench, "the later one", kind, &later, let_in(&later, false));
            }
        }
    });
}

#[test]
fn from_outside_the_tier_nothing_is_unpacked_whatever_is_inside() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in KINDS {
            let insides = [
                ("a client's", v4()),
                ("an IPv6 client's", v6()),
                ("a private source's", Packet::new("10.0.0.7:40000", WEB_4)),
                ("the host's own address as the source", Packet::new("10.1.0.2:40000", WEB_4)),
                ("one to no service", Packet::new(CLIENT_4, "10.1.0.2:22")),
            ];
            for (name, inside) in insides {
                let forged = Outer { from: OUTSIDE, ..kind }.around(&inside);
                check_left_alone(bench, name, &forged, Verdict::Drop, "tunnel_from_outside");
            }
            let beside = Outer { from: ["10.1.0.3", "2001:db8:b::3"], ..kind }.around(&v4());
            check_left_alone(bench, "a neighbour of the tier", &beside, Verdict::Drop, "tunnel_from_outside");
        }
    });
}

#[test]
fn what_goes_to_no_service_is_not_let_out_of_its_tunnel() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in KINDS {
            let refused = Judged::only(Verdict::Drop, "tunnel_not_to_vip");
            let insides = [
                ("the host's own SSH", Packet::new(CLIENT_4, "10.1.0.2:22")),
                ("a loopback address", Packet::new(CLIENT_4, "127.0.0.1:22")),
                ("another host", Packet::new(CLIENT_6, "[2001:db8:f::1]:443")),
                ("another port of the VIP", Packet::new(CLIENT_4, "198.51.100.10:22")),
                ("another port of the VIP, UDP", Packet::new(CLIENT_6, "[2001:db8:100::10]:53").udp().data(3)),
                ("ICMP to the host", Packet::new("192.0.2.1:0", "10.1.0.2:0").icmp(8, 0, [0; 4], b"ping")),
            ];
            for (name, inside) in insides {
                let frame = kind.around(&inside);
                let (judged, _) = bench.judge_and_send(&frame);
                assert_eq!(judged, refused.clone().with(&[(kind.is_counted_as(), 1)]), "{name}: {kind:?}");
            }
        }
    });
}

#[test]
fn one_tunnel_is_taken_off_and_no_second_one() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in KINDS {
            for within in [IP_4, IP_6] {
                let nested = within.packet(&v4().build_packet()).build_packet();
                let frame = kind.packet(&nested).build();
                check_left_alone(bench, "IP in IP inside", &frame, Verdict::Drop, "bad_tunnel");
                let to_vip = Outer { to: VIPS, ..within }.packet(&v4().build_packet()).build_packet();
                let frame = kind.packet(&to_vip).build();
                check_left_alone(bench, "IP in IP to the VIP inside", &frame, Verdict::Drop, "bad_tunnel");
            }
            let to_vip = Outer { to: VIPS, ..GUE_4 }.packet(&v4().build_packet());
            let (judged, _) = bench.judge_and_send(&kind.around(&to_vip));
            let expected = Judged::only(Verdict::Drop, "tunnel_not_to_vip").with(&[(kind.is_counted_as(), 1)]);
            assert_eq!(judged, expected, "GUE inside is UDP to a port of no service");
            let hidden = Packet::new(CLIENT_6, WEB_6).extension(Extension::DestinationOptions).protocol(4).data(40);
            let (judged, _) = bench.judge_and_send(&kind.around(&hidden));
            let expected = Judged::only(Verdict::Drop, "bad_tunnel").with(&[(kind.is_counted_as(), 1)]);
            assert_eq!(judged, expected, "a tunnel behind extension headers");
        }
    });
}

#[test]
fn cut_short_or_in_fragments_a_tunnel_packet_is_dropped_at_every_length() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in KINDS {
            let whole = v4().data(5).build_packet();
            for length in 1..whole.len() {
                let frame = kind.packet(&whole[..length]).build();
                check_left_alone(bench, &format!("{length} bytes inside"), &frame, Verdict::Drop, "bad_tunnel");
            }
            let outer = kind.packet(&v4().data(16).build_packet());
            let first = outer.clone().ipv4_fragment(0, true).extension(Extension::Fragment { offset: 0, more: true });
            check_left_alone(bench, "a first fragment", &first.build(), Verdict::Drop, "bad_tunnel");
        }
        for kind in [IP_4, IP_6] {
            let mut frame = kind.around(&v4());
            frame.truncate(frame.len() - 1);
            check_left_alone(bench, "an outer packet that is not all there", &frame, Verdict::Drop, "bad_tunnel");
        }
        let later = IP_4.packet(&v4().data(16).build_packet()).ipv4_fragment(3, false).build();
        check_left_alone(bench, "a later fragment", &later, Verdict::Drop, "bad_tunnel");
    });
}

#[test]
fn gue_is_taken_at_its_port_and_in_its_plain_variant_only() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in [GUE_4, GUE_6] {
            let other_port = Outer { gue_port: Some(6081), ..kind }.around(&v4());
            check_left_alone(bench, "another port", &other_port, Verdict::Pass, "no_service");
            // Variant 0 with a header of four bytes before the packet, and one with four bytes of options.
            for header in [&[0, 4, 0, 0][..], &[1, 4, 0, 0, 0, 0, 0, 0], &[0x20, 4, 0, 0]] {
                let inside = [header, &v4().build_packet()].concat();
                check_left_alone(bench, "variant 0", &kind.packet(&inside).build(), Verdict::Drop, "bad_tunnel");
            }
            for first in [0x85, 0xc5, 0x55, 0x75] {
                let mut inside = v4().build_packet();
                inside[0] = first;
                check_left_alone(bench, "no version", &kind.packet(&inside).build(), Verdict::Drop, "bad_tunnel");
            }
        }
    });
}

#[test]
fn tunnels_that_end_elsewhere_pass_untouched() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for kind in [IP_4, IP_6] {
            for to in [ELSEWHERE, VIPS] {
                let frame = Outer { to, ..kind }.around(&v4());
                check_left_alone(bench, "to another host", &frame, Verdict::Pass, "not_inspected");
                let tagged = Outer { to, tags: 1, ..kind }.around(&v4());
                check_left_alone(bench, "to another host, tagged", &tagged, Verdict::Pass, "not_inspected");
            }
        }
        for kind in [GUE_4, GUE_6] {
            for to in [ELSEWHERE, VIPS] {
                for tags in 0..=1 {
                    let frame = Outer { to, tags, ..kind }.around(&v4());
                    check_left_alone(bench, "GUE to another host", &frame, Verdict::Pass, "no_service");
                }
            }
        }
    });
}

#[test]
fn without_a_tier_no_tunnel_is_touched() {
    with_host(desired(None, Limits::default()), |bench| {
        for kind in KINDS {
            let reason = if kind.gue_port.is_some() { "no_service" } else { "not_inspected" };
            for tags in 0..=2 {
                let frame = Outer { tags, ..kind }.around(&v4());
                check_left_alone(bench, "no tier", &frame, Verdict::Pass, reason);
            }
        }
        bench.datapath.apply(&desired(Some(tier()), Limits::default())).expect("applied");
        check_unpacked(bench, "a tier that came", IP_4, &v4(), let_in(&v4(), true));
        let other = Prefix::new("203.0.113.0".parse().expect("an address"), 24).expect("a prefix");
        let moved = Tier { from: vec![other], gue_port: 7000 };
        bench.datapath.apply(&desired(Some(moved.clone()), Limits::default())).expect("applied");
        assert_eq!(bench.reader.tier().expect("readable"), Some(moved));
        check_left_alone(bench, "a tier that left", &IP_4.around(&v4()), Verdict::Drop, "tunnel_from_outside");
        check_left_alone(bench, "a port that changed", &GUE_4.around(&v4()), Verdict::Pass, "no_service");
        let gue = Outer { from: OUTSIDE, gue_port: Some(7000), ..IP_4 };
        check_unpacked(bench, "the tier that came then", gue, &v4(), let_in(&v4(), true));
        bench.datapath.apply(&desired(None, Limits::default())).expect("applied");
        check_left_alone(bench, "no tier any more", &IP_4.around(&v4()), Verdict::Pass, "not_inspected");
    });
}

#[test]
fn a_service_at_the_port_of_gue_has_its_packets_itself() {
    let mut with_service = desired(Some(tier()), Limits::default());
    let here = DesiredService {
        name: String::from("here"),
        vips: OWN.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports: Ports::Any,
        protocols: Protocols::UDP,
        ..DesiredService::default()
    };
    with_service.services.push(here);
    with_host(with_service, |bench| {
        for (kind, tags) in [GUE_4, GUE_6].into_iter().flat_map(|kind| [(kind, 0), (kind, 1)]) {
            let outer = Outer { tags, ..kind };
            let frame = outer.around(&v4());
            let expected = Judged::let_into("here", frame.len() - outer.link_bytes());
            assert_eq!(bench.judge(&frame), expected, "{outer:?}");
        }
    });
}

#[test]
fn congestion_that_the_tunnel_met_is_handed_on_or_the_packet_dropped() {
    with_host(desired(Some(tier()), Limits::default()), |bench| {
        for (kind, inner) in KINDS.into_iter().flat_map(|kind| [(kind, v4()), (kind, v6())]) {
            let congested = Outer { traffic_class: 0xbb, ..kind };
            let capable = inner.clone().traffic_class(0xba);
            let marked = inner.clone().traffic_class(0xbb).build_packet();
            let frame = congested.around(&capable);
            let expected = let_in(&capable, true).with(&[(kind.is_counted_as(), 1)]);
            assert_eq!(bench.judge_and_send(&frame), (expected, kind.left(&frame, &marked)), "{kind:?}");
            let deaf = congested.around(&inner.traffic_class(0xb8));
            check_left_alone(bench, "not capable", &deaf, Verdict::Drop, "tunnel_congested");
        }
    });
}

#[test]
fn what_one_host_sends_in_a_tunnel_the_next_one_unpacks_to_the_same_bytes() {
    for (forward, is_ipv4) in
        [(Forward::Ipip, true), (Forward::Ipip, false), (Forward::Gue, true), (Forward::Gue, false)]
    {
        if !has_root("program runs") {
            return;
        }
        let packets = [v4().data(99), v6().data(99), v4().udp().data(7).vlan(0x8100, 9), v6().ipv4_options(2)];
        let (give, take) = std::sync::mpsc::channel();
        let given = packets.clone();
        with_backends(forwarding(forward, &[(lb_tests::forwarding::backend(2, is_ipv4), Healthy)]), move |bench| {
            given.iter().for_each(|packet| give.send(bench.judge_and_send(&packet.build()).1).expect("taken"));
        });
        with_host(desired(Some(tier()), Limits::default()), move |bench| {
            for packet in packets {
                let sent = take.recv().expect("given");
                let (judged, left) = bench.judge_and_send(&sent);
                assert_eq!(judged.verdict, Verdict::Pass, "{judged:?}");
                // All but the Ethernet addresses.
                assert_eq!(left[12..], packet.build()[12..], "{forward:?}");
            }
            bench.datapath.apply(&Desired::default()).unwrap_or_else(|error| panic!("{}", chain(&error)));
        });
    }
}
