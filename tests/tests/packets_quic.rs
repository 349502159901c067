//! QUIC datagrams go to the server that their connection id names, and otherwise where their flow goes.

use std::collections::BTreeSet;

use lb_datapath::{BackendState, Desired, DesiredServerId, Forward, ServerIdLengths, Verdict};
use lb_tests::forwarding_link::{backend_mac, desired, with_forwarding};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Packet};
use lb_tests::program::{Bench, Judged};

const CLIENT_4: &str = "192.0.2.1:40000";
const CLIENT_6: &str = "[2001:db8:1:1::1]:40000";
const WEB_4: &str = "198.51.100.10:443";
const WEB_6: &str = "[2001:db8:100::10]:443";
const FAMILIES: [(&str, &str); 2] = [(CLIENT_4, WEB_4), (CLIENT_6, WEB_6)];

const BACKENDS_4: [&str; 3] = ["10.9.0.2:443", "10.9.0.3:443", "10.9.0.4:443"];
const BACKENDS_6: [&str; 3] = ["[2001:db8:9::2]:443", "[2001:db8:9::3]:443", "[2001:db8:9::4]:443"];
const WAYS: [(Forward, [&str; 3]); 5] = [
    (Forward::L2, BACKENDS_4),
    (Forward::Ipip, BACKENDS_4),
    (Forward::Ipip, BACKENDS_6),
    (Forward::Gue, BACKENDS_4),
    (Forward::Gue, BACKENDS_6),
];

const ETHERNET_BYTES: usize = 14;

/// Configuration 1 has server ids of four bytes, configuration 2 of twelve.
fn routed(forward: Forward, backends: &[&str]) -> Desired {
    let mut desired = desired(forward, backends);
    desired.services[0].quic = ServerIdLengths::default().with(1, 4).with(2, 12);
    let ids = desired.backends.iter().zip(2..).flat_map(|(backend, number)| {
        [4, 12].map(|bytes| DesiredServerId {
            pool: String::from("app"),
            address: backend.address,
            id: lb_datapath::ServerId::new(&server_id(number, bytes)).expect("a server id"),
        })
    });
    desired.server_ids = ids.collect();
    desired
}

/// Of the backend with this number.
fn server_id(number: u8, bytes: usize) -> Vec<u8> {
    let mut id = vec![0xb0; bytes];
    id[bytes - 1] = number;
    id
}

/// A connection id that the backend with this number may have issued.
fn connection_id(config_id: u8, number: u8) -> Vec<u8> {
    let bytes = if config_id == 2 { 12 } else { 4 };
    [&[config_id << 5 | 0x0b][..], &server_id(number, bytes), &[9, 8, 7, 6]].concat()
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x4f][..], id, &[0xee; 30]].concat()
}

fn long(first: u8, id: &[u8]) -> Vec<u8> {
    [&[first, 0, 0, 0, 1, id.len() as u8][..], id, &[0xee; 60]].concat()
}

fn datagram(client: &str, vip: &str, payload: &[u8]) -> Vec<u8> {
    Packet::new(client, vip).udp().body(payload).build()
}

/// The number of the backend that the datagram is sent to.
fn receiver(bench: &Bench, frame: &[u8]) -> u8 {
    let (judged, sent) = bench.judge_and_send(frame);
    assert_eq!(judged.verdict, Verdict::Redirect, "{judged:?}");
    assert_eq!(judged.moved["reason admitted unknown"], 1);
    assert_eq!(sent[..5], backend_mac(0)[..5], "the next hop");
    assert_eq!(sent[sent.len() - (frame.len() - ETHERNET_BYTES)..], frame[ETHERNET_BYTES..], "the packet itself");
    sent[5]
}

fn each_way(test: fn(&mut Bench, Forward, &[&str])) {
    if !has_root("program runs") {
        return;
    }
    with_forwarding(Desired::default(), move |bench| {
        for (forward, backends) in WAYS {
            bench.datapath.apply(&routed(forward, &backends)).expect("applied");
            test(bench, forward, &backends);
        }
    });
}

fn port(address: &str, port: u16) -> String {
    address.replace("40000", &port.to_string())
}

