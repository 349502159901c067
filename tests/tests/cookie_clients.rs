//! SYN cookies with real clients, and with a real flood beside them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use lb_datapath::{
    Datapath, Desired, DesiredService, Limits, LoadOptions, Ports, Rate, Rates, Reader, Stats, SynCookies, WorkerSocket,
};
use lb_tests::flood::Flood;
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::{chain, moved, unique_options};

const VIPS: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];
const WORKERS: u16 = 2;
const MEBIBYTE: usize = 1 << 20;
/// The kernel asks again after one second: a connection that took longer lost a packet.
const NOTHING_LOST: Duration = Duration::from_millis(900);

/// `client (10.9.0.1, fd09::1) — edge (10.9.0.2, fd09::2)`, and routes to the VIPs.
struct Topology {
    client: Namespace,
    edge: Namespace,
    options: LoadOptions,
}

impl Topology {
    fn new(settings: &[(&str, &str)]) -> Self {
        let (client, edge) = (Namespace::new(), Namespace::new());
        client.connect("uplink", &edge, "front");
        client.ip("addr add 10.9.0.1/24 dev uplink");
        edge.ip("addr add 10.9.0.2/24 dev front");
        client.ip("addr add fd09::1/64 dev uplink nodad");
        edge.ip("addr add fd09::2/64 dev front nodad");
        client.ip("route add 198.51.100.0/24 via 10.9.0.2");
        client.ip("-6 route add 2001:db8:100::/48 via fd09::2");
        // Forged sources are answered to where they came from.
        edge.ip("route add 10.0.0.0/8 via 10.9.0.1");
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        edge.run(move || {
            for (name, value) in settings {
                fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("set");
            }
        });
        client.take_from_xdp("uplink");
        let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
        Self { client, edge, options }
    }

    fn serve(&self, desired: Desired) -> Served {
        let options = self.options.clone();
        self.edge.run(move || {
            let (mut datapath, _) = Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
            datapath.apply(&desired).expect("applied");
            let listeners = listeners();
            let sockets: Vec<_> = listeners
                .iter()
                .map(|(worker, listener)| WorkerSocket {
                    service: "web",
                    worker: *worker,
                    socket: listener.as_fd(),
                    ipv6: listener.local_addr().expect("bound").is_ipv6(),
                })
                .collect();
            datapath.steer_to(&sockets).expect("steered");
            Served { reader: datapath.reader(), _datapath: datapath, _listeners: listeners }
        })
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // Pins would outlive the namespace; a test that failed before loading has none.
        let options = self.options.clone();
        let _ = self.edge.run(move || lb_datapath::unload(&options.pin_root, &options.lock_folder));
    }
}

struct Served {
    reader: Reader,
    _datapath: Datapath,
    _listeners: Vec<(u16, TcpListener)>,
}

impl Served {
    fn stats(&self) -> Stats {
        self.reader.stats().expect("counters")
    }
}

/// Sockets of each worker for both families. Each connection is told how many bytes arrived once its client has sent all,
/// and gets as many back.
fn listeners() -> Vec<(u16, TcpListener)> {
    let mut listeners = Vec::new();
    for worker in 0..WORKERS {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let listener = TcpListener::bind((address, 0)).expect("a free port");
            let accepting = listener.try_clone().expect("cloned");
            thread::spawn(move || {
                while let Ok((mut stream, _)) = accepting.accept() {
                    thread::spawn(move || {
                        let mut received = Vec::new();
                        // The client may have gone.
                        let _ = stream.read_to_end(&mut received).and_then(|_| stream.write_all(&received));
                    });
                }
            });
            listeners.push((worker, listener));
        }
    }
    listeners
}

fn web(limits: Limits, syn_cookies: SynCookies) -> Desired {
    let vips = VIPS.iter().map(|vip| vip.parse().expect("a VIP")).collect();
    let name = String::from("web");
    let web = DesiredService { name, vips, ports: Ports::One(443), limits, syn_cookies, ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

/// Sends `bytes` and reads them back; how long connecting took.
fn echo(vip: &str, bytes: usize) -> std::io::Result<Duration> {
    let address = SocketAddr::new(vip.parse().expect("an address"), 443);
    let begin = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    let connected = begin.elapsed();
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let data: Vec<u8> = (0..bytes).map(|number| number as u8).collect();
    let mut writer = stream.try_clone()?;
    let sent = data.clone();
    let sender =
        thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(std::net::Shutdown::Write)));
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed)?;
    sender.join().expect("no panic")?;
    assert!(echoed == data, "{vip}: {} of {bytes} bytes came back, or others", echoed.len());
    Ok(connected)
}

fn of(moved: &BTreeMap<String, u64>, name: &str) -> u64 {
    moved.get(name).copied().unwrap_or(0)
}

