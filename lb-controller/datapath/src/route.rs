//! Local routes: what makes the kernel accept packets for a VIP that no interface has.
//!
//! Spoken to the kernel directly (rtnetlink(7)): no `ip` binary is needed, answers are errnos instead of text, and a
//! protocol number of our own marks the routes, so that what to remove is known even after a crash.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use lb_common::vip::VipPrefix;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::AddressFamily;
use zerocopy::{FromBytes, IntoBytes};

use crate::netlink::{
    ACKNOWLEDGE, DELETE_ROUTE, DESTINATION, DUMP, GET_ROUTE, NEW_ROUTE, Netlink, OUTPUT_INTERFACE, RouteHeader,
    address, attribute, attributes,
};

/// Origin of a route; numbers above 4 are the administrator's to give (rtnetlink.h). Shown by `ip route` as `108`.
const OUR_PROTOCOL: u8 = 108;

const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const LOCAL_TABLE: u8 = 255;
const HOST_SCOPE: u8 = 254;
const LOCAL_ROUTE: u8 = 2;

/// The routes of one network namespace, the calling thread's when it was opened.
pub(crate) struct Routes {
    netlink: Netlink,
    loopback: u32,
}

impl Routes {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()?, loopback: if_nametoindex("lo")? })
    }

    /// Succeeds if somebody else has already made the address local.
    pub(crate) fn add(&self, vip: VipPrefix) -> io::Result<()> {
        match self.change(NEW_ROUTE, CREATE | EXCLUSIVE, vip) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            answer => answer,
        }
    }

    /// Succeeds if there is no such route of ours.
    pub(crate) fn remove(&self, vip: VipPrefix) -> io::Result<()> {
        match self.change(DELETE_ROUTE, 0, vip) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
            answer => answer,
        }
    }

    /// The VIPs with a route of ours.
    pub(crate) fn ours(&self) -> io::Result<BTreeSet<VipPrefix>> {
        let mut vips = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            self.netlink.ask(GET_ROUTE, DUMP, route_header(family, 0).as_bytes(), |kind, body| {
                if kind == NEW_ROUTE {
                    vips.extend(our_destination(body));
                }
            })?;
        }
        Ok(vips)
    }

    fn change(&self, kind: u16, flags: u16, vip: VipPrefix) -> io::Result<()> {
        let (family, address) = match vip.network() {
            IpAddr::V4(address) => (AddressFamily::Inet, address.octets().to_vec()),
            IpAddr::V6(address) => (AddressFamily::Inet6, address.octets().to_vec()),
        };
        let mut body = route_header(family, vip.length_bits() as u8).as_bytes().to_vec();
        body.extend(attribute(DESTINATION, &address));
        body.extend(attribute(OUTPUT_INTERFACE, self.loopback.as_bytes()));
        self.netlink.ask(kind, ACKNOWLEDGE | flags, &body, |_, _| {})
    }
}

fn route_header(family: AddressFamily, destination_bits: u8) -> RouteHeader {
    RouteHeader {
        family: family as u8,
        destination_bits,
        source_bits: 0,
        service_type: 0,
        table: LOCAL_TABLE,
        protocol: OUR_PROTOCOL,
        scope: HOST_SCOPE,
        kind: LOCAL_ROUTE,
        flags: 0,
    }
}

fn our_destination(body: &[u8]) -> Option<VipPrefix> {
    let (route, rest) = RouteHeader::read_from_prefix(body).ok()?;
    if route.protocol != OUR_PROTOCOL || route.table != LOCAL_TABLE || route.kind != LOCAL_ROUTE {
        return None;
    }
    let network = attributes(rest).find(|(kind, _)| *kind == DESTINATION).and_then(|(_, value)| address(value));
    VipPrefix::new(network?, route.destination_bits.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(protocol: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let route = RouteHeader { protocol, ..route_header(AddressFamily::Inet, 32) };
        [vec![route.as_bytes().to_vec()], attributes.to_vec()].concat().concat()
    }

    #[test]
    fn only_routes_that_bear_our_mark_are_ours() {
        let destination = attribute(DESTINATION, &[198, 51, 100, 10]);
        let table = attribute(15, &[255, 0, 0, 0]);
        let vip = Some(VipPrefix::from(IpAddr::from([198, 51, 100, 10])));
        assert_eq!(our_destination(&dumped(OUR_PROTOCOL, &[table.clone(), destination.clone()])), vip);
        assert_eq!(our_destination(&dumped(2, &[table.clone(), destination])), None);
        assert_eq!(our_destination(&dumped(OUR_PROTOCOL, &[table])), None);
    }
}
