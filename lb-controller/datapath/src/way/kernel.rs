//! What the kernel knows of routes, links and neighbours, asked over netlink. Its answers are read with bounds, though
//! they come from one's own kernel.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::AddressFamily;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::netlink::{
    ACKNOWLEDGE, DESTINATION, GET_LINK, GET_ROUTE, LinkHeader, NEW_LINK, NEW_ROUTE, Netlink, OUTPUT_INTERFACE,
    RouteHeader, address, attribute, attributes,
};

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NeighbourHeader {
    family: u8,
    unused: [u8; 3],
    interface: u32,
    state: u16,
    flags: u8,
    kind: u8,
}

const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;

const CREATE: u16 = 0x400;
/// Groups of news: links, neighbours, routes of both families.
const GROUPS: u32 = 0x1 | 0x4 | 0x40 | 0x400;

const UNICAST_ROUTE: u8 = 1;
const GATEWAY: u16 = 5;
const PREFERRED_SOURCE: u16 = 7;
const METRICS: u16 = 8;
/// The gateway where its family is not the destination's: a family number, then the address.
const VIA: u16 = 18;
const METRIC_MTU: u16 = 2;

const ETHERNET: u16 = 1;
const UP: u32 = 0x1;
const LINK_ADDRESS: u16 = 1;
const LINK_MTU: u16 = 4;

const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_ADDRESS: u16 = 2;
const NEIGHBOUR_USE: u8 = 1;
/// States in which the Ethernet address is one to send to: reachable, stale, delay, probe, no ARP, permanent.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// Those in which it need not be asked for: reachable, being asked, no ARP, permanent.
const CONTENT: u16 = 0x01 | 0x02 | 0x08 | 0x10 | 0x40 | 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: u32,
    /// `None`: the destination is on the link itself.
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) mtu_bytes: Option<u32>,
}

/// An Ethernet link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) mac: [u8; 6],
    pub(super) mtu_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    mac: [u8; 6],
    state: u16,
}

impl Neighbour {
    pub(super) const ABSENT: Self = Self { mac: [0; 6], state: 0 };

    #[cfg(test)]
    pub(super) fn known(mac: [u8; 6]) -> Self {
        Self { mac, state: USABLE }
    }

    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        (self.state & USABLE != 0).then_some(self.mac)
    }

    pub(super) fn wants_asking(&self) -> bool {
        self.state & CONTENT == 0
    }
}

pub(super) struct Kernel {
    questions: Netlink,
    news: Netlink,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { questions: Netlink::open()?, news: Netlink::listen(GROUPS)? })
    }

    /// Has anything changed since the last time?
    pub(super) fn has_news(&self) -> io::Result<bool> {
        self.news.has_heard()
    }

    /// Where packets to `destination` leave the host; `None` if they do not.
    pub(super) fn route(&self, destination: IpAddr) -> io::Result<Option<Route>> {
        let octets = octets(destination);
        let header = RouteHeader {
            family: family(destination),
            destination_bits: octets.len() as u8 * 8,
            source_bits: 0,
            service_type: 0,
            table: 0,
            protocol: 0,
            scope: 0,
            kind: 0,
            flags: 0,
        };
        let body = [header.as_bytes(), &attribute(DESTINATION, &octets)].concat();
        let mut route = None;
        let answer = self.questions.ask(GET_ROUTE, 0, &body, |kind, body| {
            if kind == NEW_ROUTE {
                route = read_route(body);
            }
        });
        absent_or(answer, &[nix::libc::ENETUNREACH, nix::libc::EHOSTUNREACH, nix::libc::EINVAL, nix::libc::EACCES])?;
        Ok(route)
    }

    /// `None` if it is gone, down, or no Ethernet.
    pub(super) fn link(&self, interface: u32) -> io::Result<Option<Link>> {
        let header = LinkHeader { family: 0, unused: 0, kind: 0, interface, flags: 0, change: 0 };
        let mut link = None;
        let answer = self.questions.ask(GET_LINK, 0, header.as_bytes(), |kind, body| {
            if kind == NEW_LINK {
                link = read_link(body);
            }
        });
        absent_or(answer, &[nix::libc::ENODEV])?;
        Ok(link)
    }

    pub(super) fn neighbour(&self, interface: u32, address: IpAddr) -> io::Result<Neighbour> {
        let mut neighbour = None;
        let answer = self.questions.ask(GET_NEIGHBOUR, 0, &neighbour_body(interface, address, 0), |kind, body| {
            if kind == NEW_NEIGHBOUR {
                neighbour = read_neighbour(body);
            }
        });
        absent_or(answer, &[nix::libc::ENOENT, nix::libc::ENODEV, nix::libc::ENXIO])?;
        Ok(neighbour.unwrap_or(Neighbour::ABSENT))
    }

    /// Makes the kernel ask the link for the neighbour, as a packet to it would. Without the privilege nothing happens:
    /// health checks make it ask too.
    pub(super) fn ask_neighbour(&self, interface: u32, address: IpAddr) {
        let body = neighbour_body(interface, address, NEIGHBOUR_USE);
        if let Err(error) = self.questions.ask(NEW_NEIGHBOUR, ACKNOWLEDGE | CREATE, &body, |_, _| {}) {
            tracing::debug!(%address, %error, "a neighbour could not be asked for");
        }
    }
}

fn absent_or(answer: io::Result<()>, absent: &[i32]) -> io::Result<()> {
    match answer {
        Err(error) if error.raw_os_error().is_some_and(|code| absent.contains(&code)) => Ok(()),
        answer => answer,
    }
}

