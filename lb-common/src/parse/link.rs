//! Ethernet and VLAN tags.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Packet;

/// EtherTypes.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag, the outer one of two.
pub(super) const VLAN_SERVICE: u16 = 0x88a8;

/// Customer tag inside a service tag; more has no standard meaning.
const MAX_TAGS: usize = 2;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ethernet {
    _destination: [u8; 6],
    _source: [u8; 6],
    ether_type: U16,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Tag {
    _priority_and_id: U16,
    ether_type: U16,
}

pub(super) const ETHERNET_BYTES: usize = size_of::<Ethernet>();

/// The EtherType right behind the addresses, which may be a tag's.
#[inline(always)]
pub(super) fn ether_type(packet: &impl Packet) -> Option<u16> {
    packet.load::<Ethernet>(0).map(|header| header.ether_type.get())
}

/// The EtherType behind the tags, and where its header starts.
#[inline(always)]
pub(super) fn network_layer(packet: &impl Packet) -> Option<(u16, usize)> {
    let mut ether_type = ether_type(packet)?;
    let mut offset = ETHERNET_BYTES;
    for _ in 0..MAX_TAGS {
        if ether_type != VLAN && ether_type != VLAN_SERVICE {
            break;
        }
        ether_type = packet.load::<Tag>(offset)?.ether_type.get();
        offset += size_of::<Tag>();
    }
    Some((ether_type, offset))
}
