//! A data plane that forwards: an edge between a client's side and a link with backends on it.

use lb_datapath::{BackendState, Desired, DesiredBackend, DesiredService, Forward, Ports, Protocols};

use crate::netns::Namespace;
use crate::program::{Bench, Judged, stay_on_this_cpu, with_bench_in};

pub const VIP_4: &str = "198.51.100.10";
pub const VIP_6: &str = "2001:db8:100::10";

/// On the link `back`, whose MTU is 1500.
pub const EDGE_4: &str = "10.9.0.1";
pub const EDGE_6: &str = "2001:db8:9::1";

/// The Ethernet addresses on the link.
pub const EDGE_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];

/// Of the backend with this number.
pub const fn backend_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0x19, number]
}

/// How many neighbours are known on the link, from number 2 on.
const NEIGHBOURS: u8 = 4;

/// An edge whose link `back` has neighbours that nobody has to ask for. Nothing answers there.
pub fn edge() -> (Namespace, Namespace) {
    let (edge, peer) = (Namespace::new(), Namespace::new());
    edge.connect("back", &peer, "uplink");
    edge.ip("link set back address 02:00:00:00:09:01");
    edge.ip(&format!("address add {EDGE_4}/24 dev back"));
    edge.ip(&format!("address add {EDGE_6}/64 dev back nodad"));
    for number in 2..2 + NEIGHBOURS {
        let mac = backend_mac(number).map(|byte| format!("{byte:02x}")).join(":");
        edge.ip(&format!("neighbour add 10.9.0.{number} dev back lladdr {mac} nud permanent"));
        edge.ip(&format!("neighbour add 2001:db8:9::{number} dev back lladdr {mac} nud permanent"));
    }
    (edge, peer)
}

/// TCP 443 and UDP 443 of both VIPs, forwarded to `backends` of pool `app`.
pub fn desired(forward: Forward, backends: &[&str]) -> Desired {
    let service = DesiredService {
        name: String::from("web"),
        vips: [VIP_4, VIP_6].map(|vip| vip.parse().expect("a VIP")).to_vec(),
        ports: Ports::One(443),
        protocols: Protocols::BOTH,
        forward,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    let backend = |address: &&str| DesiredBackend {
        pool: String::from("app"),
        address: address.parse().expect("an address"),
        weight: 1,
        state: BackendState::Healthy,
    };
    Desired { services: vec![service], backends: backends.iter().map(backend).collect(), ..Desired::default() }
}

/// Runs `test` on the loaded programs behind [`edge`].
pub fn with_forwarding(desired: Desired, test: impl FnOnce(&mut Bench) + Send + 'static) {
    let (edge, _peer) = edge();
    edge.run(stay_on_this_cpu);
    with_bench_in(&edge, &[], desired, test);
}

impl Judged {
    /// `verdict` and the counters that moved, by their names.
    pub fn moving(verdict: lb_datapath::Verdict, moved: &[(&str, u64)]) -> Self {
        Self { verdict, moved: moved.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect() }
    }
}
