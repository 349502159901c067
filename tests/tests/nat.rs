//! Real clients of services whose packets are rewritten, in front of a backend that knows nothing of it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lb_datapath::{
    BackendState, Datapath, Desired, DesiredBackend, DesiredService, Forward, LoadOptions, LoadReport, MapsOrigin,
    OtherVersion, Ports, Protocols, Reason, SourceClass,
};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::{chain, unique_options};
use lb_tests::running::{Controller, METRICS};

const PATIENCE: Duration = Duration::from_secs(20);
const BACKEND_PORT: u16 = 8080;
const VIPS: [&str; 2] = ["198.51.100.10:80", "[2001:db8:100::10]:80"];
const BACKENDS: [&str; 2] = ["10.9.0.2:8080", "[2001:db8:9::2]:8080"];
/// What the backend sees: the edge's own addresses on its side.
const SEEN: [&str; 2] = ["10.9.0.1", "2001:db8:9::1"];
const BULK_BYTES: usize = 4 << 20;

/// A client and a backend, each with a link to the edge. The backend has no route to anybody else.
struct Network {
    client: Namespace,
    edge: Namespace,
    backend: Namespace,
}

impl Network {
    fn new() -> Self {
        let network = Self { client: Namespace::new(), edge: Namespace::new(), backend: Namespace::new() };
        let Self { client, edge, backend } = &network;
        for (host, name, v4, v6) in
            [(client, "front", "192.0.2", "2001:db8:1:"), (backend, "back", "10.9.0", "2001:db8:9:")]
        {
            edge.connect(name, host, "uplink");
            for (last, namespace, device) in [(1, edge, name), (2, host, "uplink")] {
                namespace.ip(&format!("address add {v4}.{last}/24 dev {device}"));
                namespace.ip(&format!("address add {v6}:{last}/64 dev {device} nodad"));
            }
            host.run(|| {
                // What XDP sends on is never summed by a card.
                let done = Command::new("ethtool").args(["-K", "uplink", "tx", "off"]).output().expect("ethtool runs");
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            });
            host.take_from_xdp("uplink");
        }
        client.ip("route add 198.51.100.10 via 192.0.2.1");
        client.ip("route add 2001:db8:100::10 via 2001:db8:1::1");
        network
    }
}

fn desired() -> Desired {
    let service = |(name, end): (&str, &str)| DesiredService {
        name: name.to_owned(),
        vips: vec![end.parse::<SocketAddr>().expect("an address").ip().into()],
        ports: Ports::One(80),
        protocols: Protocols::BOTH,
        forward: Forward::Nat,
        pool: Some(name.to_owned()),
        ..DesiredService::default()
    };
    let backend = |(name, end): (&str, &str)| DesiredBackend {
        pool: name.to_owned(),
        address: end.parse().expect("an address"),
        weight: 1,
        state: BackendState::Healthy,
    };
    let names = ["four", "six"];
    Desired {
        services: names.into_iter().zip(VIPS).map(service).collect(),
        backends: names.into_iter().zip(BACKENDS).map(backend).collect(),
        ..Desired::default()
    }
}

fn load(options: &LoadOptions) -> Datapath {
    prepared(options).0
}

