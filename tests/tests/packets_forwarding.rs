//! Packets on their way to a backend, byte for byte, for each way of forwarding.

use lb_datapath::BackendState::Healthy;
use lb_datapath::{Desired, Forward, Verdict};
use lb_tests::forwarding::{
    MTU_BYTES, Tunnel, VIPS, backend, desired, encapsulated, forwarded_to, ip_bytes, link_bytes, readdressed,
    with_backends,
};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Extension, Packet};
use lb_tests::program::{Bench, Judged, chain};

const GUE_PORT: u16 = 6080;

/// How a packet leaves to the backend with number 2.
#[derive(Clone, Copy, Debug)]
struct Mode {
    name: &'static str,
    forward: Forward,
    /// Of the backend's address.
    is_ipv4: bool,
    /// Clients' ports, so that no flow is known from an earlier mode.
    port: u16,
}

/// Of IPIP, those with an IPv6 packet inside are 6in4 and IP6IP6.
const MODES: [Mode; 6] = [
    Mode { name: "ipip to an IPv4 backend", forward: Forward::Ipip, is_ipv4: true, port: 40001 },
    Mode { name: "ipip to an IPv6 backend", forward: Forward::Ipip, is_ipv4: false, port: 40002 },
    Mode { name: "gue to an IPv4 backend", forward: Forward::Gue, is_ipv4: true, port: 40003 },
    Mode { name: "gue to an IPv6 backend", forward: Forward::Gue, is_ipv4: false, port: 40004 },
    Mode { name: "l2 to an IPv4 backend", forward: Forward::L2, is_ipv4: true, port: 40005 },
    Mode { name: "l2 to an IPv6 backend", forward: Forward::L2, is_ipv4: false, port: 40006 },
];

impl Mode {
    fn backend(self) -> String {
        backend(2, self.is_ipv4)
    }

    /// From the client with this number: connections are told apart by it.
    fn packet(self, is_ipv4: bool, client: u8) -> Packet {
        let ([vip_4, vip_6], port) = (VIPS, self.port);
        match is_ipv4 {
            true => Packet::new(&format!("192.0.2.{client}:{port}"), &format!("{vip_4}:443")),
            false => Packet::new(&format!("[2001:db8:1::{client}]:{port}"), &format!("[{vip_6}]:443")),
        }
    }

    /// What it makes of `frame`; see [`encapsulated`] about `sent`.
    fn expected(self, frame: &[u8], traffic_class: u8, sent: &[u8]) -> Vec<u8> {
        let tunnel = |gue_port| Tunnel { gue_port, is_ipv4: self.is_ipv4, number: 2 };
        match self.forward {
            Forward::Ipip => encapsulated(tunnel(None), frame, traffic_class, sent),
            Forward::Gue => encapsulated(tunnel(Some(GUE_PORT)), frame, traffic_class, sent),
            _ => readdressed(2, frame),
        }
    }
}

