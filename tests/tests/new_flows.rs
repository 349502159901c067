//! The limit of new flows where flows are remembered: what is new, and who passes over it.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_datapath::{
    BackendState, Desired, DesiredBackend, DesiredService, Forward, Limits, Ports, Protocols, Rate, Source, Verdict,
};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::packet::{ACK, Packet};
use lb_tests::program::{Bench, Judged, with_bench_in};

/// The slowest rate there is, so that a slow machine does not refill a burst in the middle of a test.
const fn once(burst: u64) -> Rate {
    Rate { per_second: 1, burst }
}

fn desired(new_flows: Rate) -> Desired {
    let service = DesiredService {
        name: String::from("web"),
        vips: ["198.51.100.10", "2001:db8:100::10"].map(|vip| vip.parse().expect("a VIP")).to_vec(),
        ports: Ports::One(443),
        protocols: Protocols::BOTH,
        limits: Limits { verified: once(2), ..Limits::default() },
        forward: Forward::Ipip,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    let backend = DesiredBackend {
        pool: String::from("app"),
        address: "10.9.0.2:443".parse().expect("an address"),
        weight: 1,
        state: BackendState::Healthy,
    };
    Desired { services: vec![service], backends: vec![backend], new_flows, ..Desired::default() }
}

fn with_new_flows(new_flows: Rate, test: impl FnOnce(&mut Bench, Family) + Clone + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    for family in [Family { is_ipv4: true }, Family { is_ipv4: false }] {
        let (edge, peer, test) = (Namespace::new(), Namespace::new(), test.clone());
        edge.connect("way", &peer, "uplink");
        edge.ip("address add 10.9.0.1/24 dev way");
        edge.ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:09:02 dev way nud permanent");
        with_bench_in(&edge, &[], desired(new_flows), move |bench| test(bench, family));
    }
}

#[derive(Clone, Copy, Debug)]
struct Family {
    is_ipv4: bool,
}

impl Family {
    fn tcp(self, client: u8) -> Packet {
        match self.is_ipv4 {
            true => Packet::new(&format!("192.0.2.{client}:40000"), "198.51.100.10:443"),
            false => Packet::new(&format!("[2001:db8:1:{client}::1]:40000"), "[2001:db8:100::10]:443"),
        }
    }

    fn udp(self, client: u8) -> Vec<u8> {
        self.tcp(client).udp().data(8).build()
    }

    fn source(self, client: u8) -> Source {
        let address = if self.is_ipv4 { format!("192.0.2.{client}") } else { format!("2001:db8:1:{client}::1") };
        Source::of(address.parse().expect("an address"))
    }
}

/// What happened to the packet, and how many flows were new to the backend.
fn judge(bench: &Bench, frame: &[u8]) -> (Judged, u64) {
    let (judged, is_new) = bench.judge_and_send(frame).0.apart_from_backend(frame.len() - 14);
    (judged, u64::from(is_new))
}

/// Its end, beside the counters of the service, whose limits all of these packets are within.
fn ended(verdict: Verdict, reason: &str, frame: &[u8], syns: u64) -> Judged {
    let all = [
        (format!("reason {reason}"), 1),
        (String::from("service web admitted"), 1),
        (String::from("service web bytes"), frame.len() as u64 - 14),
        (String::from("service web syns"), syns),
    ];
    Judged { verdict, moved: all.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>() }
}

fn sent_on(frame: &[u8]) -> Judged {
    ended(Verdict::Redirect, "admitted unknown", frame, 0)
}

#[test]
fn the_first_datagram_of_a_flow_counts_and_those_of_a_known_one_pass() {
    with_new_flows(once(2), |bench, family| {
        for client in [1, 2] {
            let frame = family.udp(client);
            assert_eq!(judge(bench, &frame), (sent_on(&frame), 1), "{family:?} {client}: opens a flow");
        }
        let third = family.udp(3);
        let refused = ended(Verdict::Drop, "new_flow_limit unknown", &third, 0);
        assert_eq!(judge(bench, &third), (refused.clone(), 0), "{family:?}: one too many");
        assert_eq!(judge(bench, &third), (refused, 0), "{family:?}: what was refused is not remembered");
        for client in [1, 2, 1, 2] {
            let frame = family.udp(client);
            assert_eq!(judge(bench, &frame), (sent_on(&frame), 0), "{family:?} {client}: is known");
        }
        let syn = family.tcp(4).build();
        let mut dropped = Judged::only(Verdict::Drop, "new_flow_limit");
        dropped.moved.insert("service web dropped".into(), 1);
        assert_eq!(judge(bench, &syn), (dropped, 0), "{family:?}: SYNs share the limit");
    });
}

#[test]
fn a_syn_takes_from_the_same_limit_once_and_its_connection_goes_on() {
    with_new_flows(once(2), |bench, family| {
        let syn = family.tcp(1).build();
        let opened = ended(Verdict::Redirect, "admitted unknown", &syn, 1);
        assert_eq!(judge(bench, &syn), (opened, 1), "{family:?}");
        let datagram = family.udp(2);
        assert_eq!(judge(bench, &datagram), (sent_on(&datagram), 1), "{family:?}: the SYN was counted once");
        let refused = family.udp(3);
        assert_eq!(judge(bench, &refused).0.verdict, Verdict::Drop, "{family:?}");
        let ack = family.tcp(1).tcp_flags(ACK).build();
        assert_eq!(judge(bench, &ack), (sent_on(&ack), 0), "{family:?}: a known connection");
    });
}

/// As after a restart, or when another load balancer of the tier has failed.
#[test]
fn a_connection_that_began_elsewhere_is_not_cut_off() {
    with_new_flows(once(1), |bench, family| {
        let datagram = family.udp(1);
        assert_eq!(judge(bench, &datagram), (sent_on(&datagram), 1), "{family:?}: the limit is used up");
        for client in 2..50 {
            let ack = family.tcp(client).tcp_flags(ACK).build();
            assert_eq!(judge(bench, &ack), (sent_on(&ack), 1), "{family:?} {client}");
        }
    });
}

#[test]
fn a_verified_source_opens_flows_over_the_limit_up_to_its_own() {
    with_new_flows(once(1), |bench, family| {
        bench.datapath.mark_verified(family.source(9), Duration::from_secs(60)).expect("marked");
        assert_eq!(judge(bench, &family.udp(1)).1, 1, "{family:?}: the limit is used up");
        let flow = |port: u16| {
            let mut frame = family.udp(9);
            let at = if family.is_ipv4 { 34 } else { 54 };
            frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
            frame
        };
        for port in [1, 2] {
            let frame = flow(port);
            let first = ended(Verdict::Redirect, "prioritised verified", &frame, 0);
            assert_eq!(judge(bench, &frame), (first, 1), "{family:?}");
        }
        let frame = flow(3);
        let over = ended(Verdict::Drop, "verified_source_limit verified", &frame, 0);
        assert_eq!(judge(bench, &frame), (over, 0), "{family:?}");
        let frame = flow(1);
        assert_eq!(judge(bench, &frame), (sent_on(&frame), 0), "{family:?}: its flows are known like any other");
    });
}

#[test]
fn without_a_limit_every_flow_is_let_in() {
    with_new_flows(Rate::UNLIMITED, |bench, family| {
        for client in 1..100 {
            let frame = family.udp(client);
            assert_eq!(judge(bench, &frame), (sent_on(&frame), 1), "{family:?} {client}");
        }
    });
}
