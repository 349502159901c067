//! Packet in → verdict, reason, and the counters that moved; none other may move.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use lb_datapath::{
    BlockOutcome, Desired, DesiredService, Limits, Ports, Rate, Rates, Reason, Source, SourceClass, Verdict,
};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Extension, Packet, SYN};
use lb_tests::program::{Bench, Judged, with_bench};

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1:1::1]:40000";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";
const FAMILIES: [(&str, &str); 2] = [(CLIENT_4, WEB_4), (CLIENT_6, WEB_6)];

const ETHERNET_BYTES: usize = 14;
const LONG: Duration = Duration::from_secs(3600);

fn web(limits: Limits) -> Desired {
    let vips = ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("an address")).to_vec();
    let name = String::from("web");
    let web = DesiredService { name, vips, ports: Ports::One(443), limits, ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

fn judged(verdict: Verdict, moved: &[(&str, u64)]) -> Judged {
    let moved: BTreeMap<_, _> = moved.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Judged { verdict, moved }
}

/// Let in for `reason`, as the row of counters says.
fn let_in(reason: &str, class: &str, ip_bytes: usize, opens: bool) -> Judged {
    let reason = format!("reason {reason} {class}");
    let bytes = ("service web bytes", ip_bytes as u64);
    let mut moved = vec![(reason.as_str(), 1), ("service web admitted", 1), bytes];
    if opens {
        moved.push(("service web syns", 1));
    }
    judged(Verdict::Pass, &moved)
}

fn admitted(ip_bytes: usize, opens: bool) -> Judged {
    let_in("admitted", "unknown", ip_bytes, opens)
}

/// Passed without being anybody's.
fn untouched(reason: &str) -> Judged {
    judged(Verdict::Pass, &[(&format!("reason {reason} unknown"), 1)])
}

/// Dropped before a service was known.
fn refused(reason: &str) -> Judged {
    judged(Verdict::Drop, &[(&format!("reason {reason} unknown"), 1)])
}

/// Dropped by the service's own rules.
fn dropped(reason: &str, class: &str) -> Judged {
    judged(Verdict::Drop, &[(&format!("reason {reason} {class}"), 1), ("service web dropped", 1)])
}

type Row = (&'static str, Vec<u8>, Judged);

fn check(rows: Vec<Row>) {
    if !has_root("program runs") {
        return;
    }
    with_bench(web(Limits::default()), move |bench| {
        for (name, frame, expected) in rows {
            assert_eq!(bench.judge(&frame), expected, "{name}");
        }
    });
}

fn v4() -> Packet {
    Packet::new(CLIENT_4, WEB_4)
}

fn v6() -> Packet {
    Packet::new(CLIENT_6, WEB_6)
}

#[test]
fn packets_to_a_service_are_admitted_and_others_left_alone() {
    let mut arp = v4().build();
    arp[12..14].copy_from_slice(&0x0806_u16.to_be_bytes());
    check(vec![
        ("a SYN opens a connection", v4().build(), admitted(40, true)),
        ("a SYN opens a connection, IPv6", v6().build(), admitted(60, true)),
        ("an ACK opens none", v4().tcp_flags(ACK).data(7).build(), admitted(47, false)),
        ("a SYN-ACK opens none", v6().tcp_flags(SYN | ACK).build(), admitted(60, false)),
        ("another port of the VIP", Packet::new(CLIENT_4, "198.51.100.10:444").build(), untouched("no_service")),
        ("port 0 of the VIP", Packet::new(CLIENT_4, "198.51.100.10:0").build(), untouched("no_service")),
        ("another port, IPv6", Packet::new(CLIENT_6, "[2001:db8:100::10]:80").build(), untouched("no_service")),
        ("UDP to the VIP's TCP port", v4().udp().build(), untouched("no_service")),
        ("UDP to the VIP's TCP port, IPv6", v6().udp().build(), untouched("no_service")),
        ("another address", Packet::new(CLIENT_4, "198.51.100.11:443").build(), untouched("no_service")),
        ("another address, IPv6", Packet::new(CLIENT_6, "[2001:db8:100::11]:443").build(), untouched("no_service")),
        ("a tunnel to the VIP", v4().protocol(4).data(40).build(), untouched("not_inspected")),
        ("ARP", arp, untouched("not_inspected")),
    ]);
}

#[test]
fn headers_before_the_ports_are_walked() {
    let all = [
        Extension::HopByHop,
        Extension::Routing,
        Extension::Authentication,
        Extension::DestinationOptions,
        Extension::Fragment { offset: 0, more: false },
    ];
    let chain = |extensions: &[Extension]| extensions.iter().fold(v6(), |packet, one| packet.extension(*one)).build();
    check(vec![
        ("IPv4 options", v4().ipv4_options(10).build(), admitted(80, true)),
        ("one VLAN tag", v4().vlan(0x8100, 5).build(), admitted(40, true)),
        ("a customer tag inside a service tag", v6().vlan(0x88a8, 5).vlan(0x8100, 6).build(), admitted(60, true)),
        ("three VLAN tags", v4().vlan(0x88a8, 5).vlan(0x8100, 6).vlan(0x8100, 7).build(), untouched("not_inspected")),
        ("all extension headers", chain(&all), admitted(60 + 8 + 8 + 24 + 8 + 8, true)),
        ("seven extension headers", chain(&[Extension::DestinationOptions; 7]), admitted(60 + 7 * 8, true)),
        ("eight extension headers", chain(&[Extension::DestinationOptions; 8]), refused("bad_extension_chain")),
        ("ESP hides what is behind it", v6().protocol(50).data(40).build(), untouched("not_inspected")),
        (
            "eight extension headers to another address",
            (0..8)
                .fold(Packet::new(CLIENT_6, "[2001:db8:100::11]:443"), |packet, _| {
                    packet.extension(Extension::HopByHop)
                })
                .build(),
            untouched("no_service"),
        ),
    ]);
}

#[test]
fn lengths_that_cannot_be_are_dropped_when_they_name_a_vip() {
    let edited = |packet: Packet, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = packet.build();
        edit(&mut frame);
        frame
    };
    let total_length = ETHERNET_BYTES + 2;
    let payload_length = ETHERNET_BYTES + 4;
    let tcp = ETHERNET_BYTES + 20;
    check(vec![
        ("IHL below 5", edited(v4(), &|frame| frame[14] = 0x44), refused("bad_ip_header")),
        ("IHL beyond the datagram", edited(v4(), &|frame| frame[14] = 0x4f), refused("bad_ip_header")),
        ("total length beyond the frame", edited(v4(), &|frame| frame[total_length] = 1), refused("bad_ip_header")),
        ("total length 0", edited(v4(), &|frame| frame[total_length + 1] = 0), refused("bad_ip_header")),
        ("payload beyond the frame", edited(v6(), &|frame| frame[payload_length] = 1), refused("bad_ip_header")),
        (
            "total length inside the TCP header",
            edited(v4(), &|frame| frame[total_length + 1] = 39),
            refused("bad_transport_header"),
        ),
        (
            "payload length inside the TCP header",
            edited(v6(), &|frame| frame[payload_length + 1] = 19),
            refused("bad_transport_header"),
        ),
        ("TCP header below 20 bytes", edited(v4(), &|frame| frame[tcp + 12] = 0x40), refused("bad_transport_header")),
        ("TCP header beyond the end", edited(v4(), &|frame| frame[tcp + 12] = 0xf0), refused("bad_transport_header")),
        ("Ethernet padding is not data", edited(v4(), &|frame| frame.resize(60, 0)), admitted(40, true)),
        ("IP version 5", edited(v4(), &|frame| frame[14] = 0x55), untouched("not_inspected")),
        ("IP version 4 behind the EtherType of 6", edited(v6(), &|frame| frame[14] = 0x40), untouched("not_inspected")),
    ]);
}

#[test]
fn a_v4_mapped_address_on_the_wire_borrows_nothing_of_the_ipv4_one() {
    check(vec![
        ("to a mapped VIP", Packet::new(CLIENT_6, "[::ffff:198.51.100.10]:443").build(), untouched("not_inspected")),
        ("from a mapped source", Packet::new("[::ffff:192.0.2.1]:40000", WEB_6).build(), untouched("not_inspected")),
    ]);
}

#[test]
fn cut_at_every_length_a_packet_is_never_admitted_and_never_more_than_dropped() {
    if !has_root("program runs") {
        return;
    }
    // The kernel takes no shorter frame for a run.
    const SHORTEST: usize = ETHERNET_BYTES;
    with_bench(web(Limits::default()), |bench| {
        let whole = [
            v4().ipv4_options(2).data(5).build(),
            v4().vlan(0x8100, 5).data(5).build(),
            v6().extension(Extension::HopByHop).extension(Extension::Authentication).data(5).build(),
        ];
        for frame in whole {
            for length in SHORTEST..frame.len() {
                let cut = bench.judge(&frame[..length]);
                let expected = [untouched("not_inspected"), refused("bad_ip_header")];
                assert!(expected.contains(&cut), "{length} bytes of {frame:02x?}: {cut:?}");
            }
            assert_eq!(bench.judge(&frame).verdict, Verdict::Pass);
        }
    });
}

fn source(end: &str) -> Source {
    Source::of(end.parse::<std::net::SocketAddr>().expect("an address").ip())
}

fn ip_bytes(frame: &[u8]) -> usize {
    frame.len() - ETHERNET_BYTES
}

/// One packet a second: no test runs long enough for a second one.
const fn once(burst: u64) -> Rate {
    // The slowest rate there is, so that a slow machine does not refill a bucket in the middle of a test.
    Rate { per_second: 1, burst }
}

fn with_limits(limits: Limits, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if has_root("program runs") {
        with_bench(web(limits), test);
    }
}

#[test]
fn a_blocked_source_is_dropped_until_it_is_unblocked_and_nobody_else() {
    with_limits(Limits::default(), |bench| {
        for (client, vip) in FAMILIES {
            let frame = Packet::new(client, vip).build();
            bench.datapath.block(source(client), LONG).expect("blocked");
            assert_eq!(bench.judge(&frame), dropped("blocked", "unknown"), "{client}");
            let neighbour = Packet::new(&client.replace("1]:", "2]:").replace(".1:", ".2:"), vip).build();
            let shares_the_64 = client == CLIENT_6;
            assert_eq!(bench.judge(&neighbour).verdict == Verdict::Drop, shares_the_64, "{client}");
            let other_vip = vip.replace("10", "11");
            assert_eq!(bench.judge(&Packet::new(client, &other_vip).build()).verdict, Verdict::Pass, "no service");
            assert_eq!(bench.reader.blocks().expect("listed").len(), 1);
            assert!(bench.datapath.unblock(source(client)).expect("unblocked"));
            assert_eq!(bench.judge(&frame), admitted(ip_bytes(&frame), true), "{client}");
        }
    });
}

#[test]
fn unblocking_one_source_leaves_another_blocked_that_shares_its_hint() {
    let address = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
    let hint = Source::of(address(0)).block_hint();
    let twin = (1..).map(address).find(|one| Source::of(*one).block_hint() == hint).expect("fewer bits than sources");
    with_limits(Limits::default(), move |bench| {
        let frame = |source: IpAddr| Packet::new(&format!("{source}:40000"), WEB_4).build();
        bench.datapath.block(Source::of(twin), LONG).expect("blocked");
        assert_eq!(bench.judge(&frame(address(0))), admitted(40, true), "the hint alone blocks nobody");
        bench.datapath.block(Source::of(address(0)), LONG).expect("blocked");
        assert!(bench.datapath.unblock(Source::of(address(0))).expect("unblocked"));
        assert_eq!(bench.judge(&frame(twin)), dropped("blocked", "unknown"));
        assert_eq!(bench.judge(&frame(address(0))), admitted(40, true));
    });
}

#[test]
fn a_block_that_is_over_blocks_nothing_and_is_swept() {
    with_limits(Limits::default(), |bench| {
        let frame = v4().build();
        bench.datapath.block(source(CLIENT_4), Duration::ZERO).expect("blocked");
        assert_eq!(bench.judge(&frame), admitted(40, true));
        assert_eq!(bench.reader.blocks().expect("listed"), []);
        assert_eq!(bench.datapath.sweep_blocks().expect("swept"), 1);
        assert!(!bench.datapath.unblock(source(CLIENT_4)).expect("swept before"));
    });
}

#[test]
fn the_list_of_blocks_is_bounded_and_forgets_what_is_over_first() {
    with_limits(Limits::default(), |bench| {
        let numbered = |number: u32| Source::of(IpAddr::from(number.to_be_bytes()));
        for number in 0..4096 {
            bench.datapath.block(numbered(0x0a00_0000 + number), LONG).expect("fits");
        }
        assert_eq!(bench.datapath.block(source(CLIENT_4), LONG).expect("answered"), BlockOutcome::ListFull);
        bench.datapath.block(numbered(0x0a00_0000), Duration::ZERO).expect("a listed one may change");
        bench.datapath.block(source(CLIENT_4), LONG).expect("the one that is over gives way");
        assert_eq!(bench.judge(&v4().build()), dropped("blocked", "unknown"));
    });
}

#[test]
fn over_its_limit_an_unknown_source_is_dropped_and_its_neighbour_is_not() {
    with_limits(Limits { source: Rates::of_packets(once(2)), ..Limits::default() }, |bench| {
        for (client, vip) in FAMILIES {
            let frame = Packet::new(client, vip).build();
            for packet in 1..=2 {
                assert_eq!(bench.judge(&frame), admitted(ip_bytes(&frame), true), "{client} packet {packet}");
            }
            assert_eq!(bench.judge(&frame), dropped("source_limit", "unknown"), "{client}");
            let other_port = Packet::new(&client.replace("40000", "40001"), vip).tcp_flags(ACK).build();
            assert_eq!(bench.judge(&other_port), dropped("source_limit", "unknown"), "another connection of {client}");
        }
        let neighbour = Packet::new("192.0.2.2:40000", WEB_4).build();
        assert_eq!(bench.judge(&neighbour), admitted(40, true));
        let same_64 = Packet::new("[2001:db8:1:1:ffff::1]:40000", WEB_6).build();
        assert_eq!(bench.judge(&same_64), dropped("source_limit", "unknown"), "the same /64");
        let next_64 = Packet::new("[2001:db8:1:2::1]:40000", WEB_6).build();
        assert_eq!(bench.judge(&next_64), admitted(60, true), "the next /64");
    });
}

#[test]
fn over_its_limit_a_service_lets_in_verified_sources_only() {
    with_limits(Limits { service: Rates::of_packets(once(1)), verified: once(2), ..Limits::default() }, |bench| {
        let frame = v4().build();
        assert_eq!(bench.judge(&frame), admitted(40, true));
        assert_eq!(bench.judge(&frame), dropped("service_limit", "unknown"));
        bench.datapath.mark_verified(source(CLIENT_4), LONG).expect("marked");
        for packet in 1..=2 {
            assert_eq!(bench.judge(&frame), let_in("prioritised", "verified", 40, true), "packet {packet}");
        }
        assert_eq!(bench.judge(&frame), dropped("verified_source_limit", "verified"), "a limit of its own");
        assert_eq!(bench.judge(&v6().build()), dropped("service_limit", "unknown"), "others stay outside");
    });
}

#[test]
fn a_verified_source_within_the_limits_is_admitted_like_any_other() {
    with_limits(Limits { source: Rates::of_packets(once(5)), verified: once(1), ..Limits::default() }, |bench| {
        bench.datapath.mark_verified(source(CLIENT_6), LONG).expect("marked");
        let frame = v6().build();
        assert_eq!(bench.judge(&frame), admitted(60, true));
    });
}

#[test]
fn verification_does_not_lift_a_block() {
    with_limits(Limits::default(), |bench| {
        bench.datapath.mark_verified(source(CLIENT_4), LONG).expect("marked");
        bench.datapath.block(source(CLIENT_4), LONG).expect("blocked");
        assert_eq!(bench.judge(&v4().build()), dropped("blocked", "unknown"));
    });
}

#[test]
fn an_expired_verification_prioritises_nothing_but_is_remembered() {
    with_limits(Limits { source: Rates::of_packets(once(1)), verified: once(9), ..Limits::default() }, |bench| {
        let frame = v4().build();
        bench.judge(&frame);
        bench.datapath.mark_verified(source(CLIENT_4), Duration::ZERO).expect("marked");
        assert_eq!(bench.judge(&frame), dropped("source_limit", "unknown"));
        let known = bench.reader.verified_source(source(CLIENT_4)).expect("read").expect("remembered");
        assert_eq!(known.remaining, None);
        assert!(known.last_verified_ago < LONG);
    });
}

#[test]
fn verifying_again_does_not_refill_the_burst() {
    with_limits(Limits { source: Rates::of_packets(once(1)), verified: once(1), ..Limits::default() }, |bench| {
        let frame = v4().build();
        bench.judge(&frame);
        for expected in [let_in("prioritised", "verified", 40, true), dropped("verified_source_limit", "verified")] {
            bench.datapath.mark_verified(source(CLIENT_4), LONG).expect("marked");
            assert_eq!(bench.judge(&frame), expected);
        }
    });
}

#[test]
fn new_limits_and_removed_services_take_effect_at_once() {
    with_limits(Limits { source: Rates::of_packets(once(1)), ..Limits::default() }, |bench| {
        let frame = v4().build();
        bench.judge(&frame);
        assert_eq!(bench.judge(&frame), dropped("source_limit", "unknown"));
        bench.datapath.apply(&web(Limits::default())).expect("applied");
        assert_eq!(bench.judge(&frame), admitted(40, true), "unlimited now");
        bench.datapath.apply(&Desired::default()).expect("applied");
        assert_eq!(bench.judge(&frame), untouched("no_service"), "removed");
        assert_eq!(bench.judge(&v4().ipv4_fragment(5, true).build()), untouched("no_service"), "no VIP any more");
    });
}

/// Below half of its burst a source may win a race; nobody gets a faster rate from that.
#[test]
fn cpus_that_charge_the_same_source_at_once_let_no_more_through_once_half_its_burst_is_used() {
    const BURST: u32 = 20_000;
    const CPUS: u64 = 4;
    let rate = Rate { per_second: 10, burst: BURST.into() };
    with_limits(Limits { source: Rates::of_packets(rate), ..Limits::default() }, |bench| {
        let frame = v4().build();
        let datapath = &bench.datapath;
        datapath.try_out(&frame, BURST / 2 + 1).expect("judged");
        thread::scope(|threads| {
            for _ in 0..CPUS {
                threads.spawn(|| datapath.try_out(&frame, BURST).expect("judged"));
            }
        });
        let admitted = bench.reader.stats().expect("counters").packets(Reason::Admitted, SourceClass::Unknown);
        // A lost race passes uncharged at most as often as others were charged in its place: rarely.
        let most = u64::from(BURST) + u64::from(BURST) / 50;
        assert!((u64::from(BURST)..=most).contains(&admitted), "{admitted} of {BURST}");
    });
}
