//! ICMP to a VIP.

use lb_datapath::{Desired, DesiredService, Ports, Reason, SourceClass, Verdict};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Extension, Packet};
use lb_tests::program::{Bench, Judged, with_bench};

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1:1::1]:40000";
const ROUTER_4: &str = "192.0.2.254:0";
const ROUTER_6: &str = "[2001:db8:1:1::ff]:0";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";

const REST: [u8; 4] = [0, 7, 0, 9];
const ETHERNET_BYTES: usize = 14;

fn with_web(test: impl FnOnce(&mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    let vips = ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("an address")).to_vec();
    let name = String::from("web");
    let web = DesiredService { name, vips, ports: Ports::One(443), ..DesiredService::default() };
    with_bench(Desired { services: vec![web], ..Desired::default() }, test);
}

fn passed(reason: &str) -> Judged {
    Judged::only(Verdict::Pass, reason)
}

fn dropped(reason: &str) -> Judged {
    Judged::only(Verdict::Drop, reason)
}

/// Addresses of both layers swapped, the type another, the hop limit new: as if the VIP had made it.
fn reply_to(request: &[u8], from: &str, to: &str, kind: u8, body: &[u8], tags: usize) -> Vec<u8> {
    let mut reply = Packet::new(from, to).icmp(kind, 0, REST, body).build();
    let start = ETHERNET_BYTES + 4 * tags;
    reply.splice(..ETHERNET_BYTES, [&request[6..12], &request[..6], &request[12..start]].concat());
    reply
}

#[test]
fn a_ping_is_answered_byte_for_byte_as_the_vip_would() {
    with_web(|bench| {
        let answered = Judged::only(Verdict::Transmit, "echo_answered");
        for (client, vip, request, reply) in [(CLIENT_4, WEB_4, 8, 0), (CLIENT_6, WEB_6, 128, 129)] {
            for body in [&b""[..], b"o", b"odd", &[0x61; 56], &[0xff; 1400]] {
                let ping = Packet::new(client, vip).icmp(request, 0, REST, body);
                let frame = ping.build();
                let expected = reply_to(&frame, vip, client, reply, body, 0);
                assert_eq!(bench.judge_and_send(&frame), (answered.clone(), expected), "{vip} {} bytes", body.len());
                let frame = ping.vlan(0x88a8, 5).vlan(0x8100, 6).build();
                let expected = reply_to(&frame, vip, client, reply, body, 2);
                assert_eq!(bench.judge_and_send(&frame), (answered.clone(), expected), "{vip} tagged");
            }
        }
    });
}

#[test]
fn other_messages_are_the_hosts_and_other_addresses_are_not_ours() {
    with_web(|bench| {
        let v4 = |kind, code| Packet::new(CLIENT_4, WEB_4).icmp(kind, code, REST, b"12345678").build();
        for (kind, code) in [(0, 0), (5, 1), (13, 0), (8, 1), (10, 0)] {
            assert_eq!(bench.judge(&v4(kind, code)), passed("icmp_passed"), "type {kind} code {code}");
        }
        let v6 = |kind| Packet::new(CLIENT_6, WEB_6).icmp(kind, 0, REST, &[0; 20]).build();
        for kind in [129, 133, 134, 135, 136, 137, 143, 200] {
            assert_eq!(bench.judge(&v6(kind)), passed("icmp_passed"), "type {kind}");
        }
        let elsewhere = Packet::new(CLIENT_4, "198.51.100.11:0").icmp(8, 0, REST, b"ping").build();
        assert_eq!(bench.judge(&elsewhere), passed("not_inspected"));
        let with_options = Packet::new(CLIENT_4, WEB_4).icmp(8, 0, REST, b"ping").ipv4_options(2).build();
        assert_eq!(bench.judge(&with_options), passed("icmp_passed"), "behind options");
        let extended = Packet::new(CLIENT_6, WEB_6).icmp(128, 0, REST, b"ping").extension(Extension::HopByHop).build();
        assert_eq!(bench.judge(&extended), passed("icmp_passed"), "behind an extension header");
        let mut for_many = v4(8, 0);
        for_many[0] = 0xff;
        assert_eq!(bench.judge(&for_many), passed("icmp_passed"), "to a group of hosts");
        let foreign = Packet::new(CLIENT_4, WEB_4).protocol(58).data(8).build();
        assert_eq!(bench.judge(&foreign), passed("not_inspected"), "ICMPv6 in IPv4");
    });
}

