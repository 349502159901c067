//! The way to a backend: which interface, which next hop, and what fits. Found out from the kernel's routes, links and
//! neighbours, because the kernel routes by them too, and followed as they change.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_common::Address;
use lb_common::outer::outer_ipv4_sum;
use lb_common::types::{BackendEntry, BackendState, Forward};

use crate::desired::Desired;
use kernel::{Kernel, Link, Neighbour, Route};

/// Even without news all ways are looked at again: a neighbour that is used by XDP alone grows stale in the kernel's
/// eyes, and asking keeps it alive.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// News may come in storms; ways are not looked at more often than this.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// Knows the ways of one network namespace.
pub(crate) struct Ways {
    kernel: Kernel,
    looked: Option<Instant>,
    has_news: bool,
}

impl Ways {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { kernel: Kernel::open()?, looked: None, has_news: false })
    }

    /// Is it time to look at the ways again?
    pub(crate) fn is_due(&mut self) -> io::Result<bool> {
        self.has_news |= self.kernel.has_news()?;
        let since = self.looked.map_or(LOOK_EVERY, |looked| looked.elapsed());
        Ok(since >= LOOK_EVERY || self.has_news && since >= LOOK_AT_MOST_EVERY)
    }

    /// Looks up the ways to all `entries`, each with its number; those that differ from what is known come back.
    pub(crate) fn look(
        &mut self,
        entries: impl Iterator<Item = (u32, BackendEntry)>,
    ) -> io::Result<Vec<(u32, BackendEntry)>> {
        (self.looked, self.has_news) = (Some(Instant::now()), false);
        let mut known = Known::default();
        let mut changed = Vec::new();
        for (number, entry) in entries {
            let found = self.with_way(&entry, &mut known)?;
            if found != entry {
                changed.push((number, found));
            }
        }
        Ok(changed)
    }

    /// The address of ours that the route to `destination` prefers.
    pub(crate) fn source(&self, destination: IpAddr) -> io::Result<Option<IpAddr>> {
        Ok(self.kernel.route(destination)?.and_then(|route| route.source))
    }

    /// `entry` with the way to its address, or with none if there is none.
    fn with_way(&self, entry: &BackendEntry, known: &mut Known) -> io::Result<BackendEntry> {
        let nowhere = BackendEntry {
            address: entry.address,
            port: entry.port,
            pool: entry.pool,
            state: entry.state,
            weight: entry.weight,
            freed_order: entry.freed_order,
            ..BackendEntry::FREE
        };
        let destination = IpAddr::from(entry.address);
        let Some(route) = self.kernel.route(destination)? else { return Ok(nowhere) };
        let Some(link) = known.link(&self.kernel, route.interface)? else { return Ok(nowhere) };
        let next_hop = route.gateway.unwrap_or(destination);
        let neighbour = known.neighbour(&self.kernel, route.interface, next_hop)?;
        Ok(with(nowhere, &route, &link, neighbour))
    }
}

/// What was asked during one look, so that backends behind one gateway cost its questions once.
#[derive(Default)]
struct Known {
    links: BTreeMap<u32, Option<Link>>,
    neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
}

impl Known {
    fn link(&mut self, kernel: &Kernel, interface: u32) -> io::Result<Option<Link>> {
        if let Some(link) = self.links.get(&interface) {
            return Ok(*link);
        }
        let link = kernel.link(interface)?;
        self.links.insert(interface, link);
        Ok(link)
    }

    fn neighbour(&mut self, kernel: &Kernel, interface: u32, address: IpAddr) -> io::Result<Neighbour> {
        if let Some(neighbour) = self.neighbours.get(&(interface, address)) {
            return Ok(*neighbour);
        }
        let neighbour = kernel.neighbour(interface, address)?;
        if neighbour.wants_asking() {
            kernel.ask_neighbour(interface, address);
        }
        self.neighbours.insert((interface, address), neighbour);
        Ok(neighbour)
    }
}

