//! A load balancer beside its backends on one link, as small sites have it: clients' packets come by way of it, answers
//! go straight back.
//!
//! ```text
//! client ─┐        ┌─ backend 0
//!         ├ switch ┼─ backend 1 …
//!  edge ──┘        └─
//! ```
//!
//! The backends own the VIPs; the client alone has a route to them, by way of the edge.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use lb_datapath::{Datapath, Desired, LoadOptions};
use nix::libc::{IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_RAW};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;
use crate::program::{chain, stay_on_this_cpu, unique_options};

/// Of both families; the backends take all of them for their own.
pub const VIPS: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/64"];

pub struct Lan {
    pub client: Namespace,
    pub edge: Namespace,
    pub backends: Vec<Namespace>,
    _switch: Namespace,
    options: LoadOptions,
}

/// Of the backend with this number, where the edge finds it.
pub fn backend_address(number: u8) -> SocketAddr {
    ([10, 50, 0, 11 + number], 443).into()
}

impl Lan {
    /// All of it on one CPU, with the threads that the caller starts later: a network card gives all packets of a flow to
    /// one CPU, where it is remembered, and a veth gives each to the CPU that its sender happens to be on.
    pub fn new(backends: u8) -> Self {
        stay_on_this_cpu();
        let switch = Namespace::new();
        switch.ip("link add lan type bridge mcast_snooping 0");
        switch.ip("link set lan up");
        let client = host(&switch, "client", 1);
        let edge = host(&switch, "edge", 2);
        switch.take_from_xdp("edge");
        client.ip(&format!("route add {} via 10.50.0.2", VIPS[0]));
        client.ip(&format!("-6 route add {} via fd50::2", VIPS[1]));
        // XDP sends frames on as they come, and with their checksums yet to be computed they would be wrong.
        run(&client, "ethtool", "-K uplink tx off");
        let backends = (0..backends).map(|number| backend(&switch, &edge, number)).collect();
        let options = LoadOptions { interfaces: vec![String::from("uplink")], ..unique_options() };
        Self { client, edge, backends, _switch: switch, options }
    }

    /// Loads the programs on the edge.
    pub fn load(&self, desired: Desired) -> Datapath {
        let options = self.options.clone();
        let load = move || Datapath::load(&options).unwrap_or_else(|error| panic!("{}", chain(&error))).0;
        self.apply(self.edge.run(load), desired)
    }

    /// Applied in the edge's namespace, whose routes and neighbours the ways to backends follow.
    pub fn apply(&self, mut datapath: Datapath, desired: Desired) -> Datapath {
        self.edge.run(move || {
            let applied = datapath.apply(&desired).unwrap_or_else(|error| panic!("{}", chain(&error)));
            assert!(applied.unrouted.is_empty(), "{applied:?}");
            datapath
        })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Pins would outlive the namespaces. A test that failed with the data plane still loaded has its own message.
        let (root, locks) = (self.options.pin_root.clone(), self.options.lock_folder.clone());
        let unloaded = self.edge.run(move || lb_datapath::unload(&root, &locks));
        assert!(unloaded.is_ok() || std::thread::panicking(), "{unloaded:?}");
    }
}

/// A namespace with a link to the switch.
fn host(switch: &Namespace, name: &str, number: u8) -> Namespace {
    let host = Namespace::new();
    switch.connect(name, &host, "uplink");
    switch.ip(&format!("link set {name} master lan"));
    host.ip(&format!("link set uplink address 02:00:00:00:50:{number:02x}"));
    host.ip(&format!("address add 10.50.0.{number}/24 dev uplink"));
    host.ip(&format!("address add fd50::{number}/64 dev uplink nodad"));
    host
}

fn backend(switch: &Namespace, edge: &Namespace, number: u8) -> Namespace {
    let host_number = 11 + number;
    let backend = host(switch, &format!("backend{number}"), host_number);
    // Known from the start: the first packet of a test is not to be the one that asks.
    edge.ip(&format!(
        "neighbour add 10.50.0.{host_number} dev uplink lladdr 02:00:00:00:50:{host_number:02x} nud permanent"
    ));
    for vips in VIPS {
        backend.ip(&format!("route add local {vips} dev lo"));
    }
    // What a tunnel hands in comes by `lo`, from an address that is found elsewhere.
    for interface in ["all", "uplink", "lo"] {
        set(&backend, &format!("ipv4/conf/{interface}/rp_filter"), "0");
    }
    // Packets to a local prefix are taken, but its addresses may not be listened on.
    set(&backend, "ipv6/ip_nonlocal_bind", "1");
    backend.run(|| decapsulate().expect("raw sockets"));
    backend
}

fn set(namespace: &Namespace, name: &str, value: &'static str) {
    let path = format!("/proc/sys/net/{name}");
    namespace.run(move || std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
}

fn run(namespace: &Namespace, program: &'static str, arguments: &str) {
    let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    namespace.run(move || {
        let output = std::process::Command::new(program).args(&arguments).output().expect("it runs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    });
}

const BUFFER_BYTES: usize = 8 << 20;

/// Takes packets out of their outer IPv4 headers, as the kernel's own tunnel would, until the namespace is gone.
pub(crate) fn decapsulate() -> io::Result<()> {
    for (protocol, domain) in [(IPPROTO_IPIP, Domain::IPV4), (IPPROTO_IPV6, Domain::IPV6)] {
        let tunnel = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))?;
        // What a stalled thread leaves waiting is not lost on the way.
        setsockopt(&tunnel, RcvBufForce, &BUFFER_BYTES)?;
        let inside = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok(bytes) = io::Read::read(&mut &tunnel, &mut packet) {
                let header_bytes = usize::from(packet[0] & 0x0f) * 4;
                if let Some(destination) = packet.get(header_bytes..bytes).and_then(destination) {
                    // What the kernel refuses is lost, as on any link.
                    let _ = inside.send_to(&packet[header_bytes..bytes], &SocketAddr::new(destination, 0).into());
                }
            }
        });
    }
    Ok(())
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into()),
        6 => Some(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into()),
        _ => None,
    }
}
