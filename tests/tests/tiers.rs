//! An L4 tier in front of two hosts that serve: real clients through each kind of tunnel and back around the tier, and a
//! host that dies.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lb_datapath::{
    BackendState, Datapath, Desired, DesiredBackend, DesiredService, Forward, LoadOptions, Ports, Prefix, Protocols,
    Reader, SynCookies, Tier, WorkerSocket,
};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::{Counters, chain, unique_options};
use lb_tests::running::Controller;

const VIPS: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];
const MEBIBYTE: usize = 1 << 20;
/// Room for the largest outer headers, of GUE over IPv6, around clients' 1500.
const TIER_MTU_BYTES: u32 = 1560;

/// `client — router — tier — host 1, host 2`, and the hosts' own links to the router, by which they answer.
struct Network {
    client: Namespace,
    router: Namespace,
    tier: Namespace,
    hosts: [Namespace; 2],
}

/// Both ends of a link, each with its addresses.
fn link(one: (&Namespace, &str, u8), other: (&Namespace, &str, u8), subnet: u8, mtu_bytes: u32) {
    one.0.connect(one.1, other.0, other.1);
    for (namespace, name, number) in [one, other] {
        namespace.ip(&format!("link set {name} mtu {mtu_bytes}"));
        namespace.ip(&format!("address add 10.1.{subnet}.{number}/24 dev {name}"));
        namespace.ip(&format!("address add 2001:db8:{subnet}::{number}/64 dev {name} nodad"));
    }
}

fn set(namespace: &Namespace, settings: &'static [&'static str]) {
    namespace.run(move || {
        for setting in settings {
            let (name, value) = setting.split_once('=').expect("a setting");
            std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    });
}

impl Network {
    fn new() -> Self {
        let new = Namespace::new;
        let network = Self { client: new(), router: new(), tier: new(), hosts: [new(), new()] };
        let Self { client, router, tier, hosts } = &network;
        set(router, &["ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv4/conf/all/rp_filter=0"]);
        link((client, "uplink", 1), (router, "clients", 254), 9, 1500);
        link((tier, "front", 1), (router, "tier", 254), 8, 1500);
        for (host, number) in hosts.iter().zip(1..) {
            // Requests come by one link and are answered by the other.
            set(host, &["ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0"]);
            // The kernel binds no socket to an IPv6 address that is only routed to the host.
            set(host, &["ipv6/ip_nonlocal_bind=1"]);
            link((tier, &format!("host{number}"), 1), (host, "tunnels", 2), number, TIER_MTU_BYTES);
            link((router, &format!("host{number}"), 254), (host, "out", 2), 10 + number, 1500);
            host.ip(&format!("route add default via 10.1.{}.254", 10 + number));
            host.ip(&format!("-6 route add default via 2001:db8:{}::254", 10 + number));
        }
        client.ip("route add default via 10.1.9.254");
        client.ip("-6 route add default via 2001:db8:9::254");
        router.ip("route add 198.51.100.0/24 via 10.1.8.1");
        router.ip("-6 route add 2001:db8:100::/48 via 2001:db8:8::1");
        // XDP hands frames on as they are: with checksums left to a card they would never get any.
        client.run(|| {
            let off = Command::new("ethtool").args(["-K", "uplink", "tx", "off"]).stdout(Stdio::null()).status();
            assert!(off.expect("ethtool runs").success());
        });
        network
    }
}

/// Programs on an interface, which are unloaded when this is dropped: pins would outlive the namespace.
struct Loaded {
    datapath: Option<Datapath>,
    options: LoadOptions,
}

impl Loaded {
    /// In the calling thread's namespace.
    fn on(interface: &str, desired: &Desired) -> Self {
        let options = LoadOptions { interfaces: vec![interface.to_owned()], ..unique_options() };
        let (mut datapath, _) = Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
        datapath.apply(desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
        Self { datapath: Some(datapath), options }
    }

    fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("until it is dropped")
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        drop(self.datapath.take());
        let _ = lb_datapath::unload(&self.options.pin_root, &self.options.lock_folder);
    }
}

/// A host behind the tier: it unpacks, and answers TCP and UDP with what it got.
struct Host {
    reader: Reader,
    _loaded: Loaded,
    _worker: TcpListener,
}

impl Host {
    fn start(namespace: &Namespace, number: u8, syn_cookies: SynCookies) -> Self {
        namespace.run(move || {
            let mut loaded = Loaded::on("tunnels", &served(number, syn_cookies));
            // Each family's socket of its own would be usual; this one takes both.
            let worker = TcpListener::bind("[::]:0").expect("a free port");
            let socket = |ipv6| WorkerSocket { service: "web", worker: 0, socket: worker.as_fd(), ipv6 };
            loaded.datapath().steer_to(&[socket(false), socket(true)]).expect("steered");
            echo_connections(worker.try_clone().expect("cloned"));
            for vip in VIPS {
                echo_datagrams(UdpSocket::bind((vip.parse::<IpAddr>().expect("a VIP"), 443)).expect("bound"));
            }
            // What the tier's checks connect to.
            let checked = TcpListener::bind("[::]:9000").expect("bound");
            thread::spawn(move || while checked.accept().is_ok() {});
            Host { reader: loaded.datapath().reader(), _loaded: loaded, _worker: worker }
        })
    }
}

fn served(number: u8, syn_cookies: SynCookies) -> Desired {
    let prefix = |address: &str, length| Prefix::new(address.parse().expect("an address"), length).expect("a prefix");
    let from = vec![prefix(&format!("10.1.{number}.1"), 32), prefix(&format!("2001:db8:{number}::1"), 128)];
    let web = DesiredService {
        name: String::from("web"),
        vips: VIPS.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports: Ports::One(443),
        protocols: Protocols::BOTH,
        syn_cookies,
        ..DesiredService::default()
    };
    Desired { services: vec![web], tier: Some(Tier { from, gue_port: 6080 }), ..Desired::default() }
}

fn echo_connections(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut received = Vec::new();
                // The client may have gone.
                let _ = stream.read_to_end(&mut received).and_then(|_| stream.write_all(&received));
            });
        }
    });
}