fn with(entry: BackendEntry, route: &Route, link: &Link, neighbour: Neighbour) -> BackendEntry {
    let mtu_bytes = route.mtu_bytes.map_or(link.mtu_bytes, |mtu_bytes| mtu_bytes.min(link.mtu_bytes));
    let tunnel_source = route.source.map_or(BackendEntry::FREE.tunnel_source, Address::from);
    let outer_sum = match (route.source, IpAddr::from(entry.address)) {
        (Some(IpAddr::V4(source)), IpAddr::V4(destination)) => outer_ipv4_sum(source, destination, 0),
        _ => 0,
    };
    let entry = BackendEntry {
        mtu_bytes: mtu_bytes.min(u16::MAX.into()) as u16,
        tunnel_source,
        outer_sum,
        own_mac: link.mac,
        ..entry
    };
    match neighbour.mac() {
        Some(next_hop_mac) => BackendEntry { next_hop_mac, interface: route.interface, ..entry },
        // Without an interface the kernel is asked by the packet.
        None => entry,
    }
}

/// Which of the backends anything is forwarded to.
pub(crate) fn forwarded<'a>(
    desired: &Desired,
    pool_names: &[Option<String>],
    entries: impl Iterator<Item = (u32, &'a BackendEntry)>,
) -> Vec<(u32, BackendEntry)> {
    let forwarding = desired.services.iter().filter(|service| service.forward != Forward::Local);
    let pools: BTreeSet<&str> = forwarding.filter_map(|service| service.pool.as_deref()).collect();
    let is_forwarded = |entry: &BackendEntry| {
        let pool = pool_names.get(entry.pool as usize).and_then(|name| name.as_deref());
        BackendState::from_number(entry.state).is_some() && pool.is_some_and(|pool| pools.contains(pool))
    };
    entries.filter(|(_, entry)| is_forwarded(entry)).map(|(number, entry)| (number, *entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: BackendEntry = BackendEntry { port: 80, pool: 1, state: 1, weight: 3, ..BackendEntry::FREE };
    const LINK: Link = Link { mac: [2, 0, 0, 0, 0, 1], mtu_bytes: 1500 };

    fn route(source: &str) -> Route {
        let source = Some(source.parse().expect("an address"));
        Route { interface: 7, gateway: None, source, mtu_bytes: None }
    }

    fn to(address: &str) -> BackendEntry {
        BackendEntry { address: address.parse::<IpAddr>().expect("an address").into(), ..ENTRY }
    }

    #[test]
    fn a_known_neighbour_makes_the_way_whole() {
        let entry = with(to("10.0.0.2"), &route("10.0.0.1"), &LINK, Neighbour::known([2, 0, 0, 0, 0, 2]));
        assert_eq!((entry.interface, entry.next_hop_mac[5], entry.own_mac[5], entry.mtu_bytes), (7, 2, 1, 1500));
        assert_eq!(IpAddr::from(entry.tunnel_source).to_string(), "10.0.0.1");
        assert_eq!(entry.outer_sum, outer_ipv4_sum([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 0));
        assert_eq!((entry.port, entry.pool, entry.state, entry.weight), (80, 1, 1, 3));
    }

    #[test]
    fn an_unknown_neighbour_leaves_the_interface_to_the_kernel_and_the_rest_known() {
        let entry = with(to("2001:db8::2"), &route("2001:db8::1"), &LINK, Neighbour::ABSENT);
        assert_eq!((entry.interface, entry.next_hop_mac), (0, [0; 6]));
        assert_eq!((entry.mtu_bytes, entry.outer_sum), (1500, 0));
        assert_eq!(IpAddr::from(entry.tunnel_source).to_string(), "2001:db8::1");
    }

    #[test]
    fn the_smaller_of_the_routes_and_the_links_mtu_holds() {
        for (of_route, of_link, expected) in [(None, 9000, 9000), (Some(1400), 1500, 1400), (None, 1 << 16, 65_535)] {
            let route = Route { mtu_bytes: of_route, ..route("10.0.0.1") };
            let entry = with(to("10.0.0.2"), &route, &Link { mtu_bytes: of_link, ..LINK }, Neighbour::ABSENT);
            assert_eq!(entry.mtu_bytes, expected);
        }
    }
}
