//! Real packets between namespaces: XDP native on a veth, a VIP that no interface has, and sockets that sk_lookup
//! chooses.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lb_datapath::{
    Applied, AttachMode, Datapath, Desired, DesiredService, LoadOptions, MapsOrigin, Ports, Source, WorkerSocket,
    open_pinned,
};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::{chain, moved, unique_options};

const VIPS: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];
const WORKERS: u16 = 4;

/// `client (10.9.0.1, fd09::1) — edge (10.9.0.2, fd09::2)`, and routes to the VIPs.
struct Topology {
    client: Namespace,
    edge: Namespace,
    options: LoadOptions,
}

impl Topology {
    fn new() -> Self {
        let (client, edge) = (Namespace::new(), Namespace::new());
        client.connect("uplink", &edge, "front");
        client.ip("addr add 10.9.0.1/24 dev uplink");
        edge.ip("addr add 10.9.0.2/24 dev front");
        client.ip("addr add fd09::1/64 dev uplink nodad");
        edge.ip("addr add fd09::2/64 dev front nodad");
        client.ip("route add 198.51.100.0/24 via 10.9.0.2");
        client.ip("-6 route add 2001:db8:100::/48 via fd09::2");
        let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
        Self { client, edge, options }
    }

    /// Runs `test` in the edge's namespace.
    fn on_edge<T: Send + 'static>(&self, test: impl FnOnce(&LoadOptions) -> T + Send + 'static) -> T {
        let options = self.options.clone();
        self.edge.run(move || test(&options))
    }

    /// Connects to each VIP `times` times and returns which worker answered, with how many of the connections.
    fn connect(&self, times: u32) -> BTreeMap<u16, u64> {
        self.client.run(move || {
            let mut answers = BTreeMap::new();
            for vip in VIPS.iter().cycle().take(times as usize * VIPS.len()) {
                *answers.entry(ask(vip)).or_insert(0) += 1;
            }
            answers
        })
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // Pins would outlive the namespace; a test that failed before loading has none.
        let (root, locks) = (self.options.pin_root.clone(), self.options.lock_folder.clone());
        let _ = self.edge.run(move || lb_datapath::unload(&root, &locks));
    }
}

/// The worker that answers a new connection to port 443 of `vip`.
fn ask(vip: &str) -> u16 {
    let address = SocketAddr::new(vip.parse().expect("an address"), 443);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).expect("the worker's number");
    u16::from_be_bytes(answer)
}

/// Sockets of each worker for both families, bound to the loopback and never to a VIP. Each answers with its worker's
/// number.
struct Workers {
    listeners: Vec<(u16, bool, TcpListener)>,
}

impl Workers {
    fn start() -> Self {
        let mut listeners = Vec::new();
        for worker in 0..WORKERS {
            for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
                let listener = TcpListener::bind((address, 0)).expect("a free port");
                let accepting = listener.try_clone().expect("cloned");
                thread::spawn(move || {
                    while let Ok((mut stream, _)) = accepting.accept() {
                        // The client may have gone.
                        let _ = stream.write_all(&worker.to_be_bytes());
                    }
                });
                listeners.push((worker, address.is_ipv6(), listener));
            }
        }
        Self { listeners }
    }

    fn sockets(&self) -> Vec<WorkerSocket<'_>> {
        self.listeners
            .iter()
            .map(|(worker, ipv6, listener)| WorkerSocket {
                service: "web",
                worker: *worker,
                socket: listener.as_fd(),
                ipv6: *ipv6,
            })
            .collect()
    }
}

