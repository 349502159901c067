//! The way to a backend, as the kernel's routes and neighbours have it and as they change.

use std::time::{Duration, Instant};

use lb_datapath::{
    BackendState, BackendStatus, Datapath, Desired, DesiredBackend, DesiredService, Forward, Ports, Protocols, Way,
};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::{chain, unique_options};

const BACKEND: &str = "10.9.0.2:80";
const BACKEND_6: &str = "[2001:db8:9::2]:80";
const FAR: &str = "10.8.0.1:80";

/// An edge between two networks of one neighbour each, both on links of their own.
struct Network {
    edge: Namespace,
    left: Namespace,
    right: Namespace,
}

impl Network {
    fn new() -> Self {
        let network = Self { edge: Namespace::new(), left: Namespace::new(), right: Namespace::new() };
        for (peer, name, subnet) in [(&network.left, "left", 9), (&network.right, "right", 7)] {
            network.edge.connect(name, peer, "uplink");
            for (host, namespace, device) in [(1, &network.edge, name), (2, peer, "uplink")] {
                namespace.ip(&format!("address add 10.{subnet}.0.{host}/24 dev {device}"));
                namespace.ip(&format!("address add 2001:db8:{subnet}::{host}/64 dev {device} nodad"));
            }
        }
        network.left.ip("link set uplink address 02:00:00:00:09:02");
        network.right.ip("link set uplink address 02:00:00:00:07:02");
        network.edge.ip("link set right mtu 1400");
        network
    }
}

fn desired() -> Desired {
    let service = DesiredService {
        name: String::from("web"),
        vips: vec!["198.51.100.10".parse().expect("a VIP")],
        ports: Ports::One(80),
        forward: Forward::Ipip,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    let backend = |pool: &str, address: &str| DesiredBackend {
        pool: pool.to_owned(),
        address: address.parse().expect("an address"),
        weight: 1,
        state: BackendState::Healthy,
    };
    let backends =
        vec![backend("app", BACKEND), backend("app", BACKEND_6), backend("app", FAR), backend("l7", BACKEND)];
    Desired { services: vec![service], backends, ..Desired::default() }
}

fn way(interface: &str, last_bytes: [u8; 2], mtu_bytes: u16) -> Option<Way> {
    let [high, low] = last_bytes;
    Some(Way { interface: interface.to_owned(), next_hop_mac: [2, 0, 0, 0, high, low], mtu_bytes })
}

/// Tends until the way to the backend of pool `app` is `expected`.
fn await_way(datapath: &mut Datapath, address: &str, expected: &Option<Way>) {
    let found = |datapath: &Datapath| -> Option<Way> {
        let backends = datapath.reader().backends().expect("listed");
        let is_meant = |backend: &BackendStatus| backend.pool == "app" && backend.address.to_string() == address;
        backends.into_iter().find(is_meant).expect("the backend").way
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        datapath.tend().expect("tended");
        let way = found(datapath);
        if way == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "the way to {address} is {way:?} instead of {expected:?}");
        // Not a guess at how long the kernel takes: how often it is looked at.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_way_to_a_backend_follows_addresses_routes_and_links() {
    if !has_root("namespaces") {
        return;
    }
    let Network { edge, left, right } = Network::new();
    edge.run(move || {
        let options = unique_options();
        let (mut datapath, _) = Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let followed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| follow(&mut datapath, &left)));
        drop(datapath);
        lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloaded");
        drop(right);
        if let Err(panic) = followed {
            std::panic::resume_unwind(panic);
        }
    });
}

/// On the edge; `left` is the neighbour there.
fn follow(datapath: &mut Datapath, left: &Namespace) {
    datapath.apply(&desired()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    await_way(datapath, BACKEND, &way("left", [9, 2], 1500));
    await_way(datapath, BACKEND_6, &way("left", [9, 2], 1500));
    await_way(datapath, FAR, &None);
    let of_l7 = datapath.reader().backends().expect("listed").into_iter().find(|backend| backend.pool == "l7");
    assert_eq!(of_l7.expect("listed").way, None, "nothing is forwarded to it");

    ip("route add 10.8.0.0/16 via 10.7.0.2");
    await_way(datapath, FAR, &way("right", [7, 2], 1400));

    left.ip("link set uplink address 02:00:00:00:09:33");
    ip("neighbour replace 10.9.0.2 dev left lladdr 02:00:00:00:09:33 nud reachable");
    await_way(datapath, BACKEND, &way("left", [9, 0x33], 1500));

    ip("route replace 10.8.0.0/16 via 10.9.0.2 mtu 1300");
    await_way(datapath, FAR, &way("left", [9, 0x33], 1300));

    ip("link set left down");
    await_way(datapath, BACKEND, &None);
    await_way(datapath, FAR, &None);
}

fn ip(arguments: &str) {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Prefixes of both families, ranges, both protocols, and a change that is still remembered.
fn rich(states: [BackendState; 2]) -> Desired {
    let mut desired = desired();
    desired.backends.truncate(2);
    for (backend, state) in desired.backends.iter_mut().zip(states) {
        backend.state = state;
    }
    let vip = |text: &str| text.parse().expect("a VIP");
    let [around, range] = [("around", Ports::Any), ("range", Ports::Range(5000, 5999))].map(|(name, ports)| {
        let vips = vec![vip("198.51.100.0/24"), vip("2001:db8:100::/48")];
        let protocols = if name == "range" { Protocols::UDP } else { Protocols::TCP };
        DesiredService { name: name.to_owned(), vips, ports, protocols, ..desired.services[0].clone() }
    });
    let local = DesiredService {
        vips: vec![vip("203.0.113.0/28")],
        name: "l7".into(),
        forward: Forward::Local,
        pool: None,
        ..around.clone()
    };
    desired.services.extend([around, range, local]);
    desired
}

#[test]
fn a_restart_finds_prefixes_ranges_tables_and_routes_as_they_were() {
    if !has_root("namespaces") {
        return;
    }
    use BackendState::{Down, Healthy};
    let edge = Network::new().edge;
    edge.run(|| {
        let options = unique_options();
        let load = || Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error))).0;
        let mut first = load();
        for states in [[Healthy, Healthy], [Healthy, Down]] {
            let applied = first.apply(&rich(states)).unwrap_or_else(|error| panic!("{}", chain(&error)));
            assert!(!applied.changes.is_empty() && applied.unrouted.is_empty(), "{applied:?}");
        }
        drop(first);
        let mut second = load();
        let applied = second.apply(&rich([Healthy, Down])).expect("applied");
        assert_eq!(applied.changes, [], "nothing was forgotten");
        let services = second.reader().services().expect("listed");
        let listed: Vec<String> = services
            .iter()
            .map(|service| {
                let endpoints: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
                format!(
                    "{} {} {} {}",
                    service.name,
                    service.forward.name(),
                    service.pool.as_deref().unwrap_or("-"),
                    endpoints.join(" ")
                )
            })
            .collect();
        let expected = [
            "around ipip app 198.51.100.0/24:any [2001:db8:100::/48]:any",
            "l7 l7 - 203.0.113.0/28:any",
            "range ipip app 198.51.100.0/24:5000-5999/udp [2001:db8:100::/48]:5000-5999/udp",
            "web ipip app 198.51.100.10:80",
        ];
        assert_eq!(listed, expected);
        drop(second);
        let unloaded = lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloaded");
        assert_eq!(unloaded.routes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.0/28"]);
    });
}
