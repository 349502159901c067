//! Clients of TCP and UDP, the kernel's own, through a load balancer that sends their packets on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use lb_datapath::{BackendState, Datapath, Desired, DesiredBackend, DesiredService, Forward, HashBy, Ports, Protocols};
use lb_tests::lan::{Lan, VIPS, backend_address};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;

const PATIENCE: Duration = Duration::from_secs(10);
const BACKENDS: u8 = 3;

/// Of the services, by their last part: an address with any port, and in the prefix around it a range.
const ANY_PORT: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];
const IN_RANGE: [&str; 2] = ["198.51.100.77", "2001:db8:100::77"];
const PORTS: [u16; 4] = [443, 5000, 5500, 5999];

fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), port)
}

/// Where a service is, and where its neighbours in port and address are not.
fn places() -> Vec<SocketAddr> {
    let any = ANY_PORT.iter().flat_map(|vip| PORTS.map(|port| address(vip, port)));
    let range = IN_RANGE.iter().flat_map(|vip| [5000, 5500, 5999].map(|port| address(vip, port)));
    any.chain(range).collect()
}

fn desired(forward: Forward, hash_by: HashBy, states: [BackendState; BACKENDS as usize]) -> Desired {
    let service = |name: &str, vips: &[&str], ports| DesiredService {
        name: name.to_owned(),
        vips: vips.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports,
        protocols: Protocols::BOTH,
        forward,
        hash_by,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    let backend = |(number, state)| DesiredBackend {
        pool: String::from("app"),
        address: backend_address(number),
        weight: 1,
        state,
    };
    Desired {
        services: vec![service("any", &ANY_PORT, Ports::Any), service("range", &VIPS, Ports::Range(5000, 5999))],
        backends: (0..).zip(states).map(backend).collect(),
        ..Desired::default()
    }
}

/// Answers whatever comes by TCP or UDP with the number of the backend.
fn serve(backend: &Namespace, number: u8) {
    backend.run(move || {
        for place in places() {
            let listener = TcpListener::bind(place).unwrap_or_else(|error| panic!("{place}: {error}"));
            thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, number)));
            let socket = UdpSocket::bind(place).unwrap_or_else(|error| panic!("{place}: {error}"));
            thread::spawn(move || {
                while let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
                    let _ = socket.send_to(&[number], client);
                }
            });
        }
    });
}

fn answer(mut stream: TcpStream, number: u8) {
    thread::spawn(move || while matches!(stream.read(&mut [0; 64]), Ok(1..)) && stream.write_all(&[number]).is_ok() {});
}

/// A client's connection or flow: asks for the number of the backend at its other end as often as wanted.
enum Flow {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Flow {
    fn tcp(place: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&place, PATIENCE).unwrap_or_else(|error| panic!("{place}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self::Tcp(stream)
    }

    fn udp(place: SocketAddr) -> Self {
        let own = if place.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(own).expect("bound");
        socket.connect(place).expect("a route");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Self::Udp(socket)
    }

    fn backend(&mut self) -> u8 {
        let mut number = [u8::MAX];
        match self {
            Self::Tcp(stream) => {
                stream.write_all(b"?").expect("asked");
                stream.read_exact(&mut number).expect("answered");
            }
            Self::Udp(socket) => {
                socket.send(b"?").expect("asked");
                socket.recv(&mut number).expect("answered");
            }
        }
        number[0]
    }
}

struct Scene {
    /// Before the edge: fields are dropped in this order, and what is loaded cannot be unloaded.
    datapath: Option<Datapath>,
    lan: Lan,
    forward: Forward,
    hash_by: HashBy,
}

impl Scene {
    fn new(forward: Forward, hash_by: HashBy) -> Self {
        let lan = Lan::new(BACKENDS);
        (0_u8..).zip(&lan.backends).for_each(|(number, backend)| serve(backend, number));
        let datapath = Some(lan.load(desired(forward, hash_by, [BackendState::Healthy; 3])));
        Self { lan, forward, hash_by, datapath }
    }

    fn set(&mut self, states: [BackendState; BACKENDS as usize]) {
        let datapath = self.datapath.take().expect("loaded");
        self.datapath = Some(self.lan.apply(datapath, desired(self.forward, self.hash_by, states)));
    }