/// One after the other under the same running program, as when a configuration changes.
fn for_each_mode(test: impl Fn(Mode, &mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    with_backends(Desired::default(), move |bench| {
        for mode in MODES {
            let desired = desired(mode.forward, &[(mode.backend(), Healthy)]);
            bench.datapath.apply(&desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
            test(mode, bench);
        }
    });
}

/// What may stand before the packet on the wire.
fn tagged(packet: Packet, tags: usize) -> Packet {
    let ids = [(0x88a8, 0x2005), (0x8100, 0x6006)];
    let chosen = if tags == 1 { &ids[1..] } else { &ids[..tags] };
    chosen.iter().fold(packet, |packet, (ether_type, id)| packet.vlan(*ether_type, *id))
}

#[derive(Clone, Copy)]
struct Seen {
    opens_connection: bool,
    is_new: bool,
}

fn check(mode: Mode, bench: &Bench, name: &str, frame: &[u8], traffic_class: u8, seen: Seen) {
    let ip_bytes = ip_bytes(&frame[link_bytes(frame)..]);
    let (judged, sent) = bench.judge_and_send(frame);
    let counted = forwarded_to(&mode.backend(), ip_bytes, seen.opens_connection, seen.is_new);
    assert_eq!(judged, counted, "{}: {name}", mode.name);
    assert_eq!(sent, mode.expected(frame, traffic_class, &sent), "{}: {name}", mode.name);
}

const OPENS: Seen = Seen { opens_connection: true, is_new: true };
const FIRST: Seen = Seen { opens_connection: false, is_new: true };
const KNOWN: Seen = Seen { opens_connection: false, is_new: false };

#[test]
fn tcp_and_udp_of_both_families_leave_as_the_standards_say() {
    for_each_mode(|mode, bench| {
        for (client, is_ipv4) in [(1, true), (2, false)] {
            let syn = mode.packet(is_ipv4, client);
            check(mode, bench, "a SYN", &syn.build(), 0, OPENS);
            let ack = syn.clone().tcp_flags(ACK).data(1);
            check(mode, bench, "an ACK with one byte", &ack.build(), 0, KNOWN);
            check(mode, bench, "as many bytes as a client sends", &ack.clone().data(1400).build(), 0, KNOWN);
            check(mode, bench, "expedited, congestion experienced", &ack.traffic_class(0xbb).build(), 0xbb, KNOWN);
            let datagram = mode.packet(is_ipv4, client).udp().data(9);
            check(mode, bench, "a UDP datagram", &datagram.build(), 0, FIRST);
            check(mode, bench, "another one", &datagram.traffic_class(0x28).build(), 0x28, KNOWN);
        }
    });
}

#[test]
fn vlan_and_qinq_tags_are_kept() {
    for_each_mode(|mode, bench| {
        for (client, is_ipv4) in [(1, true), (2, false)] {
            for tags in [1, 2] {
                let seen = if tags == 1 { OPENS } else { Seen { opens_connection: true, is_new: false } };
                check(
                    mode,
                    bench,
                    &format!("{tags} tags"),
                    &tagged(mode.packet(is_ipv4, client), tags).build(),
                    0,
                    seen,
                );
            }
        }
    });
}

#[test]
fn options_and_extension_headers_stay_inside() {
    for_each_mode(|mode, bench| {
        for words in [1, 5, 10] {
            let with_options = mode.packet(true, words).ipv4_options(words);
            check(mode, bench, "IPv4 options", &with_options.build(), 0, OPENS);
            check(mode, bench, "tagged too", &tagged(with_options.udp(), 2).build(), 0, FIRST);
        }
        let all = [Extension::HopByHop, Extension::Routing, Extension::Authentication, Extension::DestinationOptions];
        for count in 1..=all.len() {
            let extended = all[..count].iter().fold(mode.packet(false, count as u8), |one, more| one.extension(*more));
            check(mode, bench, "IPv6 extension headers", &extended.build(), 0, OPENS);
            check(mode, bench, "tagged too", &tagged(extended.udp(), 1).build(), 0, FIRST);
        }
    });
}

#[test]
fn fragments_follow_their_first_to_its_backend() {
    for_each_mode(|mode, bench| {
        // Datagrams are remembered by their addresses alone.
        let client = (mode.port % 100) as u8;
        for is_ipv4 in [true, false] {
            let part = |packet: Packet, offset, more| match is_ipv4 {
                true => packet.ipv4_fragment(offset, more).build(),
                false => packet.extension(Extension::Fragment { offset, more }).build(),
            };
            let first = part(mode.packet(is_ipv4, client).udp().data(24), 0, true);
            let later = |offset, more, bytes| part(mode.packet(is_ipv4, client).protocol(17).data(bytes), offset, more);
            let (orphan, unchanged) = bench.judge_and_send(&later(4, true, 16));
            assert_eq!(orphan, Judged::only(Verdict::Drop, "fragment_unknown"), "{}", mode.name);
            assert_eq!(unchanged, later(4, true, 16));
            check(mode, bench, "the first", &first, 0, FIRST);
            check(mode, bench, "one in the middle", &later(4, true, 16), 0, KNOWN);
            check(mode, bench, "the last", &later(6, false, 3), 0, KNOWN);
        }
    });
}

#[test]
fn ethernet_padding_is_carried_and_not_counted() {
    for_each_mode(|mode, bench| {
        let mut frame = mode.packet(true, 1).build();
        frame.resize(60, 0);
        check(mode, bench, "a SYN in the shortest frame", &frame, 0, OPENS);
    });
}

#[test]
fn what_is_too_big_with_its_outer_headers_is_not_sent_on_and_its_sender_told() {
    for_each_mode(|mode, bench| {
        let outer_bytes = match (mode.forward, mode.is_ipv4) {
            (Forward::Ipip, true) => 20,
            (Forward::Ipip, false) => 40,
            (Forward::Gue, true) => 28,
            (Forward::Gue, false) => 48,
            // Nothing is added; a frame longer than the link takes cannot have come by it.
            _ => return,
        };
        for (client, is_ipv4) in [(1, true), (2, false)] {
            let headers_bytes = if is_ipv4 { 40 } else { 60 };
            let fitting = MTU_BYTES - outer_bytes - headers_bytes;
            check(mode, bench, "it just fits", &mode.packet(is_ipv4, client).data(fitting).build(), 0, OPENS);
            let over = mode.packet(is_ipv4, client).data(fitting + 1);
            // What it is told byte for byte: packets_pmtu.
            let (judged, _) = bench.judge_and_send(&over.build());
            let mut expected = Judged::let_into("web", headers_bytes + fitting + 1).with(&[("service web syns", 1)]);
            expected.verdict = Verdict::Transmit;
            expected.moved.remove("reason admitted unknown");
            assert_eq!(judged, expected.with(&[("reason too_big_answered unknown", 1)]), "{}", mode.name);
        }
    });
}

/// Routers that spread by ports or flow label must see one flow as one, and several as several.
#[test]
fn the_outer_headers_of_one_flow_are_alike_and_those_of_several_differ() {
    for_each_mode(|mode, bench| {
        let spread_by = match (mode.forward, mode.is_ipv4) {
            (Forward::Gue, true) => 34..36,
            (Forward::Gue, false) => 54..56,
            (Forward::Ipip, false) => 15..18,
            _ => return,
        };
        let of_client = |client| bench.judge_and_send(&mode.packet(true, client).build()).1[spread_by.clone()].to_vec();
        let first = of_client(1);
        assert_eq!(of_client(1), first, "{}", mode.name);
        let same = (2..=20).filter(|client| of_client(*client) == first).count();
        assert!(same <= 1, "{}: {same} of 19 other flows look the same", mode.name);
        let port = u16::from_be_bytes([first[0], first[1]]);
        assert!(mode.forward != Forward::Gue || port >= 0xc000, "{}: port {port} is no dynamic one", mode.name);
    });
}
