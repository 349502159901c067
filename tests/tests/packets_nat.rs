//! NAT on the loaded programs: bytes out both ways, what a connection may become, and which counters move.

#[path = "packets_nat/family.rs"]
mod family;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use family::{FAMILIES, Family, V4, V6};
use lb_datapath::{
    BackendState, Desired, DesiredBackend, DesiredNat, DesiredService, Forward, LoadOptions, Ports, Protocols, Verdict,
};
use lb_tests::forwarding::link_bytes;
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::packet::{ACK, Extension, Packet, RST, SYN};
use lb_tests::program::{Bench, Judged, unique_options, with_bench_of};

const FIN: u8 = 0x01;
const ETHERNET_BYTES: usize = 14;
/// As [`Packet`] writes them.
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const VIP_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 9, 1];
const BACKEND_MAC: [u8; 6] = [0x02, 0, 0, 0, 9, 2];

fn addressed(mut frame: Vec<u8>, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    frame.splice(..12, [to, from].concat());
    frame
}

fn as_backend_gets(packet: Packet) -> Vec<u8> {
    addressed(packet.build(), BACKEND_MAC, OWN_MAC)
}

fn as_client_gets(packet: Packet) -> Vec<u8> {
    addressed(packet.build(), CLIENT_MAC, VIP_MAC)
}

fn desired(states: [BackendState; 2]) -> Desired {
    let service = |family: Family| {
        let vip = family.vip.rsplit_once(':').expect("a port").0.trim_matches(['[', ']']);
        DesiredService {
            name: family.service.to_owned(),
            vips: vec![vip.parse().expect("a VIP")],
            ports: Ports::One(80),
            protocols: Protocols::BOTH,
            forward: Forward::Nat,
            pool: Some(family.service.to_owned()),
            ..DesiredService::default()
        }
    };
    let backend = |family: Family, address: &str, state| DesiredBackend {
        pool: family.service.to_owned(),
        address: address.parse().expect("an address"),
        weight: 1,
        state,
    };
    let backends = FAMILIES
        .into_iter()
        .flat_map(|family| [backend(family, family.backend, states[0]), backend(family, family.spare, states[1])]);
    Desired { services: FAMILIES.map(service).to_vec(), backends: backends.collect(), ..Desired::default() }
}

/// Alone in its pool as far as new connections go.
fn first_alone() -> Desired {
    desired([BackendState::Healthy, BackendState::Down])
}

/// An edge whose link to the backends has addresses that are known, and a neighbour for each.
fn edge() -> (Namespace, Namespace) {
    let (edge, backends) = (Namespace::new(), Namespace::new());
    edge.connect("back", &backends, "uplink");
    edge.ip("link set back address 02:00:00:00:09:01");
    edge.ip("address add 10.9.0.1/24 dev back");
    edge.ip("address add 2001:db8:9::1/64 dev back nodad");
    for address in ["10.9.0.2", "10.9.0.3", "2001:db8:9::2", "2001:db8:9::3"] {
        edge.ip(&format!("neighbour replace {address} dev back lladdr 02:00:00:00:09:02 nud permanent"));
    }
    (edge, backends)
}