/// The maps are filled before packets meet them.
fn prepared(options: &LoadOptions) -> (Datapath, LoadReport) {
    let mut datapath = Datapath::prepare(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    datapath.apply(&desired()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let report = datapath.attach().unwrap_or_else(|error| panic!("{}", chain(&error)));
    let deadline = Instant::now() + PATIENCE;
    while datapath.reader().backends().expect("listed").iter().any(|backend| backend.way.is_none()) {
        assert!(Instant::now() < deadline, "the ways to the backends are not known");
        datapath.tend().expect("tended");
        // How often it is looked at.
        thread::sleep(Duration::from_millis(20));
    }
    (datapath, report)
}

/// Loads on the edge, runs `test` with client and backend, and unloads.
fn with_edge(nat_capacity: usize, test: impl FnOnce(&mut Option<Datapath>, &LoadOptions, &Namespace) + Send + 'static) {
    if !has_root("namespaces") {
        return;
    }
    let Network { client, edge, backend } = Network::new();
    backend.run(serve);
    edge.run(move || {
        let interfaces = vec![String::from("front"), String::from("back")];
        let options = LoadOptions { interfaces, nat_capacity, ..unique_options() };
        let mut datapath = Some(load(&options));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut datapath, &options, &client)));
        if let Some(datapath) = &datapath {
            let counts = datapath.reader().stats().expect("counters");
            let counts: Vec<_> = counts.outcomes().filter(|(.., packets)| *packets > 0).collect();
            eprintln!("{counts:?}\n{:?}", datapath.reader().nat());
        }
        drop(datapath);
        lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloaded");
        drop(backend);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn serve() {
    let listener = TcpListener::bind(("::", BACKEND_PORT)).expect("listening");
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(thread::spawn(move || echo(stream)))));
    for address in ["10.9.0.2", "2001:db8:9::2"] {
        let socket = UdpSocket::bind((address, BACKEND_PORT)).expect("bound");
        thread::spawn(move || echo_datagrams(&socket));
    }
}

/// Says whom it sees, in a line, and then all that it hears.
fn echo(mut stream: TcpStream) {
    let peer = stream.peer_addr().expect("a peer");
    let _ = stream.write_all(format!("{}\n", peer.ip().to_canonical()).as_bytes());
    let mut buffer = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok((bytes, peer)) = socket.recv_from(&mut buffer) {
        let answer = [peer.ip().to_string().as_bytes(), b"\n", &buffer[..bytes]].concat();
        let _ = socket.send_to(&answer, peer);
    }
}

fn connect(vip: &str) -> TcpStream {
    let stream = TcpStream::connect_timeout(&vip.parse().expect("an address"), PATIENCE).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// The first line of what the backend says: whom it sees.
fn whom_it_sees(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).expect("a line");
        match byte {
            [b'\n'] => return String::from_utf8(line).expect("text"),
            [byte] => line.push(byte),
        }
    }
}

fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).expect("sent");
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).expect("heard");
    assert_eq!(heard, text);
}

#[test]
fn tcp_and_udp_of_both_families_reach_a_backend_without_a_route_to_the_client_in_bulk_too() {
    with_edge(1024, |datapath, _, client| {
        for (vip, seen) in VIPS.into_iter().zip(SEEN) {
            client.run(move || {
                let mut stream = connect(vip);
                assert_eq!(whom_it_sees(&mut stream), seen);
                bulk(stream);
                datagrams(vip, seen);
            });
        }
        let reader = datapath.as_ref().expect("loaded").reader();
        let nat = reader.nat().expect("read").expect("used");
        assert_eq!((nat.tcp, nat.udp, nat.unproven), (2, 2, 0), "{nat:?}");
        let services = reader.stats().expect("counters").services;
        for name in ["four", "six"] {
            let service = services[name];
            assert!(service.nat.reply_bytes > BULK_BYTES as u64 && service.admitted_bytes > BULK_BYTES as u64);
            assert_eq!((service.dropped_packets, service.nat.refused_full, service.nat.refused_no_port), (0, 0, 0));
        }
    });
}

/// Full-sized segments both ways at once, and an orderly end.
fn bulk(stream: TcpStream) {
    let mut writer = stream.try_clone().expect("a second handle");
    let sent: Vec<u8> = (0..BULK_BYTES).map(|index| ((index * 31) >> 7) as u8).collect();
    let to_send = sent.clone();
    let sending = thread::spawn(move || {
        writer.write_all(&to_send).expect("sent");
        writer.shutdown(Shutdown::Write).expect("shut");
    });
    let (mut stream, mut heard) = (stream, Vec::new());
    stream.read_to_end(&mut heard).expect("heard to the end");
    sending.join().expect("sent");
    assert!(heard == sent, "{} bytes came back of {}", heard.len(), sent.len());
}

