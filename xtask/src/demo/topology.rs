//! The network of the scene: namespaces, veth links, addresses and routes.
//!
//! ```text
//! lb-demo-client ── 10.77.1.0/24 ──┐                ┌── 10.77.11.0/24 ── lb-demo-backend-1
//!                                  ├─ lb-demo-edge ─┤
//! this machine   ── 10.77.2.0/24 ──┘                └── 10.77.12.0/24 ── lb-demo-backend-2
//! ```
//! IPv6 likewise under fd77:1::/64 and so on. The VIPs are on no interface; clients have routes to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::place::{Host, Place};
use crate::run;

/// The interface that joins this machine to the scene.
const MACHINE_INTERFACE: &str = "lb-demo";
/// The edge's interfaces that face clients: XDP is attached to these.
pub(crate) const FRONT_INTERFACES: [&str; 2] = ["client", "host"];
/// Forged sources of the flood live here; the edge routes answers to them back to the client, who drops them.
pub(crate) const FLOOD_NETWORK: &str = "10.77.128.0/17";
/// A second address of the client, which gets itself blocked while the first stays in good standing.
pub(crate) const HOSTILE_ADDRESS: &str = "10.77.1.66";
pub(crate) const CLIENT_ADDRESS: &str = "10.77.1.2";
pub(crate) const MACHINE_ADDRESS: &str = "10.77.2.2";

const VIPS: [&str; 2] = ["198.51.100.10/32", "2001:db8:100::10/128"];

/// One veth link between the edge and a neighbour; subnets are 10.77.N.0/24 and fd77:N::/64, the edge being .1.
struct Link {
    neighbour: Host,
    neighbour_interface: &'static str,
    edge_interface: &'static str,
    subnet: u8,
}

const LINKS: [Link; 4] = [
    Link { neighbour: Host::Client, neighbour_interface: "edge", edge_interface: "client", subnet: 1 },
    Link { neighbour: Host::Machine, neighbour_interface: MACHINE_INTERFACE, edge_interface: "host", subnet: 2 },
    Link { neighbour: Host::Backend(0), neighbour_interface: "edge", edge_interface: "backend-1", subnet: 11 },
    Link { neighbour: Host::Backend(1), neighbour_interface: "edge", edge_interface: "backend-2", subnet: 12 },
];

/// Builds the network. What a failed attempt leaves behind is the business of [`down`].
pub(crate) fn up() -> Result<()> {
    refuse_collisions()?;
    for host in Host::with_namespace() {
        let namespace = host.namespace().unwrap_or_default();
        run::output(Command::new("ip").args(["netns", "add", &namespace]))
            .context("network namespaces are needed; in a container, run it with --privileged")?;
        ip(host, "link set lo up")?;
        settle_kernel_defaults(host)?;
    }
    for link in &LINKS {
        link.up()?;
    }
    ip(Host::Client, &format!("addr add {HOSTILE_ADDRESS}/24 dev edge"))?;
    ip(Host::Edge, &format!("route add {FLOOD_NETWORK} via {CLIENT_ADDRESS} dev client"))
}

/// Removes the network and every process in it, whatever state it is in. Succeeds when nothing is there.
pub(crate) fn down() -> Result<()> {
    // First the link, which takes its peer along: the kernel tears a deleted namespace down in its own time, and a new
    // scene would find the old interface.
    if Path::new("/sys/class/net").join(MACHINE_INTERFACE).exists() {
        run::output(Command::new("ip").args(["link", "delete", MACHINE_INTERFACE]))?;
    }
    for host in Host::with_namespace() {
        let namespace = host.namespace().unwrap_or_default();
        if !Path::new("/run/netns").join(&namespace).exists() {
            continue;
        }
        kill_everyone_in(&namespace)?;
        run::output(Command::new("ip").args(["netns", "delete", &namespace]))?;
    }
    Ok(())
}

/// What of the scene can be found on this machine.
pub(crate) fn remains() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for host in Host::with_namespace() {
        let file = Path::new("/run/netns").join(host.namespace().unwrap_or_default());
        if file.exists() {
            found.push(format!("namespace {}", file.display()));
        }
    }
    for path in [Path::new("/sys/class/net").join(MACHINE_INTERFACE), pins()] {
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    for vip in VIPS {
        let family = if vip.contains(':') { "-6" } else { "-4" };
        let routes = run::output(Command::new("ip").args([family, "route", "show", "root", vip]))?;
        found.extend(routes.lines().map(|route| format!("route {}", route.trim())));
    }
    Ok(found)
}

/// Interfaces that face the edge, with whose they are: what XDP sends back arrives there.
pub(crate) const CLIENT_INTERFACES: [(Host, &str); 2] = [(Host::Client, "edge"), (Host::Machine, MACHINE_INTERFACE)];

