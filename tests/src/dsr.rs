//! Real hosts around a load balancer whose backends answer clients themselves.
//!
//! ```text
//! client — router — edge — backends
//!             └──────────────┘ answers
//! ```
//!
//! All links have an MTU of 1500. The backends own the VIPs; only the router knows that they are reached by way of the edge.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;

use lb_datapath::{Datapath, Desired, LoadOptions};
use socket2::{Domain, Protocol, Socket, Type};

use crate::forwarding_link::{VIP_4, VIP_6};
use crate::netns::Namespace;
use crate::program::{chain, unique_options};

pub const CLIENT_4: &str = "10.1.0.1";
pub const CLIENT_6: &str = "fd01::1";

pub struct Dsr {
    pub client: Namespace,
    pub router: Namespace,
    pub edge: Namespace,
    pub backends: Vec<Namespace>,
    options: LoadOptions,
}

/// Of the backend with this number, where the edge finds it.
pub fn backend_address(number: usize, port: u16) -> String {
    format!("10.3.{number}.2:{port}")
}

impl Dsr {
    pub fn new(backends: usize) -> Self {
        let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
        let (client, router, edge) = (Namespace::new(), Namespace::new(), Namespace::new());
        connect(&client, "uplink", &router, "client", 1);
        connect(&router, "edge", &edge, "front", 2);
        client.ip("route add default via 10.1.0.2");
        client.ip("-6 route add default via fd01::2");
        router.ip(&format!("route add {VIP_4}/32 via 10.2.0.2"));
        router.ip(&format!("-6 route add {VIP_6}/128 via fd02::2"));
        set(&router, "net/ipv4/ip_forward", "1");
        set(&router, "net/ipv6/conf/all/forwarding", "1");
        without_offload(&client, "uplink");
        router.take_from_xdp("edge");
        let backends = (0..backends).map(|number| backend(&router, &edge, number)).collect();
        Self { client, router, edge, backends, options }
    }

    /// Loads the programs on the edge.
    pub fn forward(&self, desired: Desired) -> Datapath {
        let options = self.options.clone();
        self.edge.run(move || {
            let (mut datapath, _) = Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
            datapath.apply(&desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
            datapath
        })
    }
}

impl Drop for Dsr {
    fn drop(&mut self) {
        // Pins would outlive the namespaces. A test that failed with the data plane still loaded has its own message.
        let (root, locks) = (self.options.pin_root.clone(), self.options.lock_folder.clone());
        let unloaded = self.edge.run(move || lb_datapath::unload(&root, &locks));
        assert!(unloaded.is_ok() || std::thread::panicking(), "{unloaded:?}");
    }
}

fn backend(router: &Namespace, edge: &Namespace, number: usize) -> Namespace {
    let backend = Namespace::new();
    let (back, answers) = (format!("back{number}"), format!("answers{number}"));
    edge.connect(&back, &backend, "uplink");
    backend.ip(&format!("link set uplink address 02:00:00:00:03:{number:02x}"));
    edge.ip(&format!("address add 10.3.{number}.1/24 dev {back}"));
    backend.ip(&format!("address add 10.3.{number}.2/24 dev uplink"));
    edge.ip(&format!("neighbour add 10.3.{number}.2 dev {back} lladdr 02:00:00:00:03:{number:02x} nud permanent"));
    backend.take_from_xdp("uplink");
    router.connect(&answers, &backend, "answers");
    for (namespace, device, host) in [(router, answers.as_str(), 1), (&backend, "answers", 2)] {
        namespace.ip(&format!("address add 10.4.{number}.{host}/24 dev {device}"));
        namespace.ip(&format!("address add fd04:{number}::{host}/64 dev {device} nodad"));
    }
    backend.ip(&format!("route add default via 10.4.{number}.1"));
    backend.ip(&format!("-6 route add default via fd04:{number}::1"));
    backend.ip(&format!("address add {VIP_4}/32 dev lo"));
    backend.ip(&format!("address add {VIP_6}/128 dev lo nodad"));
    // Requests come by another interface than answers leave by.
    for interface in ["all", "uplink", "lo"] {
        set(&backend, &format!("net/ipv4/conf/{interface}/rp_filter"), "0");
    }
    backend
}

fn connect(left: &Namespace, left_name: &str, right: &Namespace, right_name: &str, subnet: u8) {
    left.connect(left_name, right, right_name);
    for (namespace, device, host) in [(left, left_name, 1), (right, right_name, 2)] {
        namespace.ip(&format!("address add 10.{subnet}.0.{host}/24 dev {device}"));
        namespace.ip(&format!("address add fd0{subnet}::{host}/64 dev {device} nodad"));
    }
}

fn set(namespace: &Namespace, name: &str, value: &str) {
    let (path, value) = (format!("/proc/sys/{name}"), value.to_owned());
    namespace.run(move || std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
}

/// Frames that XDP sends on need their checksums.
fn without_offload(namespace: &Namespace, interface: &str) {
    let interface = interface.to_owned();
    namespace.run(move || {
        let arguments = ["-K", &interface, "tx", "off"];
        let output = std::process::Command::new("ethtool").args(arguments).output().expect("ethtool runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

/// Takes GUE packets (variant 1) out of their outer headers, as a tunnel of the kernel would, until the test ends. To be
/// called in the backend's namespace.
pub fn decapsulate_gue(port: u16) -> io::Result<()> {
    let tunnel = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW)));
    let (raw_4, raw_6) = (raw(Domain::IPV4)?, raw(Domain::IPV6)?);
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok(bytes) = tunnel.recv(&mut packet) {
            let packet = &packet[..bytes];
            // What the kernel refuses is lost, as on any link.
            let _ = match packet[0] >> 4 {
                4 => raw_4.send_to(packet, &SocketAddr::new(destination(&packet[16..20]), 0).into()),
                _ => raw_6.send_to(packet, &SocketAddr::new(destination(&packet[24..40]), 0).into()),
            };
        }
    });
    Ok(())
}

fn destination(octets: &[u8]) -> IpAddr {
    match octets.try_into() {
        Ok(octets) => Ipv4Addr::from_octets(octets).into(),
        Err(_) => Ipv6Addr::from_octets(octets.try_into().expect("16 bytes")).into(),
    }
}