fn with_nat(desired: Desired, capacity: usize, test: impl FnOnce(&mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    let (edge, _backends) = edge();
    with_bench_of(&edge, LoadOptions { nat_capacity: capacity, ..unique_options() }, desired, test);
}

fn moved(verdict: Verdict, counters: &[(&str, u64)]) -> Judged {
    let moved: BTreeMap<_, _> = counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Judged { verdict, moved }
}

fn ip_bytes(frame: &[u8]) -> u64 {
    (frame.len() - ETHERNET_BYTES) as u64
}

/// What became of a packet, and what it became; the backend's own counters are looked at here.
fn judge(bench: &Bench, frame: &[u8]) -> (Judged, Vec<u8>) {
    let (judged, out) = bench.judge_and_send(frame);
    (judged.apart_from_backend(frame.len() - link_bytes(frame)).0, out)
}

/// What a client's packet moves that goes on to a backend.
fn forwarded(family: Family, frame: &[u8], syns: u64) -> Judged {
    let name = |counter: &str| format!("service {} {counter}", family.service);
    let (admitted, bytes, opened) = (name("admitted"), name("bytes"), name("syns"));
    let mut counters = vec![("reason admitted unknown", 1), (admitted.as_str(), 1), (bytes.as_str(), ip_bytes(frame))];
    if syns > 0 {
        counters.push((opened.as_str(), syns));
    }
    moved(Verdict::Redirect, &counters)
}

/// What a backend's answer moves. It came in where clients are, as all packets of a program run.
fn answered(family: Family, frame: &[u8]) -> Judged {
    let name = |counter: &str| format!("nat {} reply {counter}", family.service);
    let counters = [("reason nat_reply unknown", 1), (&*name("packets"), 1), (&*name("bytes"), ip_bytes(frame))];
    moved(Verdict::Transmit, &counters)
}

/// Refused after the limits had let it in.
fn refused(family: Family, frame: &[u8], reason: &str, syns: u64, more: &[(&str, u64)]) -> Judged {
    let mut refused = forwarded(family, frame, syns);
    refused.verdict = Verdict::Drop;
    refused.moved.remove("reason admitted unknown");
    refused.moved.insert(format!("reason {reason} unknown"), 1);
    refused.moved.extend(more.iter().map(|(name, count)| (format!("nat {} {name}", family.service), *count)));
    refused
}

/// The SYN of a connection; returns the port that it got.
fn open(bench: &Bench, family: Family, syn: Packet) -> u16 {
    let frame = syn.build();
    let (judged, out) = judge(bench, &frame);
    assert_eq!(judged, forwarded(family, &frame, 1), "{family:?}");
    family.port(&out)
}

/// Client's SYN, backend's SYN-ACK, client's ACK.
fn shake_hands(bench: &Bench, family: Family) -> u16 {
    let port = open(bench, family, family.by_client());
    for frame in [
        family.by_backend(port).tcp_flags(SYN | ACK).sequence(7000).build(),
        family.by_client().tcp_flags(ACK).acknowledgement(7001).build(),
    ] {
        judge(bench, &frame);
    }
    port
}

#[test]
fn a_tcp_connection_is_rewritten_byte_for_byte_in_both_directions() {
    with_nat(first_alone(), 64, |bench| {
        for family in FAMILIES {
            let port = open(bench, family, family.by_client());
            assert!((10_000..=32_767).contains(&port), "{port}");
            // Data of an odd length too, and the same port all the time.
            let rows: [(u8, u8, usize); 4] =
                [(SYN, SYN | ACK, 0), (ACK, ACK, 1401), (ACK | FIN, ACK, 3), (RST, RST, 0)];
            for (flags, answer, data) in rows {
                let with = |packet: Packet, flags| packet.tcp_flags(flags).sequence(9).acknowledgement(10).data(data);
                let frame = with(family.by_client(), flags).build();
                let (judged, out) = judge(bench, &frame);
                assert_eq!(out, as_backend_gets(with(family.to_backend(port), flags)), "{family:?} {flags:02x}");
                assert_eq!(judged, forwarded(family, &frame, u64::from(flags == SYN)));
                let frame = with(family.by_backend(port), answer).build();
                let (judged, out) = judge(bench, &frame);
                assert_eq!(out, as_client_gets(with(family.to_client(), answer)), "{family:?} {answer:02x}");
                assert_eq!(judged, answered(family, &frame));
            }
        }
        let nat = bench.reader.nat().expect("read").expect("used");
        assert_eq!((nat.tcp, nat.udp, nat.unproven, nat.capacity, nat.ports), (2, 0, 0, 64, (10_000, 32_767)));
        let addresses: Vec<String> = nat.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.9.0.1", "2001:db8:9::1"]);
        for backend in bench.reader.backends().expect("listed").iter().filter(|one| one.address.port() == 8080) {
            let is_first = FAMILIES.iter().any(|family| backend.address.to_string() == family.backend);
            assert_eq!(backend.counters.new_flows, u64::from(is_first), "{backend:?}");
            assert_eq!(backend.counters.packets, if is_first { 5 } else { 0 }, "{backend:?}");
        }
    });
}

#[test]
fn udp_is_rewritten_and_keeps_a_checksum_that_was_left_out() {
    with_nat(first_alone(), 64, |bench| {
        for family in FAMILIES {
            let frame = family.by_client().udp().data(33).build();
            let (judged, out) = judge(bench, &frame);
            let port = family.port(&out);
            assert_eq!(
                (judged, &out),
                (forwarded(family, &frame, 0), &as_backend_gets(family.to_backend(port).udp().data(33)))
            );
            assert_eq!(bench.reader.nat().expect("read").expect("used").unproven, 1, "{family:?}");
            let frame = family.by_backend(port).udp().data(1200).build();
            let (judged, out) = judge(bench, &frame);
            assert_eq!((judged, out), (answered(family, &frame), as_client_gets(family.to_client().udp().data(1200))));
            assert_eq!(bench.reader.nat().expect("read").expect("used").unproven, 0, "{family:?}");
        }
        let without_checksum = |packet: Packet| {
            let mut frame = packet.udp().data(5).build();
            frame[ETHERNET_BYTES + 26..ETHERNET_BYTES + 28].fill(0);
            frame
        };
        let (_, out) = judge(bench, &without_checksum(V4.by_client()));
        assert_eq!(out, addressed(without_checksum(V4.to_backend(V4.port(&out))), BACKEND_MAC, OWN_MAC));
    });
}

#[test]
fn tags_options_and_extension_headers_stay() {
    with_nat(first_alone(), 64, |bench| {
        type Dress = fn(Packet) -> Packet;
        let unusual: [(Family, Dress); 3] = [
            (V4, |packet| packet.vlan(0x8100, 5).ipv4_options(3)),
            (V4, |packet| packet.vlan(0x88a8, 5).vlan(0x8100, 6)),
            (V6, |packet| packet.extension(Extension::HopByHop).extension(Extension::DestinationOptions)),
        ];
        for (family, dress) in unusual {
            let port = open(bench, family, family.by_client());
            let frame = dress(family.by_client().tcp_flags(ACK).data(9)).build();
            let (judged, out) = judge(bench, &frame);
            assert_eq!(judged.verdict, Verdict::Redirect);
            assert_eq!(out, as_backend_gets(dress(family.to_backend(port).tcp_flags(ACK).data(9))), "{family:?}");
            let (judged, out) = judge(bench, &dress(family.by_backend(port).tcp_flags(ACK).data(9)).build());
            assert_eq!(judged.verdict, Verdict::Transmit);
            assert_eq!(out, as_client_gets(dress(family.to_client().tcp_flags(ACK).data(9))), "{family:?}");
        }
    });
}

#[test]
fn what_belongs_to_no_connection_is_dropped_towards_backends_and_the_hosts_own_otherwise() {
    with_nat(first_alone(), 64, |bench| {
        for family in FAMILIES {
            for flags in [ACK, SYN | ACK, ACK | FIN, RST] {
                let frame = family.by_client().tcp_flags(flags).build();
                assert_eq!(judge(bench, &frame).0, refused(family, &frame, "nat_unknown", 0, &[]), "{flags:02x}");
            }
            let port = open(bench, family, family.by_client());
            let unknown = Judged::only(Verdict::Pass, "nat_reply_unknown");
            let answer = |packet: Packet| packet.tcp_flags(SYN | ACK).build();
            assert_eq!(judge(bench, &answer(family.by_backend(port ^ 1))).0, unknown, "another port");
            let other = Packet::new(family.spare, &format!("{}:{port}", family.own));
            assert_eq!(judge(bench, &answer(other)).0, unknown, "another backend");
            assert_eq!(judge(bench, &family.by_backend(port).udp().build()).0, unknown, "another protocol");
            let elsewhere = Judged::only(Verdict::Pass, "no_service");
            assert_eq!(judge(bench, &answer(family.by_backend(9999))).0, elsewhere, "below the ports of NAT");
            assert_eq!(judge(bench, &answer(family.by_backend(32_768))).0, elsewhere, "above the ports of NAT");
        }
        let hosts_own = Judged::only(Verdict::Pass, "not_inspected");
        let ping = Packet::new("10.9.0.2:0", "10.9.0.1:0").icmp(8, 0, [0; 4], b"ping").build();
        assert_eq!(judge(bench, &ping).0, hosts_own, "a ping of the host");
        let ping = Packet::new("[2001:db8:9::2]:0", "[2001:db8:9::1]:0").icmp(135, 0, [0; 4], &[0; 20]).build();
        assert_eq!(judge(bench, &ping).0, hosts_own, "neighbour discovery");
        let cut = Packet::new("10.9.0.2:53", "10.9.0.1:20000").protocol(6).data(7).build();
        assert_eq!(judge(bench, &cut).0, Judged::only(Verdict::Pass, "no_service"), "cut short, to the host");
        let part = Packet::new("10.9.0.2:53", "10.9.0.1:20000").protocol(17).data(16).ipv4_fragment(4, false).build();
        assert_eq!(judge(bench, &part).0, Judged::only(Verdict::Pass, "no_service"), "a fragment that nobody knows");
    });
}

#[test]
fn a_full_table_refuses_what_is_new_until_time_makes_room_and_keeps_what_lives() {
    const CAPACITY: u16 = 64;
    with_nat(first_alone(), CAPACITY.into(), |bench| {
        let client = |number: u16| Packet::new(&format!("192.0.2.7:{number}"), V4.vip);
        let lasting = shake_hands(bench, V4);
        for number in 1..CAPACITY {
            open(bench, V4, client(number));
        }
        let frame = client(9000).build();
        assert_eq!(judge(bench, &frame).0, refused(V4, &frame, "nat_full", 1, &[("full", 1)]));
        let frame = client(9000).udp().build();
        assert_eq!(judge(bench, &frame).0, refused(V4, &frame, "nat_full", 0, &[("full", 1)]));
        let nat = bench.reader.nat().expect("read").expect("used");
        assert_eq!((nat.in_use(), nat.unproven), (64, 63));
        // Every SYN was forged: their time is over soon, and the connection that was wanted stays.
        thread::sleep(Duration::from_secs(13));
        assert_eq!(bench.reader.nat().expect("read").expect("used").in_use(), 1);
        for number in 5001..5000 + CAPACITY {
            open(bench, V4, client(number));
        }
        let frame = client(9000).build();
        assert_eq!(judge(bench, &frame).0, refused(V4, &frame, "nat_full", 1, &[("full", 1)]));
        let frame = client(1).tcp_flags(ACK).build();
        assert_eq!(judge(bench, &frame).0, refused(V4, &frame, "nat_unknown", 0, &[]), "its place is taken");
        let (_, out) = judge(bench, &V4.by_client().tcp_flags(ACK).data(1).build());
        assert_eq!(out, as_backend_gets(V4.to_backend(lasting).tcp_flags(ACK).data(1)));
    });
}

#[test]
fn without_a_free_port_towards_the_backend_a_connection_is_refused() {
    let nat = DesiredNat { ports: (20_000, 20_001), ..DesiredNat::default() };
    with_nat(Desired { nat, ..first_alone() }, 1024, |bench| {
        let client = |number: u16| Packet::new(&format!("192.0.2.7:{number}"), V4.vip);
        let ports: BTreeSet<u16> = (1..=2).map(|number| open(bench, V4, client(number))).collect();
        assert_eq!(ports, BTreeSet::from([20_000, 20_001]));
        let frame = client(3).build();
        assert_eq!(judge(bench, &frame).0, refused(V4, &frame, "nat_no_port", 1, &[("no port", 1)]));
        let nat = bench.reader.nat().expect("read").expect("used");
        assert_eq!(nat.in_use(), 2, "a slot without a port is given back");
        // Ports are a backend's own, and a protocol's.
        let frame = client(3).udp().build();
        assert_eq!(judge(bench, &frame).0, forwarded(V4, &frame, 0));
        open(bench, V6, V6.by_client());
    });
}

#[test]
fn the_addresses_that_backends_see_may_be_configured() {
    let addresses = ["10.9.0.77", "10.9.0.78"].map(|address| address.parse().expect("an address")).to_vec();
    with_nat(Desired { nat: DesiredNat { addresses, ..DesiredNat::default() }, ..first_alone() }, 256, |bench| {
        let mut seen = BTreeSet::new();
        for number in 1..=40 {
            let (_, out) = judge(bench, &Packet::new(&format!("192.0.2.7:{number}"), V4.vip).build());
            let (own, port) = (out[ETHERNET_BYTES + 15], V4.port(&out));
            seen.insert(own);
            let frame = Packet::new(V4.backend, &format!("10.9.0.{own}:{port}")).tcp_flags(SYN | ACK).build();
            assert_eq!(judge(bench, &frame).0, answered(V4, &frame), "10.9.0.{own}:{port}");
        }
        assert_eq!(seen, BTreeSet::from([77, 78]));
        open(bench, V6, V6.by_client());
    });
}

#[test]
fn connections_stay_while_their_backend_drains_and_new_ones_go_elsewhere() {
    with_nat(first_alone(), 64, |bench| {
        let ports: Vec<u16> = FAMILIES.iter().map(|family| shake_hands(bench, *family)).collect();
        let unproven = |family: Family| Packet::new(&family.client.replace("40000", "41000"), family.vip);
        for family in FAMILIES {
            open(bench, family, unproven(family));
        }
        bench.datapath.apply(&desired([BackendState::Draining, BackendState::Healthy])).expect("applied");
        for (family, port) in FAMILIES.into_iter().zip(ports) {
            let (_, out) = judge(bench, &family.by_client().tcp_flags(ACK).data(8).build());
            assert_eq!(out, as_backend_gets(family.to_backend(port).tcp_flags(ACK).data(8)), "known");
            let to_spare = |frame: &[u8]| {
                let (judged, out) = judge(bench, frame);
                assert_eq!(judged, forwarded(family, frame, 1), "{family:?}");
                let expected = Packet::new(&format!("{}:{}", family.own, family.port(&out)), family.spare);
                assert_eq!(out, as_backend_gets(expected), "{family:?}");
            };
            to_spare(&Packet::new(&family.client.replace("40000", "42000"), family.vip).build());
            to_spare(&unproven(family).build());
        }
    });
}

#[test]
fn a_dead_backends_tcp_ends_and_its_udp_moves() {
    with_nat(first_alone(), 64, |bench| {
        for family in FAMILIES {
            shake_hands(bench, family);
            judge(bench, &family.by_client().udp().build());
        }
        bench.datapath.apply(&desired([BackendState::Down, BackendState::Healthy])).expect("applied");
        for family in FAMILIES {
            let to_spare = |out: &[u8]| Packet::new(&format!("{}:{}", family.own, family.port(out)), family.spare);
            let frame = family.by_client().tcp_flags(ACK).build();
            assert_eq!(judge(bench, &frame).0, refused(family, &frame, "no_backend", 0, &[]));
            let frame = family.by_client().udp().data(4).build();
            let (judged, out) = judge(bench, &frame);
            assert_eq!((judged, &out), (forwarded(family, &frame, 0), &as_backend_gets(to_spare(&out).udp().data(4))));
            let frame = family.by_client().build();
            let (judged, out) = judge(bench, &frame);
            assert_eq!((judged, &out), (forwarded(family, &frame, 1), &as_backend_gets(to_spare(&out))), "a new try");
        }
        let nat = bench.reader.nat().expect("read").expect("used");
        assert_eq!((nat.tcp, nat.udp), (2, 2), "what moved left nothing behind");
    });
}

#[test]
fn icmp_errors_find_their_way_through_in_both_directions() {
    with_nat(first_alone(), 64, |bench| {
        for (family, kind, code, quoted_bytes, router) in
            [(V4, 3, 4, 28, "192.0.2.254:0"), (V4, 3, 3, 68, "10.9.0.2:0"), (V6, 2, 0, 900, "[2001:db8:1::ff]:0")]
        {
            let port = shake_hands(bench, family);
            let quote = |packet: Packet| {
                let mut quoted = packet.tcp_flags(ACK).data(1400).build_packet();
                quoted.truncate(quoted_bytes);
                quoted
            };
            let error = |from: &str, to: &str, quoted: Packet| {
                let strip = |end: &str| format!("{}:0", end.rsplit_once(':').expect("a port").0);
                Packet::new(&strip(from), &strip(to)).icmp(kind, code, [0, 0, 5, 0], &quote(quoted))
            };
            let own = format!("{}:{port}", family.own);
            // About what the backend sent, from the client's side.
            let frame = error(router, family.vip, family.to_client()).build();
            let (judged, out) = judge(bench, &frame);
            assert_eq!(judged, Judged::only(Verdict::Redirect, "icmp_forwarded"));
            assert_eq!(out, as_backend_gets(error(&own, family.backend, family.by_backend(port))), "{family:?}");
            // About what was sent to the backend, from its side.
            let frame = error(router, &own, family.to_backend(port)).build();
            let (judged, out) = judge(bench, &frame);
            assert_eq!(judged, Judged::only(Verdict::Transmit, "icmp_forwarded"));
            assert_eq!(out, as_client_gets(error(family.vip, family.client, family.by_client())), "{family:?}");
            // About nothing that is known.
            let frame =
                error(router, family.vip, Packet::new(family.vip, &family.client.replace("40000", "9"))).build();
            assert_eq!(judge(bench, &frame).0, Judged::only(Verdict::Drop, "nat_unknown"), "{family:?}");
            let frame = error(router, &own, family.to_backend(port ^ 1)).build();
            assert_eq!(judge(bench, &frame).0, Judged::only(Verdict::Pass, "nat_reply_unknown"), "{family:?}");
            let frame = error(router, &own, family.to_backend(9)).build();
            assert_eq!(judge(bench, &frame).0.verdict, Verdict::Pass, "the host's own");
        }
    });
}

#[test]
fn fragments_follow_the_first_of_their_datagram_in_both_directions() {
    with_nat(first_alone(), 64, |bench| {
        for family in FAMILIES {
            let part = |packet: Packet, offset: u16, more: bool| {
                if family.is_v4 {
                    packet.ipv4_fragment(offset, more)
                } else {
                    packet.extension(Extension::Fragment { offset, more })
                }
            };
            let parts = |whole: fn(Family, u16) -> Packet, port: u16| {
                [
                    part(whole(family, port).udp().data(24), 0, true),
                    part(whole(family, port).protocol(17).data(13), 4, false),
                ]
            };
            let (_, out) = judge(bench, &family.by_client().udp().build());
            let port = family.port(&out);
            let there = parts(|family, _| family.by_client(), 0).map(|packet| packet.build());
            for (frame, expected) in there.iter().zip(parts(Family::to_backend, port)) {
                let (judged, out) = judge(bench, frame);
                assert_eq!((judged, out), (forwarded(family, frame, 0), as_backend_gets(expected)), "{family:?}");
            }
            let back = parts(Family::by_backend, port).map(|packet| packet.build());
            for (frame, expected) in back.iter().zip(parts(|family, _| family.to_client(), 0)) {
                let (judged, out) = judge(bench, frame);
                assert_eq!((judged, out), (answered(family, frame), as_client_gets(expected)), "{family:?}");
            }
        }
    });
}

#[test]
fn connections_that_cpus_open_at_once_never_share_a_port_and_one_that_they_open_together_gets_one() {
    const THREADS: u16 = 4;
    const EACH: u16 = 150;
    let nat = DesiredNat { ports: (20_000, 29_999), ..DesiredNat::default() };
    with_nat(Desired { nat, ..first_alone() }, 4096, |bench| {
        let datapath = &bench.datapath;
        let port_of = |packet: Packet| {
            let outcome = datapath.try_out(&packet.build(), 1).expect("judged");
            assert_eq!(outcome.verdict, Verdict::Redirect);
            V4.port(&outcome.frame)
        };
        let ports: Vec<u16> = thread::scope(|threads| {
            let open = |thread: u16| {
                (0..EACH)
                    .map(|number| port_of(Packet::new(&format!("192.0.2.{thread}:{}", 1000 + number), V4.vip)))
                    .collect()
            };
            let handles: Vec<_> =
                (0..THREADS).map(|thread| threads.spawn(move || -> Vec<u16> { open(thread) })).collect();
            handles.into_iter().flat_map(|handle| handle.join().expect("opened")).collect()
        });
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), usize::from(THREADS * EACH));
        for number in 0..200 {
            let same: BTreeSet<u16> = thread::scope(|threads| {
                let open = || port_of(Packet::new(&format!("203.0.113.1:{}", 1000 + number), V4.vip));
                let handles: Vec<_> = (0..THREADS).map(|_| threads.spawn(open)).collect();
                handles.into_iter().map(|handle| handle.join().expect("opened")).collect()
            });
            assert_eq!(same.len(), 1, "connection {number}");
        }
        let in_use = bench.reader.nat().expect("read").expect("used").in_use();
        assert_eq!(in_use, u64::from(THREADS * EACH) + 200, "nothing is left over");
    });
}