impl Link {
    fn up(&self) -> Result<()> {
        let Link { neighbour, neighbour_interface, edge_interface, subnet } = self;
        let edge = Host::Edge.namespace().unwrap_or_default();
        ip(*neighbour, &format!("link add {neighbour_interface} type veth peer name {edge_interface} netns {edge}"))?;
        for (host, interface, last) in [(*neighbour, neighbour_interface, 2), (Host::Edge, edge_interface, 1)] {
            ip(host, &format!("addr add 10.77.{subnet}.{last}/24 dev {interface}"))?;
            // Without duplicate detection, which would keep the address unusable for two seconds.
            ip(host, &format!("addr add fd77:{subnet}::{last}/64 dev {interface} nodad"))?;
            ip(host, &format!("link set {interface} up"))?;
        }
        if matches!(neighbour, Host::Client | Host::Machine) {
            for (vip, gateway) in VIPS.iter().zip([format!("10.77.{subnet}.1"), format!("fd77:{subnet}::1")]) {
                ip(*neighbour, &format!("route add {vip} via {gateway} dev {neighbour_interface}"))?;
            }
        }
        Ok(())
    }
}

/// A machine whose own networks overlap would lose its way to them.
fn refuse_collisions() -> Result<()> {
    for taken in ["10.77.0.0/16", "198.51.100.10/32"] {
        let routes = run::output(Command::new("ip").args(["-4", "route", "show", "root", taken]))?;
        if let Some(route) = routes.lines().next() {
            bail!("the demo's network {taken} is in use here (`{}`); remove that route and try again", route.trim());
        }
    }
    Ok(())
}

/// New namespaces inherit some settings of the machine; the scene must not depend on them.
fn settle_kernel_defaults(host: Host) -> Result<()> {
    const SETTINGS: &str = "for scope in all default; do
        echo 0 > /proc/sys/net/ipv4/conf/$scope/rp_filter
        echo 0 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6
    done";
    let mut shell = Place::Namespaces.command(host, "sh");
    run::output(shell.args(["-e", "-c", SETTINGS])).context("the demo needs IPv4 and IPv6")?;
    Ok(())
}

fn kill_everyone_in(namespace: &str) -> Result<()> {
    let processes = run::output(Command::new("ip").args(["netns", "pids", namespace]))?;
    for process in processes.split_whitespace() {
        let id = process.parse().with_context(|| format!("`ip netns pids` printed {process:?}"))?;
        // It may be gone by now, which is what is wanted.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
    }
    Ok(())
}

/// `ip`, its arguments separated by spaces, in the namespace of `host`.
fn ip(host: Host, arguments: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(namespace) = host.namespace() {
        ip.args(["-n", &namespace]);
    }
    run::output(ip.args(arguments.split(' ')))?;
    Ok(())
}

fn pins() -> PathBuf {
    Path::new("/sys/fs/bpf").join(Place::Namespaces.instance())
}

/// Removes the pins of an instance whose controller cannot do it any more. Removing a pinned link detaches its program.
pub(crate) fn remove_pins() -> Result<()> {
    let pins = pins();
    match fs::remove_dir_all(&pins) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", pins.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::demo::claim::Claim;

    #[test]
    fn the_network_joins_clients_edge_and_backends_and_goes_without_trace() {
        if !run::is_root() {
            return skip("level namespaces: needs root");
        }
        // A demo that runs on this machine must not lose its network to a test.
        let Ok(claim) = Claim::take(Path::new("/run/lb-demo")) else {
            return skip("the demo's network: a demo is running");
        };
        down().unwrap();
        up().unwrap();
        let route = |host: Host, to: &str| {
            let mut ip = Place::Namespaces.command(host, "ip");
            run::output(ip.args(["route", "get", to])).unwrap()
        };
        assert!(route(Host::Machine, "198.51.100.10").contains("dev lb-demo src 10.77.2.2"));
        assert!(route(Host::Client, "2001:db8:100::10").contains("via fd77:1::1"));
        assert!(route(Host::Edge, "10.77.200.1").contains("via 10.77.1.2"));
        assert!(route(Host::Edge, "10.77.12.2").contains("dev backend-2"));
        assert!(!remains().unwrap().is_empty());
        down().unwrap();
        assert_eq!(remains().unwrap(), Vec::<String>::new());
        down().unwrap();
        claim.give_up().unwrap();
    }

    fn skip(lacking: &str) {
        assert!(std::env::var_os("CI").is_none(), "{lacking}");
        // Not `println!`, which the test runner keeps to itself when a test passes.
        writeln!(std::io::stderr(), "SKIPPED: {lacking}").unwrap();
    }
}