    /// Opens as many flows at the client, and says where each leads.
    fn open(&self, count: usize, flow: fn(SocketAddr) -> Flow, place: SocketAddr) -> (Vec<Flow>, Vec<u8>) {
        self.lan.client.run(move || {
            let mut flows: Vec<Flow> = (0..count).map(|_| flow(place)).collect();
            let backends = flows.iter_mut().map(Flow::backend).collect();
            (flows, backends)
        })
    }
}

/// In which way the packets go, for the tests that are about all of them.
const WAYS: [Forward; 2] = [Forward::L2, Forward::Ipip];

fn with_scenes(hash_by: HashBy, test: impl Fn(&mut Scene)) {
    if !has_root("namespaces") {
        return;
    }
    for forward in WAYS {
        test(&mut Scene::new(forward, hash_by));
    }
}

fn asked_again(flows: &mut [Flow]) -> Vec<u8> {
    flows.iter_mut().map(Flow::backend).collect()
}

#[test]
fn clients_reach_services_of_prefixes_ranges_and_any_port_by_tcp_and_udp() {
    with_scenes(HashBy::Connection, |scene| {
        let mut reached = BTreeSet::new();
        for place in places() {
            for flow in [Flow::tcp, Flow::udp] {
                reached.extend(scene.open(4, flow, place).1);
            }
        }
        assert_eq!(reached, BTreeSet::from([0, 1, 2]), "each backend has its part");
        // The address in the range's prefix has no other port: nobody sends that on, and the edge does not own it.
        let beside = address(IN_RANGE[0], 443);
        let refused = scene.lan.client.run(move || TcpStream::connect_timeout(&beside, Duration::from_millis(300)));
        assert!(refused.is_err(), "port 443 is outside of the range");
    });
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_flow() {
    use BackendState::{Draining, Healthy};
    with_scenes(HashBy::Connection, |scene| {
        for vip in ANY_PORT {
            let place = address(vip, 443);
            let (mut old, backends) = scene.open(24, Flow::tcp, place);
            assert!(backends.contains(&1), "{backends:?}");
            scene.set([Healthy, Draining, Healthy]);
            assert_eq!(asked_again(&mut old), backends, "old connections stay where they are");
            for flow in [Flow::tcp, Flow::udp] {
                let (_, new) = scene.open(48, flow, place);
                assert!(!new.contains(&1), "{new:?}");
            }
            assert_eq!(asked_again(&mut old), backends);
            scene.set([Healthy; 3]);
            assert_eq!(asked_again(&mut old), backends);
            let (_, new) = scene.open(48, Flow::tcp, place);
            assert!(new.contains(&1), "it is back: {new:?}");
        }
    });
}

#[test]
fn what_a_dead_backend_had_of_udp_moves_at_once_and_connections_to_others_stay() {
    use BackendState::{Down, Healthy};
    with_scenes(HashBy::Connection, |scene| {
        for vip in ANY_PORT {
            let place = address(vip, 443);
            let (mut connections, before) = scene.open(24, Flow::tcp, place);
            let (mut flows, flows_before) = scene.open(24, Flow::udp, place);
            scene.set([Healthy, Healthy, Down]);
            let mut lost = 0;
            for (flow, before) in flows.iter_mut().zip(&flows_before) {
                let now = flow.backend();
                assert!(now != 2 && (now == *before || *before == 2), "a flow of {before} went to {now}");
                lost += usize::from(*before == 2);
            }
            assert!(lost > 0, "{flows_before:?}");
            for (connection, before) in connections.iter_mut().zip(&before).filter(|(_, before)| **before != 2) {
                assert_eq!(connection.backend(), *before);
            }
            let (_, new) = scene.open(48, Flow::tcp, place);
            assert!(!new.contains(&2), "{new:?}");
            scene.set([Healthy; 3]);
        }
    });
}

#[test]
fn with_source_hashing_all_that_a_client_opens_meets_at_one_backend() {
    with_scenes(HashBy::Source, |scene| {
        for vips in [ANY_PORT, IN_RANGE] {
            for vip in vips {
                let place = address(vip, 5500);
                let mut reached: BTreeSet<u8> = scene.open(24, Flow::tcp, place).1.into_iter().collect();
                reached.extend(scene.open(24, Flow::udp, place).1);
                reached.extend(scene.open(8, Flow::tcp, address(vip, 5000)).1);
                assert_eq!(reached.len(), 1, "{vip}: {reached:?}");
            }
        }
    });
}