#[test]
fn connections_begun_with_a_cookie_carry_megabytes_both_ways() {
    if !has_root("namespaces") {
        return;
    }
    for timestamps in ["1", "2"] {
        let topology = Topology::new(&[("tcp_syncookies", "2"), ("tcp_timestamps", timestamps)]);
        let served =
            topology.serve(web(Limits::default(), SynCookies::Always { threshold_syns_per_second: 1_000_000 }));
        let before = served.stats();
        topology.client.run(move || {
            for vip in VIPS {
                for bytes in [0, 1, 100_000, 4 * MEBIBYTE] {
                    let connected = echo(vip, bytes).unwrap_or_else(|error| panic!("{vip}: {bytes} bytes: {error}"));
                    assert!(connected < NOTHING_LOST, "{vip}: connected after {connected:?}");
                }
            }
        });
        let moved = moved(&before, &served.stats());
        assert_eq!(of(&moved, "cookies web answered"), 8, "{moved:?}");
        assert_eq!(of(&moved, "reason syn_cookie_sent unknown"), 8, "{moved:?}");
        let steered: u64 = (0..WORKERS).map(|worker| of(&moved, &format!("worker {worker} steered"))).sum();
        assert_eq!(steered, 8, "the kernel found the worker of each once: {moved:?}");
    }
}

/// A line of the kernel's own counters in the calling thread's namespace, such as `TCPSynRetrans` of `TcpExt`.
fn kernel_counter(file: &str, group: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("readable");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
    let place = names.split(' ').position(|one| one == name).unwrap_or_else(|| panic!("{name} of {group}"));
    values.split(' ').nth(place).and_then(|value| value.parse().ok()).expect("a number")
}

/// SYNs of the client that went out a second time.
fn repeated_syns() -> u64 {
    kernel_counter("netstat", "TcpExt", "TCPSynRetrans")
}

const FORGED_PER_SECOND: u64 = 100_000;
const SECONDS: u64 = 3;

/// Forges SYNs from `sources` addresses, the client's own among them, and connects beside them. Returns how many SYNs were
/// forged, and how many connections succeeded at once.
fn connect_beside_a_flood(topology: &Topology, sources: u32) -> (u64, u64) {
    topology.client.run(move || {
        let flood = Flood {
            target: "198.51.100.10:443".parse().expect("an address"),
            first_source: Ipv4Addr::new(10, 9, 0, 1),
            sources,
            packets_per_second: FORGED_PER_SECOND,
            duration: Duration::from_secs(SECONDS),
        };
        let before = repeated_syns();
        let flooding = thread::spawn(move || flood.run().expect("the flood runs"));
        let mut connections = 0;
        while !flooding.is_finished() {
            for vip in VIPS {
                echo(vip, 5_000).unwrap_or_else(|error| panic!("{vip}, connection {connections}: {error}"));
                connections += 1;
            }
            // A person's pace, within the limit.
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(repeated_syns(), before, "no SYN of the client's own was lost, nor the answer to one");
        (flooding.join().expect("no panic"), connections)
    })
}

#[test]
fn a_client_whose_address_is_forged_beyond_its_limit_loses_nothing() {
    if !has_root("namespaces") {
        return;
    }
    const ADDRESSES: u32 = 16;
    let topology = Topology::new(&[("tcp_syncookies", "2"), ("tcp_timestamps", "2")]);
    let limit = Rates::of_packets(Rate { per_second: 1_000, burst: 100 });
    let limits = Limits { source: limit, ..Limits::default() };
    let served = topology.serve(web(limits, SynCookies::Auto { threshold_syns_per_second: 1_000_000 }));
    let before = served.stats();
    let (forged, connections) = connect_beside_a_flood(&topology, ADDRESSES);
    let moved = moved(&before, &served.stats());
    assert!(forged > 10_000 && connections > 5, "{forged} forged beside {connections}");
    assert!(of(&moved, "cookies web answered") > forged / 2, "beyond the limit they are answered: {moved:?}");
    assert!(of(&moved, "reason proven_by_cookie unknown") > 0, "{moved:?}");
}

#[test]
fn under_a_flood_of_forged_syns_clients_connect_at_once() {
    if !has_root("namespaces") {
        return;
    }
    const ADDRESSES: u32 = 1 << 16;
    let topology = Topology::new(&[("tcp_syncookies", "2"), ("tcp_timestamps", "2")]);
    let served = topology.serve(web(Limits::default(), SynCookies::Auto { threshold_syns_per_second: 5_000 }));
    let before = served.stats();
    let (forged, connections) = connect_beside_a_flood(&topology, ADDRESSES);
    let moved = moved(&before, &served.stats());
    assert!(forged > 10_000 && connections > 5, "{forged} forged beside {connections}");
    assert!(of(&moved, "cookies web answered") > forged / 2, "{moved:?}");
    assert!(of(&moved, "cookies web valid") > 0, "{moved:?}");
    let [web] = served.reader.services().expect("listed").try_into().expect("one service");
    assert_eq!((web.syn_cookies, web.is_answering), ("auto", true));
}