#[test]
fn errors_about_connections_that_end_here_reach_the_hosts_tcp() {
    with_web(|bench| {
        let quoted = Packet::new(WEB_4, CLIENT_4).tcp_flags(ACK).data(1400).build_packet();
        for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0)] {
            let error = Packet::new(ROUTER_4, WEB_4).icmp(kind, code, [0, 0, 5, 0], &quoted[..28]).build();
            assert_eq!(bench.judge(&error), passed("icmp_passed"), "type {kind} code {code}");
        }
        let quoted = Packet::new(WEB_6, CLIENT_6).tcp_flags(ACK).data(1400).build_packet();
        for kind in 1..=4 {
            let error = Packet::new(ROUTER_6, WEB_6).icmp(kind, 0, [0, 0, 5, 0], &quoted[..1232]).build();
            assert_eq!(bench.judge(&error), passed("icmp_passed"), "type {kind}");
        }
    });
}

#[test]
fn errors_that_the_vip_gave_no_cause_for_and_messages_cut_short_are_dropped() {
    with_web(|bench| {
        let error = |quoted: &[u8]| Packet::new(ROUTER_4, WEB_4).icmp(3, 4, [0, 0, 5, 0], quoted).build();
        let not_ours = Packet::new("198.51.100.99:443", CLIENT_4).tcp_flags(ACK).build_packet();
        assert_eq!(bench.judge(&error(&not_ours)), dropped("bad_icmp"), "another address's packet");
        let ours = Packet::new(WEB_4, CLIENT_4).tcp_flags(ACK).build_packet();
        for bytes in [0, 1, 19, 20, 23] {
            assert_eq!(bench.judge(&error(&ours[..bytes])), dropped("bad_icmp"), "{bytes} bytes quoted");
        }
        let four = Packet::new(CLIENT_4, WEB_4).protocol(1).data(7).build();
        assert_eq!(bench.judge(&four), dropped("bad_icmp"), "seven bytes");
        let mut lying = Packet::new(CLIENT_6, WEB_6).icmp(128, 0, REST, b"ping").build();
        lying[ETHERNET_BYTES + 4] = 1;
        assert_eq!(bench.judge(&lying), dropped("bad_ip_header"), "longer than the frame");
        let about_v6 = Packet::new(WEB_6, CLIENT_6).tcp_flags(ACK).build_packet();
        assert_eq!(bench.judge(&error(&about_v6)), dropped("bad_icmp"), "a packet of the other version");
    });
}

#[test]
fn a_source_that_sends_without_end_is_dropped_and_its_neighbour_is_not() {
    const RUNS: u32 = 10_000;
    with_web(|bench| {
        // Nothing is answered, so that the packet is the same at every run.
        let frame = Packet::new(CLIENT_4, WEB_4).icmp(13, 0, REST, &[0; 12]).build();
        let count =
            |bench: &Bench, reason| bench.reader.stats().expect("counters").packets(reason, SourceClass::Unknown);
        bench.datapath.try_out(&frame, RUNS).expect("judged");
        let passed_packets = count(bench, Reason::IcmpPassed);
        // A hundred at once; on a slow machine some more come due meanwhile.
        assert!((100..1000).contains(&passed_packets), "{passed_packets}");
        assert_eq!(count(bench, Reason::IcmpLimit), u64::from(RUNS) - passed_packets);
        let neighbour = Packet::new("192.0.2.2:0", WEB_4).icmp(8, 0, REST, b"ping").build();
        assert_eq!(bench.judge_and_send(&neighbour).0, Judged::only(Verdict::Transmit, "echo_answered"));
        let discovery = Packet::new(CLIENT_6, WEB_6).icmp(135, 0, [0; 4], &[0; 20]).build();
        let before = count(bench, Reason::IcmpPassed);
        bench.datapath.try_out(&discovery, RUNS).expect("judged");
        assert_eq!(count(bench, Reason::IcmpPassed) - before, u64::from(RUNS), "discovery has no limit");
    });
}
