//! Limits on the loaded program: which packet is over which one, and what its neighbours notice.

use lb_datapath::{Desired, DesiredService, Limits, Ports, Rate, Rates, Reason, SourceClass, Verdict};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Packet};
use lb_tests::program::{Bench, with_bench};

const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";
const OTHER_4: &str = "198.51.100.11:443";
const OTHER_6: &str = "[2001:db8:100::11]:443";

fn desired(limits: Limits) -> Desired {
    let service = |name: &str, vips: &[&str]| DesiredService {
        name: name.to_owned(),
        vips: vips.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports: Ports::One(443),
        limits,
        ..DesiredService::default()
    };
    let services = vec![
        service("web", &["198.51.100.10", "2001:db8:100::10"]),
        service("other", &["198.51.100.11", "2001:db8:100::11"]),
    ];
    Desired { services, ..Desired::default() }
}

fn with_limits(limits: Limits, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if has_root("program runs") {
        with_bench(desired(limits), test);
    }
}

/// The slowest rate there is, so that a slow machine does not refill a burst in the middle of a test.
const fn once(burst: u64) -> Rate {
    Rate { per_second: 1, burst }
}

/// The reason for which one packet ended.
fn reason(bench: &Bench, frame: &[u8]) -> &'static str {
    let judged = bench.judge(frame);
    let of = |reason: &Reason| {
        let counter = |class: SourceClass| format!("reason {} {}", reason.metric_name(), class.metric_name());
        SourceClass::ALL.iter().any(|class| judged.moved.contains_key(&counter(*class)))
    };
    let reason = Reason::ALL.iter().find(|reason| of(reason)).expect("each packet ends for a reason");
    assert_eq!(reason.verdict() == Verdict::Drop, judged.verdict == Verdict::Drop);
    reason.metric_name()
}

fn syn(source: &str, destination: &str) -> Vec<u8> {
    Packet::new(source, destination).build()
}

fn ack(source: &str, destination: &str) -> Vec<u8> {
    Packet::new(source, destination).tcp_flags(ACK).build()
}

fn reasons(bench: &Bench, frame: &[u8], packets: usize) -> Vec<&'static str> {
    (0..packets).map(|_| reason(bench, frame)).collect()
}

#[test]
fn each_limit_has_a_reason_of_its_own_and_nobody_else_meets_it() {
    type Row = (&'static str, Limits, &'static str);
    let packets = Rates::of_packets(once(2));
    let syns = Rates::of_syns(once(2));
    let none = Limits::default();
    let rows: Vec<Row> = vec![
        ("packets of a source", Limits { source: packets, ..none }, "source_limit"),
        ("SYNs of a source", Limits { source: syns, ..none }, "source_syn_limit"),
        ("packets of a network", Limits { network: packets, ..none }, "network_limit"),
        ("SYNs of a network", Limits { network: syns, ..none }, "network_syn_limit"),
        ("packets to a service", Limits { service: packets, ..none }, "service_limit"),
        ("SYNs to a service", Limits { service: syns, ..none }, "service_syn_limit"),
    ];
    let limits: Vec<Limits> = rows.iter().map(|(_, limits, _)| *limits).collect();
    with_each(&limits, move |bench| {
        for (row, (name, _, over)) in rows.into_iter().enumerate() {
            for neighbourhood in NEIGHBOURHOODS {
                let Neighbourhood { is_ipv4, source, same_source, same_network, elsewhere } = neighbourhood;
                let [web, other] = ["web", "other"].map(|name| place(name, row, is_ipv4));
                let frame = syn(source, &web);
                assert_eq!(reasons(bench, &frame, 3), ["admitted", "admitted", over], "{name}: {source}");
                assert_eq!(reason(bench, &syn(same_source, &web)), over, "{name}: {same_source}");
                assert_eq!(reason(bench, &syn(source, &other)), "admitted", "{name}: {source}, another service");
                let of_network = if over.starts_with("source") { "admitted" } else { over };
                assert_eq!(reason(bench, &syn(same_network, &web)), of_network, "{name}: {same_network}");
                let of_others = if over.starts_with("service") { over } else { "admitted" };
                assert_eq!(reason(bench, &syn(elsewhere, &web)), of_others, "{name}: {elsewhere}");
                let no_syn = if over.contains("syn") { "admitted" } else { over };
                assert_eq!(reason(bench, &ack(source, &web)), no_syn, "{name}: {source}, not a SYN");
            }
        }
    });
}