fn echo_datagrams(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..bytes], from);
        }
    });
}

fn configure_tier(tier: &Controller, forward: &str, is_ipv4: bool) {
    let [one, two] = [1, 2].map(|number| backend(number, is_ipv4));
    tier.configure(&format!(
        "interfaces: [front]
services:
  - {{name: web, vips: [\"{}\", \"{}\"], port: 443, protocol: [tcp, udp], forward: {forward}, pool: l7}}
pools:
  - name: l7
    backends: [\"{one}\", \"{two}\"]
    health: {{kind: tcp, interval: 200ms, timeout: 200ms, rise: 1, fall: 2}}
routes: [{{path: /**, pool: l7}}]
",
        VIPS[0], VIPS[1],
    ));
}

fn backend(number: u8, is_ipv4: bool) -> SocketAddr {
    let address = if is_ipv4 { format!("10.1.{number}.2:9000") } else { format!("[2001:db8:{number}::2]:9000") };
    address.parse().expect("an address")
}

/// Its way is known, and the table leads to it: it was healthy when that was built.
fn gets_new_flows(reader: &Reader, address: SocketAddr) -> bool {
    let backends = reader.backends().unwrap_or_default();
    let has_way = backends.iter().any(|backend| backend.address == address && backend.way.is_some());
    has_way && reader.shares("web").is_ok_and(|shares| shares.contains_key(&address))
}

/// Sends `bytes` over TCP and reads them back.
fn echo_tcp(vip: &str, bytes: usize) {
    let address = SocketAddr::new(vip.parse().expect("an address"), 443);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let data: Vec<u8> = (0..bytes).map(|number| (number % 251) as u8).collect();
    let mut writer = stream.try_clone().expect("cloned");
    let sent = data.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&sent).and_then(|()| writer.shutdown(std::net::Shutdown::Write)).expect("sent");
    });
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).unwrap_or_else(|error| panic!("{bytes} bytes of {address}: {error}"));
    sender.join().expect("no panic");
    assert!(echoed == data, "{vip}: {} of {bytes} bytes came back, or others", echoed.len());
}

/// As large as Ethernet takes, and small ones.
fn echo_udp(vip: &str) {
    let address = SocketAddr::new(vip.parse().expect("an address"), 443);
    let (any, largest) = if address.is_ipv4() { ("0.0.0.0:0", 1472) } else { ("[::]:0", 1452) };
    for bytes in [1, 100, largest] {
        let socket = UdpSocket::bind(any).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        socket.connect(address).expect("connected");
        socket.send(&vec![7; bytes]).expect("sent");
        let mut buffer = [0; 2048];
        let echoed = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{bytes} bytes of {address}: {error}"));
        assert_eq!(buffer[..echoed], vec![7; bytes]);
    }
}

fn use_all(client: &Namespace) {
    client.run(|| {
        for vip in VIPS {
            (0..12).for_each(|_| echo_tcp(vip, 5_000));
            echo_tcp(vip, 2 * MEBIBYTE);
            (0..6).for_each(|_| echo_udp(vip));
        }
    });
}

/// What the tier says it sent to each host is what each host says it unpacked; and nothing was dropped on either.
fn check_counters(
    what: &str,
    is_ipv4: bool,
    tunnel: Option<&str>,
    tier: (&Counters, &Reader),
    hosts: [(&Counters, &Reader); 2],
) {
    let at_tier = Counters::read(tier.1).since(tier.0);
    let of = |moved: &BTreeMap<String, u64>, name: &str| moved.get(name).copied().unwrap_or(0);
    let mut forwarded = 0;
    for (number, (before, reader)) in (1..).zip(hosts) {
        let at_host = Counters::read(reader).since(before);
        let packets = of(&at_tier, &format!("backend {} packets", backend(number, is_ipv4)));
        // Which host gets the long flows is chance; that one of two gets hardly any of six dozen is not.
        let flows = of(&at_tier, &format!("backend {} new", backend(number, is_ipv4)));
        assert!(flows > 10, "{what}: host {number} had its share: {at_tier:?}");
        assert_eq!(of(&at_host, "service web admitted"), packets, "{what}: host {number} judged them: {at_host:?}");
        for kind in ["ip", "gue"] {
            let expected = if tunnel == Some(kind) { packets } else { 0 };
            assert_eq!(of(&at_host, &format!("tunnels {kind}")), expected, "{what}: {at_host:?}");
        }
        let dropped = ["tunnel_from_outside", "bad_tunnel", "tunnel_not_to_vip", "tunnel_congested"];
        assert!(dropped.iter().all(|reason| of(&at_host, &format!("reason {reason} unknown")) == 0), "{at_host:?}");
        forwarded += packets;
    }
    assert_eq!(of(&at_tier, "service web admitted"), forwarded, "{what}: {at_tier:?}");
    assert_eq!(of(&at_tier, "reason admitted unknown"), forwarded, "{what}: nothing was dropped: {at_tier:?}");
}

/// The way of forwarding, the family of the hosts' addresses, and the tunnel that the hosts see.
const MODES: [(&str, bool, Option<&str>); 6] = [
    ("ipip", true, Some("ip")),
    ("ipip", false, Some("ip")),
    ("gue", true, Some("gue")),
    ("gue", false, Some("gue")),
    ("l2", true, None),
    ("l2", false, None),
];

#[test]
fn a_tier_carries_tcp_and_udp_to_its_hosts_and_leaves_out_the_one_that_died() {
    let Some(mut tier) = Controller::new("tier") else { return };
    let network = Network::new();
    let [one, two] = [1, 2].map(|number| Host::start(&network.hosts[usize::from(number) - 1], number, SynCookies::Off));
    configure_tier(&tier, MODES[0].0, MODES[0].1);
    tier.start(&network.tier);
    for (forward, is_ipv4, tunnel) in MODES {
        let what = format!("{forward} to hosts of IPv{}", if is_ipv4 { 4 } else { 6 });
        configure_tier(&tier, forward, is_ipv4);
        let reader = tier.until(&what, |reader| {
            let is_ready = |number| gets_new_flows(reader, backend(number, is_ipv4));
            let is_in_force = reader.services().is_ok_and(|all| all.iter().any(|one| one.forward.name() == forward));
            is_in_force && is_ready(1) && is_ready(2)
        });
        let [at_tier, at_one, at_two] = [&reader, &one.reader, &two.reader].map(Counters::read);
        use_all(&network.client);
        let hosts = [(&at_one, &one.reader), (&at_two, &two.reader)];
        check_counters(&what, is_ipv4, tunnel, (&at_tier, &reader), hosts);
    }

    // As when its power fails: nothing answers any more, and nothing says so.
    configure_tier(&tier, "ipip", true);
    let is_served_by = |reader: &Reader, number| gets_new_flows(reader, backend(number, true));
    tier.until("both are back", |reader| is_served_by(reader, 1) && is_served_by(reader, 2));
    network.hosts[0].ip("link set tunnels down");
    let reader = tier.until("one is taken out", |reader| !is_served_by(reader, 1) && is_served_by(reader, 2));
    let before = Counters::read(&reader);
    use_all(&network.client);
    let moved = Counters::read(&reader).since(&before);
    assert!(!moved.contains_key(&format!("backend {} packets", backend(1, true))), "{moved:?}");
    let forwarded = moved[&format!("backend {} packets", backend(2, true))];
    assert_eq!(moved["reason admitted unknown"], forwarded, "{moved:?}");
}

/// Answers every request with `text`.
fn answer_http(address: &'static str, text: String) {
    let listener = TcpListener::bind(address).expect("a free port");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            let _ = stream.read(&mut request).and_then(|_| stream.write_all((head + &text).as_bytes()));
        }
    });
}

/// A controller that serves TLS behind the tier, and tells its metrics to whom the tier's checks ask.
fn serving(namespace: &Namespace, number: u8) -> Option<Controller> {
    let mut host = Controller::new(&format!("tier-host-{number}"))?;
    host.configure(&format!(
        "interfaces: [tunnels]
metrics: 10.1.{number}.2:9090
decapsulate: {{from: [10.1.{number}.1]}}
services: [{{name: web, vips: [\"{}\", \"{}\"], port: 443}}]
pools: [{{name: shop, backends: \"127.0.0.1:8080\", health: {{kind: tcp, interval: 200ms, timeout: 200ms, rise: 1}}}}]
routes: [{{path: /**, pool: shop, public: true}}]
",
        VIPS[0], VIPS[1],
    ));
    namespace.run(move || answer_http("127.0.0.1:8080", format!("host {number}")));
    host.start(namespace);
    host.serves();
    Some(host)
}

/// What `count` requests over TLS to each VIP are answered with.
fn asked(client: &Namespace, count: usize) -> Vec<String> {
    client.run(move || {
        let mut answers = Vec::new();
        for vip in VIPS {
            let url = if vip.contains(':') { format!("https://[{vip}]/") } else { format!("https://{vip}/") };
            for _ in 0..count {
                let output = Command::new("curl").args(["-skS", "--max-time", "10", &url]).output().expect("curl runs");
                assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
                answers.push(String::from_utf8_lossy(&output.stdout).into_owned());
            }
        }
        answers
    })
}

#[test]
fn two_controllers_serve_tls_behind_a_tier_and_one_goes_on_when_the_other_is_killed() {
    let Some(mut tier) = Controller::new("tier") else { return };
    let network = Network::new();
    let [Some(mut one), Some(_two)] = [1, 2].map(|number| serving(&network.hosts[usize::from(number) - 1], number))
    else {
        return;
    };
    tier.configure(&format!(
        "interfaces: [front]
services: [{{name: web, vips: [\"{}\", \"{}\"], port: 443, forward: ipip, pool: l7}}]
pools:
  - name: l7
    backends: [\"10.1.1.2:9090\", \"10.1.2.2:9090\"]
    health: {{path: /metrics, interval: 200ms, timeout: 200ms, rise: 1, fall: 2}}
",
        VIPS[0], VIPS[1],
    ));
    tier.start(&network.tier);
    let is_served_by =
        |reader: &Reader, number: u8| gets_new_flows(reader, SocketAddr::from(([10, 1, number, 2], 9090)));
    tier.until("both are served by", |reader| is_served_by(reader, 1) && is_served_by(reader, 2));
    one.eventually("its backend is healthy", || {
        asked(&network.client, 8).iter().all(|answer| answer.starts_with("host"))
    });
    let answers = asked(&network.client, 20);
    for host in ["host 1", "host 2"] {
        assert!(answers.iter().any(|answer| answer == host), "{host} had its share of {answers:?}");
    }

    one.kill();
    tier.until("one is taken out", |reader| !is_served_by(reader, 1) && is_served_by(reader, 2));
    assert_eq!(asked(&network.client, 20), vec![String::from("host 2"); 40]);
}

/// The tier without a controller: everything to the first host, in a tunnel.
fn forward_to_first(network: &Network) -> Loaded {
    let web = DesiredService {
        name: String::from("web"),
        vips: VIPS.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports: Ports::One(443),
        forward: Forward::Ipip,
        pool: Some(String::from("l7")),
        ..DesiredService::default()
    };
    let host =
        DesiredBackend { pool: String::from("l7"), address: backend(1, true), weight: 1, state: BackendState::Healthy };
    let desired = Desired { services: vec![web], backends: vec![host], ..Desired::default() };
    network.tier.run(move || Loaded::on("front", &desired))
}

#[test]
fn a_syn_that_came_through_the_tier_is_answered_with_a_cookie_by_the_hosts_own_way_to_the_client() {
    if !has_root("namespaces") {
        return;
    }
    let network = Network::new();
    let [host, _] = &network.hosts;
    set(host, &["ipv4/tcp_syncookies=2"]);
    network.router.take_from_xdp("host1");
    network.tier.ip("neighbour add 10.1.1.2 dev host1 lladdr 02:00:00:00:01:02");
    host.ip("link set tunnels address 02:00:00:00:01:02");
    let served = Host::start(host, 1, SynCookies::Always { threshold_syns_per_second: 1 });
    let _tier = forward_to_first(&network);
    let connect = || {
        let before = Counters::read(&served.reader);
        network.client.run(|| VIPS.iter().for_each(|vip| (0..10).for_each(|_| echo_tcp(vip, 5_000))));
        Counters::read(&served.reader).since(&before)
    };
    let of = |moved: &BTreeMap<String, u64>, name: &str| moved.get(name).copied().unwrap_or(0);

    // A host that forwards nothing is not told the way to anybody: the kernel answers.
    let moved = connect();
    assert_eq!((of(&moved, "cookies web seen"), of(&moved, "cookies web answered")), (20, 0), "{moved:?}");

    set(host, &["ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"]);
    let moved = connect();
    assert_eq!(of(&moved, "cookies web answered"), 20, "{moved:?}");
    assert!(of(&moved, "cookies web valid") > 0, "under pressure they are looked at: {moved:?}");
}
