//! The headers that forwarding puts before a packet: an outer IP header (RFC 2003, RFC 2473, RFC 4213), with UDP between
//! for GUE variant 1 (draft-ietf-intarea-gue §4).
//!
//! They are made as the words that are written to the frame, each one store. The program's target is little-endian.

#[cfg(target_endian = "big")]
compile_error!("outer headers are put together for little-endian machines");

use crate::address::Address;
use crate::outer::{TIME_TO_LIVE, outer_ipv4_checksum};

pub const IPV4_BYTES: usize = 20;
pub const IPV6_BYTES: usize = 40;
pub const UDP_BYTES: usize = 8;

/// IP protocol numbers of a packet in a packet.
pub const IPV4_IN_IP: u8 = 4;
pub const IPV6_IN_IP: u8 = 41;
const UDP: u8 = crate::parse::UDP;

const DO_NOT_FRAGMENT: u16 = 0x4000;

/// What is inside, and between outer IP header and it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    pub is_ipv4: bool,
    /// Of the inner packet.
    pub length_bytes: u32,
    /// DSCP and ECN of the inner packet: the outer one is to be treated alike (RFC 2983 §3, RFC 6040 §4.1).
    pub traffic_class: u8,
    /// UDP destination port of GUE; `None` without UDP between.
    pub gue_port: Option<u16>,
    /// Of the connection, so that routers on the way keep its packets on one of several paths.
    pub hash: u64,
}

impl Inside {
    #[inline(always)]
    const fn protocol(&self) -> u8 {
        match (self.gue_port, self.is_ipv4) {
            (Some(_), _) => UDP,
            (None, true) => IPV4_IN_IP,
            (None, false) => IPV6_IN_IP,
        }
    }

    /// Bytes after the outer IP header.
    #[inline(always)]
    const fn payload_bytes(&self) -> u32 {
        self.length_bytes + if self.gue_port.is_some() { UDP_BYTES as u32 } else { 0 }
    }
}

/// Two words of eight bytes, and the last four bytes. `sum` is [`crate::outer::outer_ipv4_sum`] of the same addresses and
/// protocol 0.
///
/// It must not be fragmented, so that it needs no identification (RFC 6864 §4.1).
#[inline(always)]
pub const fn outer_ipv4(source: Address, destination: Address, sum: u32, inside: &Inside) -> ([u64; 2], u32) {
    let length = (IPV4_BYTES as u32 + inside.payload_bytes()) as u16;
    let protocol = inside.protocol();
    let checksum = outer_ipv4_checksum(sum + inside.traffic_class as u32 + protocol as u32, length, 0);
    let first = 0x45
        | (inside.traffic_class as u64) << 8
        | (length.to_be() as u64) << 16
        | (DO_NOT_FRAGMENT.to_be() as u64) << 48;
    let second = TIME_TO_LIVE as u64
        | (protocol as u64) << 8
        | (checksum.to_be() as u64) << 16
        | (source.words_be[3] as u64) << 32;
    ([first, second], destination.words_be[3])
}

/// Five words of eight bytes.
#[inline(always)]
pub const fn outer_ipv6(source: Address, destination: Address, inside: &Inside) -> [u64; 5] {
    let flow_label = inside.hash as u32 & 0x000f_ffff;
    let version_class_label = 6 << 28 | (inside.traffic_class as u32) << 20 | flow_label;
    let length = inside.payload_bytes() as u16;
    let first = version_class_label.to_be() as u64
        | (length.to_be() as u64) << 32
        | (inside.protocol() as u64) << 48
        | (TIME_TO_LIVE as u64) << 56;
    let [source_0, source_1] = in_two(source);
    let [destination_0, destination_1] = in_two(destination);
    [first, source_0, source_1, destination_0, destination_1]
}

#[inline(always)]
const fn in_two(address: Address) -> [u64; 2] {
    let [first, second, third, fourth] = address.words_be;
    [first as u64 | (second as u64) << 32, third as u64 | (fourth as u64) << 32]
}

/// The UDP header of GUE, without a checksum: the inner packet has its own (RFC 6935 §5).
#[inline(always)]
pub const fn outer_udp(gue_port: u16, inside: &Inside) -> u64 {
    /// The first of the dynamic ports (RFC 6335 §6).
    const FIRST_PORT: u16 = 0xc000;
    let source_port = FIRST_PORT | (inside.hash >> 48) as u16;
    let length = inside.payload_bytes() as u16;
    source_port.to_be() as u64 | (gue_port.to_be() as u64) << 16 | (length.to_be() as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outer::outer_ipv4_sum;
    use core::net::{IpAddr, Ipv4Addr};
    use std::vec::Vec;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    fn inside(is_ipv4: bool, gue_port: Option<u16>) -> Inside {
        Inside { is_ipv4, length_bytes: 1000, traffic_class: 0xb9, gue_port, hash: 0xabcd_0000_0012_3456 }
    }

    fn ipv4_bytes(inside: &Inside) -> Vec<u8> {
        let (source, destination) = (address("10.1.2.3"), address("192.0.2.255"));
        let sum = outer_ipv4_sum(Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(192, 0, 2, 255), 0);
        let (words, last) = outer_ipv4(source, destination, sum, inside);
        words.iter().flat_map(|word| word.to_ne_bytes()).chain(last.to_ne_bytes()).collect()
    }

    #[test]
    fn the_outer_ipv4_header_is_byte_for_byte_what_the_standard_says() {
        let rows = [(true, None, 4, 1020_u16), (false, None, 41, 1020), (true, Some(6080), 17, 1028)];
        for (is_ipv4, gue_port, protocol, length) in rows {
            let bytes = ipv4_bytes(&inside(is_ipv4, gue_port));
            let [high, low] = length.to_be_bytes();
            assert_eq!(bytes[..10], [0x45, 0xb9, high, low, 0, 0, 0x40, 0, 64, protocol], "protocol {protocol}");
            assert_eq!(bytes[12..], [10, 1, 2, 3, 192, 0, 2, 255]);
        }
    }

    #[test]
    fn the_checksum_is_right_for_any_length_and_class() {
        for length_bytes in [0, 20, 1480, 9000, 65_515] {
            for traffic_class in [0, 1, 0xff] {
                let bytes = ipv4_bytes(&Inside { length_bytes, traffic_class, ..inside(true, None) });
                let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
                let mut sum: u32 = words.sum();
                while sum >> 16 != 0 {
                    sum = (sum & 0xffff) + (sum >> 16);
                }
                assert_eq!(sum, 0xffff, "{length_bytes} {traffic_class}");
            }
        }
    }

    #[test]
    fn the_outer_ipv6_header_is_byte_for_byte_what_the_standard_says() {
        let words = outer_ipv6(address("2001:db8::1"), address("2001:db8::2"), &inside(false, None));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes[..8], [0x6b, 0x92, 0x34, 0x56, 0x03, 0xe8, 41, 64]);
        assert_eq!(bytes[8..24], address("2001:db8::1").octets());
        assert_eq!(bytes[24..], address("2001:db8::2").octets());
    }

    #[test]
    fn the_udp_header_carries_the_hash_in_its_source_port_and_no_checksum() {
        let bytes = outer_udp(6080, &inside(true, Some(6080))).to_ne_bytes();
        assert_eq!(bytes, [0xeb, 0xcd, 0x17, 0xc0, 0x03, 0xf0, 0, 0]);
    }
}