/// Services for each of `limits`, by [`place`]: to load the programs takes longer than all that is tried on them.
fn with_each(limits: &[Limits], test: impl FnOnce(&mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    let services = limits.iter().enumerate().flat_map(|(row, limits)| {
        [("web", true), ("web", false), ("other", true), ("other", false)].map(|(name, is_ipv4)| {
            let place: std::net::SocketAddr = place(name, row, is_ipv4).parse().expect("an address");
            DesiredService {
                name: format!("{name} {row} {is_ipv4}"),
                vips: vec![place.ip().into()],
                ports: Ports::One(443),
                limits: *limits,
                ..DesiredService::default()
            }
        })
    });
    with_bench(Desired { services: services.collect(), ..Desired::default() }, test);
}

/// Where the service of a row is, in one family.
fn place(name: &str, row: usize, is_ipv4: bool) -> String {
    let last = row + if name == "web" { 10 } else { 110 };
    if is_ipv4 { format!("198.51.100.{last}:443") } else { format!("[2001:db8:100::{last}]:443") }
}

/// Who shares a limit with `source`, in one family.
#[derive(Clone, Copy)]
struct Neighbourhood {
    is_ipv4: bool,
    source: &'static str,
    same_source: &'static str,
    same_network: &'static str,
    elsewhere: &'static str,
}

const NEIGHBOURHOODS: [Neighbourhood; 2] = [
    Neighbourhood {
        is_ipv4: true,
        source: "192.0.2.255:40000",
        same_source: "192.0.2.255:40001",
        same_network: "192.0.2.0:40000",
        elsewhere: "192.0.3.255:40000",
    },
    Neighbourhood {
        is_ipv4: false,
        source: "[2001:db8:1:ffff::1]:40000",
        same_source: "[2001:db8:1:ffff:ffff:ffff:ffff:ffff]:40000",
        same_network: "[2001:db8:1:0:ffff::1]:40000",
        elsewhere: "[2001:db8:2:ffff::1]:40000",
    },
];

#[test]
fn bytes_are_those_of_the_ip_packet_and_a_burst_ends_with_the_packet_that_begins_in_it() {
    // As little as a burst of bytes may be: the largest packet there is.
    let bytes = Rates { bytes: Rate { per_second: 1024, burst: 1 }, ..Rates::default() };
    const IP_BYTES: usize = 1500;
    const FIT: usize = 65_536 / IP_BYTES + 1;
    let none = Limits::default();
    let rows = [
        (Limits { source: bytes, ..none }, "source_byte_limit"),
        (Limits { network: bytes, ..none }, "network_byte_limit"),
        (Limits { service: bytes, ..none }, "service_byte_limit"),
    ];
    let limits = rows.map(|(limits, _)| limits);
    with_each(&limits, move |bench| {
        for (row, (_, over)) in rows.into_iter().enumerate() {
            for (client, is_ipv4, header_bytes) in [("192.0.2.1:1", true, 40), ("[2001:db8:1::1]:1", false, 60)] {
                let packet = Packet::new(client, &place("web", row, is_ipv4)).tcp_flags(ACK);
                // The Ethernet header and its tags are nobody's bytes.
                let frame = packet.data(IP_BYTES - header_bytes).vlan(0x88a8, 5).vlan(0x8100, 6).build();
                assert_eq!(frame.len(), 14 + 8 + IP_BYTES);
                // At once: in half a second one more would come due.
                let passes = || bench.datapath.try_out(&frame, 1).expect("judged").verdict == Verdict::Pass;
                let admitted = (0..2 * FIT).take_while(|_| passes()).count();
                // Of a service's last packet some may lie in a CPU's reserve.
                let least = if over.starts_with("service") { FIT - 1 } else { FIT };
                assert!((least..=FIT).contains(&admitted), "{over}, {client}: {admitted} of {FIT}");
                assert_eq!(reason(bench, &frame), over, "{client}");
            }
        }
    });
}

#[test]
fn each_service_has_limits_of_its_own() {
    let rates = |burst| Rates { packets: once(burst), syns: once(burst / 2), bytes: Rate::UNLIMITED };
    let tight = Limits { source: rates(4), network: Rates::of_packets(once(6)), ..Limits::default() };
    let wide = Limits { source: rates(6), ..Limits::default() };
    let mut desired = desired(tight);
    desired.services[1].limits = wide;
    desired.services.push(DesiredService {
        name: String::from("free"),
        vips: ["198.51.100.12", "2001:db8:100::12"].map(|vip| vip.parse().expect("a VIP")).to_vec(),
        ..desired.services[0].clone()
    });
    desired.services[2].limits = Limits::default();
    if !has_root("program runs") {
        return;
    }
    with_bench(desired, |bench| {
        for (web, other, free, client, neighbour) in [
            (WEB_4, OTHER_4, "198.51.100.12:443", "192.0.2.1:1", "192.0.2.2:1"),
            (WEB_6, OTHER_6, "[2001:db8:100::12]:443", "[2001:db8:1:1::1]:1", "[2001:db8:1:2::1]:1"),
        ] {
            let admitted = |count| vec!["admitted"; count];
            let then = |count, over| [admitted(count), vec![over]].concat();
            assert_eq!(reasons(bench, &syn(client, web), 3), then(2, "source_syn_limit"), "{web}");
            // What was refused as a SYN is no packet of the other limits.
            assert_eq!(reasons(bench, &ack(client, web), 3), then(2, "source_limit"), "{web}");
            assert_eq!(reasons(bench, &ack(neighbour, web), 3), then(2, "network_limit"), "{web}");
            assert_eq!(reasons(bench, &syn(client, other), 4), then(3, "source_syn_limit"), "{other}");
            assert_eq!(reasons(bench, &ack(client, other), 4), then(3, "source_limit"), "{other}");
            assert_eq!(reasons(bench, &ack(neighbour, other), 7), then(6, "source_limit"), "{other}");
            assert_eq!(reasons(bench, &syn(client, free), 20), admitted(20), "{free}");
        }
    });
}

#[test]
fn a_block_is_over_when_its_time_is() {
    use std::time::{Duration, Instant};
    const TTL: Duration = Duration::from_millis(1500);
    with_limits(Limits::default(), |bench| {
        let begin = Instant::now();
        let rows = [("192.0.2.1:1", WEB_4), ("[2001:db8:1:1::1]:1", WEB_6)];
        for (client, _) in rows {
            let client: std::net::SocketAddr = client.parse().expect("an address");
            bench.datapath.block(lb_datapath::Source::of(client.ip()), TTL).expect("blocked");
        }
        for (client, web) in rows {
            let before = reason(bench, &syn(client, web));
            assert!(before == "blocked" || begin.elapsed() > TTL, "{client}: {before}");
            while reason(bench, &syn(client, web)) == "blocked" {
                assert!(begin.elapsed() < TTL * 20, "{client} is still blocked");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(begin.elapsed() >= TTL, "{client} was let in after {:?}", begin.elapsed());
            assert_eq!(reason(bench, &syn(client, web)), "admitted", "{client}");
        }
        assert_eq!(bench.reader.blocks().expect("listed"), [], "what is over is not listed");
    });
}

#[test]
fn an_ipv6_source_is_its_64_and_its_network_its_48() {
    with_limits(Limits { network: Rates::of_packets(once(1)), ..Limits::default() }, |bench| {
        assert_eq!(reasons(bench, &syn("[2001:db8:1:1::1]:1", WEB_6), 2), ["admitted", "network_limit"]);
        assert_eq!(reason(bench, &syn("[2001:db8:1:2::1]:1", WEB_6)), "network_limit", "another /64 of the /48");
        assert_eq!(reason(bench, &syn("[2001:db8:2:1::1]:1", WEB_6)), "admitted", "the next /48");
    });
}

#[test]
fn what_a_source_is_refused_its_neighbours_may_still_use() {
    let limits = Limits {
        source: Rates::of_packets(once(2)),
        network: Rates::of_packets(once(3)),
        service: Rates::of_packets(once(4)),
        ..Limits::default()
    };
    with_limits(limits, |bench| {
        let noisy = syn("192.0.2.1:40000", WEB_4);
        assert_eq!(reasons(bench, &noisy, 5), ["admitted", "admitted", "source_limit", "source_limit", "source_limit"]);
        assert_eq!(reasons(bench, &syn("192.0.2.2:40000", WEB_4), 2), ["admitted", "network_limit"]);
        assert_eq!(reasons(bench, &syn("192.0.3.1:40000", WEB_4), 2), ["admitted", "service_limit"]);
    });
}

#[test]
fn new_flows_have_one_limit_for_all_services_and_packets_of_old_ones_pass() {
    if !has_root("program runs") {
        return;
    }
    let verified = Limits { verified: once(5), ..Limits::default() };
    with_bench(Desired { new_flows: once(2), ..desired(verified) }, |bench| {
        assert_eq!(reason(bench, &syn("192.0.2.1:40000", WEB_4)), "admitted");
        assert_eq!(reason(bench, &syn("192.0.2.2:40000", OTHER_4)), "admitted");
        assert_eq!(reason(bench, &syn("192.0.2.3:40000", WEB_4)), "new_flow_limit");
        assert_eq!(reason(bench, &ack("192.0.2.3:40000", WEB_4)), "admitted");
        let known = "192.0.2.4".parse().expect("an address");
        bench
            .datapath
            .mark_verified(lb_datapath::Source::of(known), std::time::Duration::from_secs(60))
            .expect("marked");
        assert_eq!(reason(bench, &syn("192.0.2.4:40000", WEB_4)), "prioritised", "verified sources go first");
    });
}

#[test]
fn sweeping_the_hints_of_verified_sources_keeps_those_that_are() {
    use std::time::Duration;
    with_limits(Limits { source: Rates::of_packets(once(1)), verified: once(9), ..Limits::default() }, |bench| {
        let source = |address: &str| lb_datapath::Source::of(address.parse().expect("an address"));
        bench.datapath.mark_verified(source("192.0.2.1"), Duration::from_secs(60)).expect("marked");
        bench.datapath.mark_verified(source("192.0.2.2"), Duration::ZERO).expect("marked");
        bench.datapath.sweep_verified().expect("swept");
        for (client, second) in [("192.0.2.1:1", "prioritised"), ("192.0.2.2:1", "source_limit")] {
            assert_eq!(reasons(bench, &syn(client, WEB_4), 2), ["admitted", second], "{client}");
        }
        bench.datapath.mark_verified(source("192.0.2.2"), Duration::from_secs(60)).expect("marked again");
        assert_eq!(reason(bench, &syn("192.0.2.2:1", WEB_4)), "prioritised", "its hint is back");
    });
}

/// On the loaded program what the pure test of the limiter shows with ten million: each packet of the flood is another
/// source's, and between them a client opens a connection ten times a second at most.
#[test]
fn a_flood_of_spoofed_syns_costs_a_client_nothing() {
    const FLOOD_PACKETS: u32 = 60_000;
    const CLIENT_EVERY: u32 = 6000;
    with_limits(Limits { source: Rates::of_syns(Rate { per_second: 10, burst: 10 }), ..Limits::default() }, |bench| {
        let client = syn("192.0.2.1:40000", WEB_4);
        let mut flood = syn("10.0.0.0:40000", WEB_4);
        for packet in 0..FLOOD_PACKETS {
            // The program reads no checksum.
            flood[26..30]
                .copy_from_slice(&(0x0a00_0000 + packet.wrapping_mul(2_654_435_761) % (1 << 24)).to_be_bytes());
            let spoofed = bench.datapath.try_out(&flood, 1).expect("judged");
            assert_eq!(spoofed.verdict, Verdict::Pass);
            if packet % CLIENT_EVERY == 0 {
                assert_eq!(reason(bench, &client), "admitted", "after {packet}");
            }
        }
        let mut hot = 0;
        let flooded = syn("192.0.2.2:40000", WEB_4);
        while bench.datapath.try_out(&flooded, 1).expect("judged").verdict == Verdict::Pass {
            hot += 1;
            assert!(hot < 1000, "a source that floods under its own address is limited in the middle of it");
        }
    });
}