/// From one that fits a frame to one of several fragments.
fn datagrams(vip: &str, seen: &str) {
    let any = if vip.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.connect(vip).expect("connected");
    for bytes in [1, 1200, 1452, 4000] {
        let sent = vec![bytes as u8; bytes];
        socket.send(&sent).expect("sent");
        let mut heard = vec![0; 1 << 16];
        let length = socket.recv(&mut heard).unwrap_or_else(|error| panic!("{bytes} bytes to {vip}: {error}"));
        assert!(heard[..length] == [seen.as_bytes(), b"\n", &sent].concat(), "{bytes} bytes to {vip}");
    }
}

#[test]
fn connections_survive_a_restart_of_the_controller_and_go_on_while_there_is_none() {
    with_edge(1024, |datapath, options, client| {
        for vip in VIPS {
            let mut stream = client.run(move || {
                let mut stream = connect(vip);
                whom_it_sees(&mut stream);
                exchange(&mut stream, b"before");
                stream
            });
            *datapath = None;
            exchange(&mut stream, b"without a controller");
            let mut other = client.run(move || connect(vip));
            whom_it_sees(&mut other);
            *datapath = Some(load(options));
            for stream in [&mut stream, &mut other] {
                exchange(stream, b"after");
            }
        }
        let stats = datapath.as_ref().expect("loaded").reader().stats().expect("counters");
        assert_eq!(stats.packets(Reason::NatUnknown, SourceClass::Unknown), 0);
    });
}

/// As if one with more room for blocked sources, and nothing else that is new.
fn other_layout() -> OtherVersion {
    OtherVersion { entries: vec![("BLOCKS", 8192)], ..OtherVersion::default() }
}

#[test]
fn connections_survive_an_upgrade_to_another_layout_and_the_way_back_with_more_room_and_with_less() {
    with_edge(1024, |datapath, options, client| {
        let begun = || {
            VIPS.map(|vip| {
                let mut stream = client.run(move || connect(vip));
                whom_it_sees(&mut stream);
                stream
            })
        };
        let mut streams: Vec<TcpStream> = begun().into();
        for (version, nat_capacity) in [(other_layout(), 4096), (OtherVersion::default(), 64)] {
            *datapath = None;
            // Begun while no controller runs.
            streams.extend(begun());
            let options = LoadOptions { as_version: version, nat_capacity, ..options.clone() };
            let (loaded, report) = prepared(&options);
            assert_eq!(report.maps, MapsOrigin::Migrated { forgotten: BTreeSet::new() });
            streams.iter_mut().for_each(|stream| exchange(stream, b"after"));
            let reader = loaded.reader();
            let status = reader.nat().expect("read").expect("in use");
            assert_eq!((status.capacity, status.tcp), (nat_capacity as u64, streams.len() as u64));
            let stats = reader.stats().expect("counters");
            assert_eq!(stats.packets(Reason::NatUnknown, SourceClass::Unknown), 0);
            *datapath = Some(loaded);
        }
    });
}