fn desired() -> Desired {
    let vips = VIPS.iter().map(|vip| vip.parse().expect("an address")).collect();
    let web = DesiredService { name: String::from("web"), vips, ports: Ports::One(443), ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

fn load(options: &LoadOptions) -> (Datapath, lb_datapath::LoadReport) {
    Datapath::load(options).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

#[test]
fn xdp_sk_lookup_and_the_accepting_socket_agree_on_the_worker() {
    if !has_root("namespaces") {
        return;
    }
    let topology = Topology::new();
    let (mut datapath, workers) = topology.on_edge(|options| {
        let (mut datapath, report) = load(options);
        assert_eq!(report.interfaces[0].mode, AttachMode::Native, "{report:?}");
        datapath.apply(&desired()).expect("applied");
        let workers = Workers::start();
        datapath.steer_to(&workers.sockets()).expect("steered");
        (datapath, workers)
    });
    let reader = datapath.reader();
    let before = reader.stats().expect("counters");
    let answers = topology.connect(40);
    let moved = moved(&before, &reader.stats().expect("counters"));

    assert_eq!(answers.values().sum::<u64>(), 80);
    assert_eq!(answers.len(), usize::from(WORKERS), "each worker had its share: {answers:?}");
    for (worker, connections) in &answers {
        assert_eq!(moved.get(&format!("worker {worker} picked")), Some(connections), "XDP: {moved:?}");
        assert_eq!(moved.get(&format!("worker {worker} steered")), Some(connections), "sk_lookup: {moved:?}");
    }
    assert_eq!(moved.get("service web syns"), Some(&80));
    datapath.sweep_blocks().expect("swept");
    drop(workers);
}

#[test]
fn without_the_controller_packets_are_counted_on_and_a_new_one_takes_over_the_maps() {
    if !has_root("namespaces") {
        return;
    }
    let topology = Topology::new();
    topology.on_edge(|options| {
        let (mut datapath, report) = load(options);
        assert_eq!(report.maps, MapsOrigin::Fresh);
        datapath.apply(&desired()).expect("applied");
        let verified = Source::of(IpAddr::from([192, 0, 2, 7]));
        datapath.mark_verified(verified, Duration::from_secs(60)).expect("marked");
        datapath.block(Source::of(IpAddr::from([192, 0, 2, 8])), Duration::from_secs(60)).expect("blocked");
    });
    let reader = open_pinned(&topology.options.pin_root).expect("the pins are readable without a controller");
    let before = reader.stats().expect("counters");
    topology.client.run(|| {
        // Nobody listens: refused, after XDP has judged and counted it.
        let address = SocketAddr::new(VIPS[0].parse().expect("an address"), 443);
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect_err("refused");
    });
    let after = reader.stats().expect("counters");
    assert_eq!(moved(&before, &after).get("service web syns"), Some(&1));
    let names: Vec<_> = reader.interfaces().expect("links").into_iter().map(|one| (one.name, one.mode)).collect();
    assert_eq!(names, [(String::from("front"), AttachMode::Native)]);

    let (datapath, workers) = topology.on_edge(|options| {
        let (mut datapath, report) = load(options);
        assert_eq!(report.maps, MapsOrigin::Reused);
        assert!(report.interfaces[0].replaced, "{report:?}");
        let applied = datapath.apply(&desired()).expect("applied");
        assert_eq!(applied, Applied::default(), "the maps already said so");
        let workers = Workers::start();
        datapath.steer_to(&workers.sockets()).expect("steered");
        (datapath, workers)
    });
    let reader = datapath.reader();
    assert!(reader.stats().expect("counters").services["web"].admitted_syns >= after.services["web"].admitted_syns);
    assert_eq!(reader.verified_sources().expect("listed").len(), 1);
    assert_eq!(reader.blocks().expect("listed").len(), 1);
    assert_eq!(topology.connect(4).values().sum::<u64>(), 8);
    drop(workers);
}

#[test]
fn the_hosts_own_listeners_are_reached_where_no_worker_is() {
    if !has_root("namespaces") {
        return;
    }
    const OWN_WORKER: u16 = 99;
    let topology = Topology::new();
    let own = topology.on_edge(|options| {
        let (mut datapath, _) = load(options);
        datapath.apply(&desired()).expect("applied");
        // On every address and the service's own port: what is there before the workers are must go on.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 443)).expect("bound");
        let accepting = listener.try_clone().expect("cloned");
        thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let _ = stream.write_all(&OWN_WORKER.to_be_bytes());
            }
        });
        listener
    });
    assert_eq!(topology.connect(2), BTreeMap::from([(OWN_WORKER, 4)]));
    drop(own);
}

