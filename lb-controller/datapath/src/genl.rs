//! Generic netlink: what drivers tell of an interface through the families `ethtool` and `netdev`.

use std::collections::BTreeSet;
use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::netlink::{Netlink, attribute, attributes};

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct GenericHeader {
    command: u8,
    version: u8,
    reserved: u16,
}

const CONTROL_FAMILY: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Of an attribute's kind: it holds attributes.
const NESTED: u16 = 0x8000;

const ETHTOOL: &[u8] = b"ethtool\0";
const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;
const HEADER: u16 = 1;
const HEADER_INTERFACE: u16 = 1;

const NETDEV: &[u8] = b"netdev\0";
const DEVICE_GET: u8 = 1;
const DEVICE_INTERFACE: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;

/// How many receive queues there are and could be; 0 where the driver does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) used: u32,
    pub(crate) most: u32,
    /// Queues both receive and send.
    pub(crate) are_combined: bool,
}

pub(crate) struct Generic {
    netlink: Netlink,
}

impl Generic {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open_generic()? })
    }

    /// What XDP the driver has, a bit each (`NETDEV_XDP_ACT_*`); since kernel 6.3.
    pub(crate) fn xdp_features(&self, interface: u32) -> io::Result<u64> {
        let request = attribute(DEVICE_INTERFACE, interface.as_bytes());
        let mut features = None;
        self.ask(NETDEV, DEVICE_GET, &request, |attributes| features = read_xdp_features(attributes))?;
        features.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Names of the offloads that are on, as `ethtool -k` does not shorten them.
    pub(crate) fn features(&self, interface: u32) -> io::Result<BTreeSet<String>> {
        let mut features = BTreeSet::new();
        self.ask(ETHTOOL, FEATURES_GET, &of_interface(interface), |attributes| features = read_features(attributes))?;
        Ok(features)
    }

    pub(crate) fn channels(&self, interface: u32) -> io::Result<Channels> {
        let mut channels = Channels::default();
        self.ask(ETHTOOL, CHANNELS_GET, &of_interface(interface), |attributes| channels = read_channels(attributes))?;
        Ok(channels)
    }

    fn ask(&self, family: &[u8], command: u8, request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut id = None;
        let name = attribute(FAMILY_NAME, family);
        self.ask_family(CONTROL_FAMILY, GET_FAMILY, &name, |attributes| id = read_family(attributes))?;
        let id = id.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        self.ask_family(id, command, request, &mut take)
    }

    fn ask_family(&self, id: u16, command: u8, request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let header = GenericHeader { command, version: 1, reserved: 0 };
        self.netlink.ask(id, 0, &[header.as_bytes(), request].concat(), |_, body| {
            if let Some(attributes) = body.get(size_of::<GenericHeader>()..) {
                take(attributes);
            }
        })
    }
}

fn of_interface(interface: u32) -> Vec<u8> {
    attribute(HEADER | NESTED, &attribute(HEADER_INTERFACE, interface.as_bytes()))
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn read_family(bytes: &[u8]) -> Option<u16> {
    u16::read_from_bytes(find(bytes, FAMILY_ID)?).ok()
}

fn read_xdp_features(bytes: &[u8]) -> Option<u64> {
    u64::read_from_bytes(find(bytes, DEVICE_XDP_FEATURES)?).ok()
}

fn read_features(bytes: &[u8]) -> BTreeSet<String> {
    const ACTIVE: u16 = 4;
    const BITS: u16 = 3;
    const NAME: u16 = 2;
    let bits = find(bytes, ACTIVE).and_then(|set| find(set, BITS)).unwrap_or_default();
    let names = attributes(bits).filter_map(|(_, bit)| find(bit, NAME));
    names.map(|name| String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned()).collect()
}

fn read_channels(bytes: &[u8]) -> Channels {
    const RX_MOST: u16 = 2;
    const COMBINED_MOST: u16 = 5;
    const RX_USED: u16 = 6;
    const COMBINED_USED: u16 = 9;
    let number = |kind| find(bytes, kind).and_then(|value| u32::read_from_bytes(value).ok()).unwrap_or(0);
    Channels {
        used: number(RX_USED).saturating_add(number(COMBINED_USED)),
        most: number(RX_MOST).saturating_add(number(COMBINED_MOST)),
        are_combined: number(COMBINED_MOST) > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn features_that_are_on_are_read_by_name() {
        let bit = |name: &[u8]| attribute(1 | NESTED, &attribute(2, name));
        let bits = [bit(b"rx-lro\0"), bit(b"rx-hashing\0")].concat();
        let active = attribute(4 | NESTED, &attribute(3 | NESTED, &bits));
        let wanted = attribute(3 | NESTED, &attribute(3 | NESTED, &bit(b"rx-gro-hw\0")));
        assert_eq!(read_features(&[wanted, active].concat()).into_iter().collect::<Vec<_>>(), ["rx-hashing", "rx-lro"]);
    }

    #[test]
    fn receive_queues_are_those_of_their_own_and_the_combined_ones() {
        let number = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
        let bytes = [number(2, 1), number(5, 8), number(6, 1), number(7, 3), number(9, 4)].concat();
        assert_eq!(read_channels(&bytes), Channels { used: 5, most: 9, are_combined: true });
        assert_eq!(read_channels(&[]), Channels::default());
    }

    #[test]
    fn the_kernel_tells_the_features_of_the_loopback() {
        let features = Generic::open().and_then(|generic| generic.features(1)).expect("answered");
        assert!(features.contains("tx-lockless") || features.contains("loopback"), "{features:?}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_reading_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read_family(&bytes), read_xdp_features(&bytes), read_features(&bytes), read_channels(&bytes));
        }
    }
}