#[test]
fn a_full_table_refuses_a_client_and_lets_it_in_when_there_is_room() {
    const CAPACITY: usize = 64;
    with_edge(CAPACITY, |datapath, _, client| {
        let reader = datapath.as_ref().expect("loaded").reader();
        client.run(move || {
            let mut held: Vec<TcpStream> = (0..CAPACITY).map(|_| connect(VIPS[0])).collect();
            held.iter_mut().for_each(|stream| assert_eq!(whom_it_sees(stream), SEEN[0]));
            let refused = TcpStream::connect_timeout(&VIPS[0].parse().expect("an address"), Duration::from_millis(500));
            assert!(refused.is_err(), "no room, no connection");
            held.iter_mut().for_each(|stream| exchange(stream, b"those that live go on"));
            let service = reader.stats().expect("counters").services["four"];
            assert!(service.nat.refused_full >= 1, "{service:?}");
            // A RST ends ten of them; ten seconds later their room is free.
            let abort = |stream: &TcpStream| {
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("set");
            };
            held.drain(..10).for_each(|stream| abort(&stream));
            let deadline = Instant::now() + PATIENCE + PATIENCE;
            let room = || reader.nat().expect("read").expect("used").in_use() <= CAPACITY as u64 - 10;
            while !room() {
                assert!(Instant::now() < deadline, "no room: {:?}", reader.nat());
                thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(whom_it_sees(&mut connect(VIPS[0])), SEEN[0]);
            held.iter_mut().for_each(|stream| exchange(stream, b"and on"));
        });
    });
}

#[test]
fn a_client_learns_at_once_that_a_backends_port_is_closed() {
    with_edge(64, |datapath, _, client| {
        let mut closed = desired();
        closed.backends.iter_mut().for_each(|backend| backend.address.set_port(9));
        datapath.as_mut().expect("loaded").apply(&closed).expect("applied");
        for vip in VIPS {
            client.run(move || {
                let address: SocketAddr = vip.parse().expect("an address");
                let refused = TcpStream::connect_timeout(&address, PATIENCE).expect_err("refused");
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "by a RST of the backend");
                let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
                let socket = UdpSocket::bind((any, 0)).expect("bound");
                socket.set_read_timeout(Some(PATIENCE)).expect("set");
                socket.connect(address).expect("connected");
                socket.send(b"anybody?").expect("sent");
                let refused = socket.recv(&mut [0; 16]).expect_err("refused");
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "by an ICMP error of the backend");
            });
        }
    });
}

#[test]
fn status_and_metrics_tell_of_connections_through_nat() {
    let Some(mut controller) = Controller::new("nat") else { return };
    let Network { client, edge, backend } = Network::new();
    backend.run(serve);
    controller.configure(&format!(
        "interfaces: [front, back]
metrics: {METRICS}
services: [{{name: four, vips: [198.51.100.10], port: 80, forward: nat, pool: four}}]
pools: [{{name: four, backends: \"{}\", health: {{kind: tcp, interval: 100ms, timeout: 100ms, rise: 1}}}}]
",
        BACKENDS[0]
    ));
    controller.start(&edge);
    controller.until("the backend is found", |reader| {
        let backends = reader.backends().expect("listed");
        backends.iter().any(|backend| backend.state == BackendState::Healthy && backend.way.is_some())
    });
    let mut stream = client.run(|| connect(VIPS[0]));
    assert_eq!(whom_it_sees(&mut stream), SEEN[0]);
    exchange(&mut stream, b"hello");

    let text = |arguments: &[&str]| {
        let output = controller.command(arguments).output().expect("the controller runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let status: serde_json::Value = serde_json::from_str(&text(&["status", "--json"])).expect("JSON");
    let (nat, service) = (&status["datapath"]["nat"], &status["datapath"]["services"][0]["nat"]);
    let of = |field: &str| nat[field].as_u64().expect("a number");
    assert_eq!(["in_use", "tcp", "udp", "capacity"].map(of), [1, 1, 0, 65_536], "{nat}");
    assert_eq!(nat["addresses"][0], SEEN[0]);
    assert!(service["reply_packets"].as_u64() >= Some(3) && service["refused_full"] == 0, "{service}");
    let maps = status["datapath"]["maps"].as_array().expect("maps");
    assert!(
        maps.iter().any(|map| map["name"] == "NAT_SLOTS" && map["bytes"].as_u64() >= Some(65_536 * 104)),
        "{maps:?}"
    );

    let screen = text(&["status"]);
    let row = screen.lines().skip_while(|line| !line.starts_with("NAT by service")).find(|line| line.contains("four"));
    assert!(row.is_some() && screen.contains("MiB in "), "{screen}");
    let metrics = controller.metrics(&edge);
    for line in [
        "lb_xdp_nat_connections{protocol=\"tcp\"} 1",
        "lb_xdp_nat_capacity 65536",
        "lb_xdp_nat_reply_packets_total{service=\"four\"} ",
        "lb_xdp_nat_refused_connections_total{service=\"four\",reason=\"full\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}