fn neighbour_body(interface: u32, address: IpAddr, flags: u8) -> Vec<u8> {
    let header = NeighbourHeader { family: family(address), unused: [0; 3], interface, state: 0, flags, kind: 0 };
    [header.as_bytes(), &attribute(NEIGHBOUR_DESTINATION, &octets(address))].concat()
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet as u8,
        IpAddr::V6(_) => AddressFamily::Inet6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn read_route(body: &[u8]) -> Option<Route> {
    let (header, rest) = RouteHeader::read_from_prefix(body).ok()?;
    let mut route = Route { interface: 0, gateway: None, source: None, mtu_bytes: None };
    for (kind, value) in attributes(rest) {
        match kind {
            OUTPUT_INTERFACE => route.interface = number(value)?,
            GATEWAY => route.gateway = address(value),
            VIA => route.gateway = address(value.get(size_of::<u16>()..)?),
            PREFERRED_SOURCE => route.source = address(value),
            METRICS => {
                let mtu = attributes(value).find(|(kind, _)| *kind == METRIC_MTU);
                route.mtu_bytes = mtu.and_then(|(_, value)| number(value)).filter(|mtu_bytes| *mtu_bytes > 0);
            }
            _ => {}
        }
    }
    // A route to this host itself, or to nowhere, is no way for a packet.
    (header.kind == UNICAST_ROUTE && route.interface != 0).then_some(route)
}

fn read_link(body: &[u8]) -> Option<Link> {
    let (header, rest) = LinkHeader::read_from_prefix(body).ok()?;
    let (mut mac, mut mtu_bytes) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            LINK_ADDRESS => mac = value.try_into().ok(),
            LINK_MTU => mtu_bytes = number(value),
            _ => {}
        }
    }
    let is_usable = header.kind == ETHERNET && header.flags & UP != 0;
    is_usable.then_some(Link { mac: mac?, mtu_bytes: mtu_bytes? })
}

fn read_neighbour(body: &[u8]) -> Option<Neighbour> {
    let (header, rest) = NeighbourHeader::read_from_prefix(body).ok()?;
    let mac =
        attributes(rest).find(|(kind, _)| *kind == NEIGHBOUR_ADDRESS).and_then(|(_, value)| value.try_into().ok());
    // While the address is not known there is none in the message.
    Some(mac.map_or(Neighbour { state: header.state & !USABLE, ..Neighbour::ABSENT }, |mac| Neighbour {
        mac,
        state: header.state,
    }))
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route_message(kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = RouteHeader {
            family: 2,
            destination_bits: 32,
            source_bits: 0,
            service_type: 0,
            table: 254,
            protocol: 0,
            scope: 0,
            kind,
            flags: 0,
        };
        [vec![header.as_bytes().to_vec()], attributes.to_vec()].concat().concat()
    }

    #[test]
    fn a_route_tells_interface_gateway_source_and_mtu() {
        let mtu = attribute(METRIC_MTU, &1400_u32.to_ne_bytes());
        let message = route_message(
            UNICAST_ROUTE,
            &[
                attribute(OUTPUT_INTERFACE, &7_u32.to_ne_bytes()),
                attribute(GATEWAY, &[10, 0, 0, 254]),
                attribute(PREFERRED_SOURCE, &[10, 0, 0, 1]),
                attribute(METRICS, &mtu),
            ],
        );
        let expected = Route {
            interface: 7,
            gateway: Some([10, 0, 0, 254].into()),
            source: Some([10, 0, 0, 1].into()),
            mtu_bytes: Some(1400),
        };
        assert_eq!(read_route(&message), Some(expected));
    }

    #[test]
    fn an_ipv4_route_may_have_an_ipv6_gateway() {
        let gateway: IpAddr = "fe80::1".parse().expect("an address");
        let via = [10_u16.to_ne_bytes().to_vec(), octets(gateway), vec![0; 2]].concat();
        let mut via = attribute(VIA, &via[..18]);
        via.extend([0; 2]);
        let message = route_message(UNICAST_ROUTE, &[attribute(OUTPUT_INTERFACE, &7_u32.to_ne_bytes()), via]);
        assert_eq!(read_route(&message).and_then(|route| route.gateway), Some(gateway));
    }

    #[test]
    fn a_route_to_this_host_or_to_nowhere_is_no_way() {
        for kind in [2, 6, 7] {
            let message = route_message(kind, &[attribute(OUTPUT_INTERFACE, &1_u32.to_ne_bytes())]);
            assert_eq!(read_route(&message), None);
        }
        assert_eq!(read_route(&route_message(UNICAST_ROUTE, &[])), None);
    }

    #[test]
    fn a_neighbour_is_known_while_its_state_says_so() {
        for (state, is_known, wants_asking) in
            [(0x01, false, false), (0x02, true, false), (0x04, true, true), (0x20, false, true), (0x80, true, false)]
        {
            let header = NeighbourHeader { family: 2, unused: [0; 3], interface: 1, state, flags: 0, kind: 0 };
            let mut address = attribute(NEIGHBOUR_ADDRESS, &[2, 0, 0, 0, 0, 9]);
            address.extend([0; 2]);
            let neighbour = read_neighbour(&[header.as_bytes(), &address].concat()).expect("read");
            assert_eq!((neighbour.mac().is_some(), neighbour.wants_asking()), (is_known, wants_asking), "{state:#x}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read_route(&bytes), read_link(&bytes), read_neighbour(&bytes));
        }
    }
}