#[test]
fn a_connection_id_leads_to_its_server_from_whatever_address_it_comes() {
    each_way(|bench, _, _| {
        for (client, vip) in FAMILIES {
            for (config_id, number) in
                [1, 2].into_iter().flat_map(|config_id| [2, 3, 4].map(|number| (config_id, number)))
            {
                let id = connection_id(config_id, number);
                for client_port in [40_000, 40_001, 40_002, 61_000] {
                    let client = port(client, client_port);
                    for payload in [short(&id), long(0xc3, &id), long(0xe1, &id), long(0xd0, &id)] {
                        assert_eq!(
                            receiver(bench, &datagram(&client, vip, &payload)),
                            number,
                            "{client} {payload:02x?}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn it_is_counted_as_a_flow_that_its_backend_had_before() {
    each_way(|bench, _, backends| {
        for (client, vip) in FAMILIES {
            let frame = datagram(&port(client, 40_010), vip, &short(&connection_id(1, 3)));
            let bytes = (frame.len() - ETHERNET_BYTES) as u64;
            let address = &backends[1];
            let expected = Judged::moving(
                Verdict::Redirect,
                &[
                    ("reason admitted unknown", 1),
                    ("service web admitted", 1),
                    ("service web bytes", bytes),
                    (&format!("backend {address} packets"), 1),
                    (&format!("backend {address} bytes"), bytes),
                ],
            );
            assert_eq!(bench.judge_and_send(&frame).0, expected, "{vip}");
        }
    });
}

#[test]
fn what_names_no_server_goes_where_its_flow_goes() {
    each_way(|bench, _, _| {
        for (client, vip) in FAMILIES {
            let ours = connection_id(1, 3);
            let mut unknown = ours.clone();
            unknown[4] = 0x77;
            let payloads = [
                (
                    "a first packet, whose id the client chose",
                    long(0xc0, &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]),
                ),
                ("a configuration that is not there", short(&connection_id(3, 3))),
                ("an id that leads nowhere by itself", short(&connection_id(7, 3))),
                ("a server that is not there", short(&unknown)),
                ("an id too short", long(0xc0, &ours[..8])),
                ("version negotiation", [&[0xc0, 0, 0, 0, 0, 9][..], &ours, &[0; 40]].concat()),
                ("too few bytes for QUIC", [&[0x40][..], &ours, &[1; 3]].concat()),
                ("one byte", vec![0x40]),
                ("nothing", vec![]),
            ];
            let ports: Vec<u16> = (50_000..50_020).collect();
            let flows: Vec<u8> =
                ports.iter().map(|at| receiver(bench, &datagram(&port(client, *at), vip, b"no QUIC"))).collect();
            assert_eq!(flows.iter().copied().collect::<BTreeSet<u8>>(), [2, 3, 4].into(), "flows are spread");
            for (name, payload) in payloads {
                for (at, flow) in ports.iter().zip(&flows) {
                    assert_eq!(receiver(bench, &datagram(&port(client, *at), vip, &payload)), *flow, "{name}");
                }
            }
        }
    });
}

#[test]
fn a_flow_follows_the_server_that_its_packets_name() {
    each_way(|bench, _, _| {
        for (client, vip) in FAMILIES {
            for number in [2, 3, 4, 2] {
                let client = port(client, 40_020);
                assert_eq!(receiver(bench, &datagram(&client, vip, &short(&connection_id(1, number)))), number);
                // Such as one of a new connection over the same ports, or one that is no QUIC at all.
                assert_eq!(receiver(bench, &datagram(&client, vip, b"no QUIC")), number);
                let (router, kind, code) =
                    if vip == WEB_4 { ("192.0.2.254:0", 3, 4) } else { ("[2001:db8:1:ff::1]:0", 2, 0) };
                let quoted = Packet::new(vip, &client).udp().data(1200).build_packet();
                let error = Packet::new(router, vip).icmp(kind, code, [0, 0, 5, 0], &quoted[..60]).build();
                let (judged, sent) = bench.judge_and_send(&error);
                assert_eq!((judged.verdict, sent[5]), (Verdict::Redirect, number), "errors go there too");
            }
        }
    });
}

#[test]
fn a_draining_server_keeps_its_connections_and_a_dead_one_loses_them_to_the_flow() {
    each_way(|bench, forward, backends| {
        let mut changed = routed(forward, backends);
        for (state, keeps) in
            [(BackendState::Draining, true), (BackendState::Down, false), (BackendState::Healthy, true)]
        {
            changed.backends[1].state = state;
            bench.datapath.apply(&changed).expect("applied");
            for (client, vip) in FAMILIES {
                let receivers: BTreeSet<u8> = (41_000..41_020)
                    .map(|at| receiver(bench, &datagram(&port(client, at), vip, &short(&connection_id(1, 3)))))
                    .collect();
                let expected = if keeps { [3].into() } else { [2, 4].into() };
                assert_eq!(receivers, expected, "{state:?} {vip}");
            }
        }
        changed.backends.remove(1);
        bench.datapath.apply(&changed).expect("applied");
        for (client, vip) in FAMILIES {
            let frame = datagram(&port(client, 41_000), vip, &short(&connection_id(1, 3)));
            assert_ne!(receiver(bench, &frame), 3, "gone");
            let frame = datagram(&port(client, 41_000), vip, &short(&connection_id(1, 4)));
            assert_eq!(receiver(bench, &frame), 4, "the others are where they were");
        }
    });
}

#[test]
fn only_services_that_ask_for_it_are_routed_by_connection_ids() {
    each_way(|bench, forward, backends| {
        let mut plain = routed(forward, backends);
        plain.services[0].quic = ServerIdLengths::default();
        bench.datapath.apply(&plain).expect("applied");
        for (client, vip) in FAMILIES {
            let receivers: BTreeSet<u8> = (42_000..42_020)
                .map(|at| receiver(bench, &datagram(&port(client, at), vip, &short(&connection_id(1, 3)))))
                .collect();
            assert_eq!(receivers, [2, 3, 4].into());
        }
        bench.datapath.apply(&routed(forward, backends)).expect("applied");
        let tcp = Packet::new(CLIENT_4, WEB_4).tcp_flags(ACK).body(&short(&connection_id(1, 3)));
        let flow = Packet::new(CLIENT_4, WEB_4).tcp_flags(ACK);
        assert_eq!(receiver(bench, &tcp.build()), receiver(bench, &flow.build()), "TCP has no such ids");
    });
}

#[test]
fn a_listing_shows_what_leads_to_each_backend_and_a_double_id_is_refused() {
    each_way(|bench, forward, backends| {
        for backend in bench.reader.backends().expect("listed") {
            let shown: Vec<String> = backend.server_ids.iter().map(ToString::to_string).collect();
            let number = 2 + backends.iter().position(|one| *one == backend.address.to_string()).expect("ours");
            assert_eq!(shown, [format!("b0b0b0{number:02x}"), format!("{}{number:02x}", "b0".repeat(11))]);
        }
        let mut double = routed(forward, backends);
        double.server_ids[0].id = double.server_ids[2].id;
        let error = bench.datapath.apply(&double).expect_err("refused").to_string();
        assert!(error.contains("b0b0b003"), "{error}");
    });
}