#[test]
fn no_connection_fails_while_the_programs_are_replaced() {
    if !has_root("namespaces") {
        return;
    }
    let topology = Topology::new();
    let workers = topology.on_edge(|options| {
        let (mut datapath, _) = load(options);
        datapath.apply(&desired()).expect("applied");
        let workers = Workers::start();
        datapath.steer_to(&workers.sockets()).expect("steered");
        workers
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    let clients = topology.client.start(move || {
        let mut connections = 0;
        for vip in VIPS.iter().cycle() {
            ask(vip);
            connections += 1;
            if stop.load(Ordering::Relaxed) {
                return connections;
            }
        }
        connections
    });
    for _ in 0..5 {
        topology.on_edge(|options| {
            let (mut datapath, report) = load(options);
            assert!(report.interfaces[0].replaced, "{report:?}");
            datapath.apply(&desired()).expect("applied");
        });
    }
    is_over.store(true, Ordering::Relaxed);
    let connections: u32 = clients.recv().expect("no connection failed; a panic would be above");
    assert!(connections > 5, "only {connections} connections were tried");
    drop(workers);
}

#[test]
fn without_any_capability_the_maps_can_still_be_written() {
    if !has_root("namespaces") {
        return;
    }
    let topology = Topology::new();
    let (late_vip, answers) = (
        IpAddr::from([198, 51, 100, 11]),
        topology.on_edge(|options| {
            let (mut datapath, _) = load(options);
            datapath.apply(&desired()).expect("applied");
            let workers = Workers::start();
            // Capabilities belong to threads: this one is used up by the test.
            thread::spawn(move || {
                caps::clear(None, caps::CapSet::Effective).expect("dropped");
                caps::clear(None, caps::CapSet::Permitted).expect("dropped");
                datapath.steer_to(&workers.sockets()).expect("steered");
                let source = Source::of(IpAddr::from([192, 0, 2, 7]));
                datapath.mark_verified(source, Duration::from_secs(60)).expect("marked");
                datapath.block(source, Duration::from_secs(60)).expect("blocked");
                assert!(datapath.unblock(source).expect("unblocked"));
                datapath.sweep_blocks().expect("swept");
                datapath.reader().stats().expect("counters");
                let mut more = desired();
                more.services[0].vips.push(IpAddr::from([198, 51, 100, 11]).into());
                let applied = datapath.apply(&more).expect("applied");
                datapath.apply(&desired()).expect("applied");
                (applied, datapath, workers)
            })
            .join()
            .expect("the thread without capabilities")
        }),
    );
    let (applied, _datapath, _workers) = answers;
    assert_eq!(applied.unrouted, [late_vip.into()], "only a route of a new VIP needs a capability");
    assert_eq!(topology.connect(4).values().sum::<u64>(), 8);
}

#[test]
fn unloading_leaves_nothing_and_is_refused_while_an_instance_runs() {
    if !has_root("namespaces") {
        return;
    }
    let topology = Topology::new();
    let report = topology.on_edge(|options| {
        let (mut datapath, _) = load(options);
        datapath.apply(&desired()).expect("applied");
        let error = lb_datapath::unload(&options.pin_root, &options.lock_folder).expect_err("running");
        assert!(error.to_string().contains("running"), "{error}");
        drop(datapath);
        lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloaded")
    });
    assert_eq!((report.links.len(), report.maps.len(), report.routes.len()), (2, 1, 2), "{report:?}");
    assert!(!topology.options.pin_root.exists());
    let links = topology.edge.run(|| output("ip -details link show dev front"));
    assert!(!links.contains("xdp"), "{links}");
    let routes = topology.edge.run(|| output("ip route show table local") + &output("ip -6 route show table local"));
    assert!(!VIPS.iter().any(|vip| routes.contains(vip)), "{routes}");
    let again = topology
        .on_edge(|options| lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("nothing to do"));
    assert_eq!(again, lb_datapath::UnloadReport::default());
}

fn output(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let output = std::process::Command::new(program).args(words).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
