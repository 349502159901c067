//! What the kernel tells of an interface beside its name: its kind, what it takes, and the XDP program on it.

use std::io;

use zerocopy::{FromBytes, IntoBytes};

use crate::netlink::{GET_LINK, LinkHeader, NEW_LINK, Netlink, attributes};

const MTU: u16 = 4;
const MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const KIND: u16 = 1;
const TX_QUEUES: u16 = 31;
const RX_QUEUES: u16 = 32;
const XDP: u16 = 43;
const XDP_PROGRAM_ID: u16 = 4;
const XDP_DRIVER_PROGRAM_ID: u16 = 5;
const XDP_GENERIC_PROGRAM_ID: u16 = 6;
const LARGEST_MTU: u16 = 51;

/// One interface, as rtnetlink(7) describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkFacts {
    /// `veth`, `bond`, `vlan` and so on; `None` of hardware.
    pub(crate) kind: Option<String>,
    pub(crate) mtu_bytes: u32,
    /// `None` if there is no limit.
    pub(crate) largest_mtu_bytes: Option<u32>,
    pub(crate) rx_queues: u32,
    pub(crate) tx_queues: u32,
    /// Index of the bond or bridge that it belongs to.
    pub(crate) master: Option<u32>,
    pub(crate) xdp_program: Option<u32>,
}

/// `None` if the thread's namespace has no interface of this index.
pub(crate) fn facts(interface: u32) -> io::Result<Option<LinkFacts>> {
    let header = LinkHeader { family: 0, unused: 0, kind: 0, interface, flags: 0, change: 0 };
    let mut facts = None;
    let answer = Netlink::open()?.ask(GET_LINK, 0, header.as_bytes(), |kind, body| {
        if kind == NEW_LINK {
            facts = read(body);
        }
    });
    match answer {
        Err(error) if error.raw_os_error() != Some(nix::libc::ENODEV) => Err(error),
        _ => Ok(facts),
    }
}

fn read(body: &[u8]) -> Option<LinkFacts> {
    let (_, rest) = LinkHeader::read_from_prefix(body).ok()?;
    let mut facts = LinkFacts::default();
    for (kind, value) in attributes(rest) {
        match kind {
            MTU => facts.mtu_bytes = number(value).unwrap_or(0),
            MASTER => facts.master = number(value),
            TX_QUEUES => facts.tx_queues = number(value).unwrap_or(0),
            RX_QUEUES => facts.rx_queues = number(value).unwrap_or(0),
            LARGEST_MTU => facts.largest_mtu_bytes = number(value).filter(|bytes| *bytes > 0),
            LINK_INFO => facts.kind = attributes(value).find(|(kind, _)| *kind == KIND).map(|(_, name)| text(name)),
            XDP => facts.xdp_program = xdp_program(value),
            _ => {}
        }
    }
    Some(facts)
}

/// With two programs, in the driver and after it, the kernel names each and neither for both.
fn xdp_program(value: &[u8]) -> Option<u32> {
    let ids = [XDP_PROGRAM_ID, XDP_DRIVER_PROGRAM_ID, XDP_GENERIC_PROGRAM_ID];
    let id = |wanted: u16| attributes(value).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| number(value));
    ids.into_iter().find_map(id).filter(|id| *id != 0)
}

fn number(value: &[u8]) -> Option<u32> {
    u32::read_from_bytes(value).ok()
}

/// Ends with a zero.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = LinkHeader { family: 0, unused: 0, kind: 1, interface: 7, flags: 1, change: 0 };
        [vec![header.as_bytes().to_vec()], attributes.to_vec()].concat().concat()
    }

    #[test]
    fn kind_sizes_queues_and_the_program_are_read() {
        let number = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
        let body = message(&[
            number(MTU, 1500),
            number(LARGEST_MTU, 9000),
            number(TX_QUEUES, 4),
            number(RX_QUEUES, 2),
            number(MASTER, 9),
            attribute(LINK_INFO, &attribute(KIND, b"veth\0\0\0\0")),
            attribute(XDP, &[attribute(2, &[1, 0, 0, 0]), number(XDP_PROGRAM_ID, 77)].concat()),
        ]);
        let expected = LinkFacts {
            kind: Some(String::from("veth")),
            mtu_bytes: 1500,
            largest_mtu_bytes: Some(9000),
            rx_queues: 2,
            tx_queues: 4,
            master: Some(9),
            xdp_program: Some(77),
        };
        assert_eq!(read(&body), Some(expected));
    }

    #[test]
    fn what_is_cut_short_is_absent_and_what_is_no_link_is_none() {
        assert_eq!(read(&message(&[attribute(MTU, &[1, 2])])), Some(LinkFacts::default()));
        assert_eq!(read(&[0; 8]), None);
        assert_eq!(read(&message(&[attribute(XDP, &attribute(XDP_PROGRAM_ID, &[0; 4]))])), Some(LinkFacts::default()));
    }

    #[test]
    fn the_loopback_is_described_and_an_index_without_interface_is_none() {
        let facts = facts(1).expect("answered").expect("the loopback");
        assert!(facts.mtu_bytes > 0 && facts.xdp_program.is_none(), "{facts:?}");
        assert_eq!(super::facts(u32::MAX >> 1).expect("answered"), None);
    }
}
