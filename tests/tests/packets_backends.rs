//! Which backend gets a packet, while backends come, drain, fail and go.

use lb_datapath::BackendState::{self, Down, Draining, Healthy};
use lb_datapath::{Desired, Forward, Verdict};
use lb_tests::forwarding::{VIPS, backend, desired, forwarded_to, ip_bytes, with_backends};
use lb_tests::level::has_root;
use lb_tests::packet::{ACK, Packet};
use lb_tests::program::{Bench, Judged, chain};

/// The numbers of the pool's backends.
const FIRST: u8 = 2;
const SECOND: u8 = 3;

/// In both families; each test has two backends of the family that its packets are of.
fn with_pool(test: impl Fn(Pool, &mut Bench) + Send + 'static) {
    if !has_root("program runs") {
        return;
    }
    with_backends(Desired::default(), move |bench| {
        for is_ipv4 in [true, false] {
            test(Pool { is_ipv4 }, bench);
        }
    });
}

#[derive(Clone, Copy)]
struct Pool {
    is_ipv4: bool,
}

impl Pool {
    fn set(self, bench: &mut Bench, states: &[(u8, BackendState)]) {
        let backends: Vec<_> = states.iter().map(|(number, state)| (backend(*number, self.is_ipv4), *state)).collect();
        let desired = desired(Forward::Ipip, &backends);
        bench.datapath.apply(&desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    fn packet(self, port: u16) -> Packet {
        let [vip_4, vip_6] = VIPS;
        match self.is_ipv4 {
            true => Packet::new(&format!("192.0.2.1:{port}"), &format!("{vip_4}:443")),
            false => Packet::new(&format!("[2001:db8:1::1]:{port}"), &format!("[{vip_6}]:443")),
        }
    }

    fn syn(self, port: u16) -> Packet {
        self.packet(port)
    }

    fn ack(self, port: u16) -> Packet {
        self.packet(port).tcp_flags(ACK).data(3)
    }

    fn datagram(self, port: u16) -> Packet {
        self.packet(port).udp().data(5)
    }

    /// The backend that the packet goes to, and whether its flow was new; nothing else may have moved.
    fn send(self, bench: &Bench, packet: &Packet) -> (u8, bool) {
        let frame = packet.build();
        let (judged, _) = bench.judge_and_send(&frame);
        let is_new = judged.moved.keys().any(|name| name.ends_with(" new"));
        let is_to =
            |number: &u8| judged.moved.contains_key(&format!("backend {} packets", backend(*number, self.is_ipv4)));
        let number = [FIRST, SECOND].into_iter().find(is_to).unwrap_or_else(|| panic!("to nobody: {judged:?}"));
        let opens_connection = judged.moved.contains_key("service web syns");
        let backend = backend(number, self.is_ipv4);
        assert_eq!(judged, forwarded_to(&backend, ip_bytes(&frame[14..]), opens_connection, is_new));
        (number, is_new)
    }
}

#[test]
fn a_known_flow_stays_while_another_backend_comes() {
    with_pool(|pool, bench| {
        pool.set(bench, &[(FIRST, Healthy)]);
        for port in 1000..1030 {
            assert_eq!(pool.send(bench, &pool.syn(port)), (FIRST, true));
            assert_eq!(pool.send(bench, &pool.ack(port)), (FIRST, false));
            assert_eq!(pool.send(bench, &pool.datagram(port)), (FIRST, true));
        }
        pool.set(bench, &[(FIRST, Healthy), (SECOND, Healthy)]);
        for port in 1000..1030 {
            assert_eq!(pool.send(bench, &pool.ack(port)), (FIRST, false));
            assert_eq!(pool.send(bench, &pool.datagram(port)), (FIRST, false));
        }
        let new: Vec<_> = (2000..2030).map(|port| pool.send(bench, &pool.syn(port))).collect();
        assert!(new.contains(&(FIRST, true)) && new.contains(&(SECOND, true)), "new flows are shared: {new:?}");
    });
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_one() {
    with_pool(|pool, bench| {
        pool.set(bench, &[(FIRST, Healthy)]);
        for port in 1000..1010 {
            assert_eq!(pool.send(bench, &pool.syn(port)), (FIRST, true));
            assert_eq!(pool.send(bench, &pool.ack(port)), (FIRST, false));
            assert_eq!(pool.send(bench, &pool.syn(port + 100)), (FIRST, true));
        }
        pool.set(bench, &[(FIRST, Draining), (SECOND, Healthy)]);
        for port in 1000..1010 {
            assert_eq!(pool.send(bench, &pool.ack(port)), (FIRST, false), "an established one goes on");
            assert_eq!(pool.send(bench, &pool.syn(port)), (FIRST, false), "a SYN cannot move an established one");
            let half_open = pool.send(bench, &pool.syn(port + 100));
            assert_eq!(half_open, (SECOND, true), "one that never came to be begins anew");
            assert_eq!(pool.send(bench, &pool.syn(port + 1000)), (SECOND, true), "a new one");
            assert_eq!(pool.send(bench, &pool.datagram(port + 1000)), (SECOND, true), "a new flow of UDP");
        }
    });
}

#[test]
fn a_connection_that_is_not_remembered_goes_where_it_went_before_the_change() {
    with_pool(|pool, bench| {
        pool.set(bench, &[(FIRST, Healthy)]);
        pool.set(bench, &[(FIRST, Healthy), (SECOND, Healthy)]);
        // As after a restart, or by another CPU or another load balancer.
        for port in 3000..3040 {
            assert_eq!(pool.send(bench, &pool.ack(port)), (FIRST, true), "it began before");
        }
        let begun: Vec<_> = (3100..3140).map(|port| pool.send(bench, &pool.syn(port)).0).collect();
        assert!(begun.contains(&SECOND), "those that begin now are shared: {begun:?}");
        let datagrams: Vec<_> = (3100..3140).map(|port| pool.send(bench, &pool.datagram(port)).0).collect();
        assert!(datagrams.contains(&SECOND), "UDP never says that it began before: {datagrams:?}");
    });
}

#[test]
fn what_went_to_a_backend_that_died_goes_to_another_at_once() {
    with_pool(|pool, bench| {
        pool.set(bench, &[(FIRST, Healthy)]);
        for port in 4000..4010 {
            pool.send(bench, &pool.syn(port));
            pool.send(bench, &pool.ack(port));
            pool.send(bench, &pool.datagram(port));
        }
        pool.set(bench, &[(FIRST, Down), (SECOND, Healthy)]);
        for port in 4000..4010 {
            assert_eq!(pool.send(bench, &pool.datagram(port)), (SECOND, true), "UDP, with its next packet");
            assert_eq!(pool.send(bench, &pool.datagram(port)), (SECOND, false), "and stays");
            assert_eq!(pool.send(bench, &pool.ack(port)), (SECOND, true), "TCP, to be refused there");
            assert_eq!(pool.send(bench, &pool.ack(port + 100)), (SECOND, true), "though it was there before");
        }
        pool.set(bench, &[(FIRST, Healthy), (SECOND, Healthy)]);
        for port in 4000..4010 {
            assert_eq!(pool.send(bench, &pool.datagram(port)), (SECOND, false), "nobody goes back");
        }
    });
}

#[test]
fn when_all_fail_their_checks_or_drain_all_are_tried_and_without_weight_nobody_is_there() {
    with_pool(|pool, bench| {
        pool.set(bench, &[(FIRST, Down), (SECOND, Down)]);
        let tried: Vec<_> = (5000..5040).map(|port| pool.send(bench, &pool.syn(port)).0).collect();
        assert!(tried.contains(&FIRST) && tried.contains(&SECOND), "{tried:?}");
        pool.set(bench, &[(FIRST, Draining)]);
        assert_eq!(pool.send(bench, &pool.syn(5100)), (FIRST, true), "a try is better than a certain failure");
        let mut weightless = desired(Forward::Ipip, &[(backend(FIRST, pool.is_ipv4), Healthy)]);
        weightless.backends[0].weight = 0;
        bench.datapath.apply(&weightless).unwrap_or_else(|error| panic!("{}", chain(&error)));
        for packet in [pool.syn(5200), pool.datagram(5200)] {
            let frame = packet.build();
            let (judged, unchanged) = bench.judge_and_send(&frame);
            let mut expected = Judged::only(Verdict::Drop, "no_backend");
            // It was let in, and then there was nobody.
            expected.moved.extend(Judged::let_into("web", ip_bytes(&frame[14..])).moved);
            expected.moved.remove("reason admitted unknown");
            if judged.moved.contains_key("service web syns") {
                expected = expected.with(&[("service web syns", 1)]);
            }
            assert_eq!(judged, expected);
            assert_eq!(unchanged, frame);
        }
    });
}

#[test]
fn a_backend_that_nobody_knows_the_way_to_gets_nothing() {
    if !has_root("program runs") {
        return;
    }
    let far = [("10.99.0.1:80".to_owned(), Healthy), ("[2001:db8:99::1]:80".to_owned(), Healthy)];
    for (index, forward) in [Forward::Ipip, Forward::Gue, Forward::L2].into_iter().enumerate() {
        let far = far[index % 2].clone();
        with_backends(desired(forward, &[far]), |bench| {
            let frame = Packet::new("192.0.2.1:40000", "198.51.100.10:443").build();
            let (judged, unchanged) = bench.judge_and_send(&frame);
            let mut expected = Judged::only(Verdict::Drop, "no_way_to_backend").with(&[("service web syns", 1)]);
            expected.moved.extend(Judged::let_into("web", 40).moved);
            expected.moved.remove("reason admitted unknown");
            assert_eq!((judged, unchanged), (expected, frame));
        });
    }
}
