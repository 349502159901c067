//! The outer IPv4 header of a packet that is sent on to a backend.

use core::net::Ipv4Addr;

/// Of the outer header.
pub const TIME_TO_LIVE: u8 = 64;

/// Version 4, five words of header, no type of service.
const FIRST_WORD: u16 = 0x4500;
/// "Don't fragment": a backend is not made to put pieces together.
const FLAGS_WORD: u16 = 0x4000;

/// The sum, not folded, of those 16-bit words of the outer header (RFC 791 §3.1) that are the same in each packet: all
/// except the total length, the identification and the checksum. Each word is the number that its two bytes spell in
/// network order. [`outer_ipv4_checksum`] completes it.
pub const fn outer_ipv4_sum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> u32 {
    FIRST_WORD as u32
        + FLAGS_WORD as u32
        + (((TIME_TO_LIVE as u32) << 8) | protocol as u32)
        + sum_of(source.to_bits())
        + sum_of(destination.to_bits())
}

/// The number whose bytes in network order are the checksum (RFC 1071), from [`outer_ipv4_sum`] and the rest.
#[inline(always)]
pub const fn outer_ipv4_checksum(sum: u32, total_length: u16, identification: u16) -> u16 {
    let sum = sum + total_length as u32 + identification as u32;
    // At most ten words were added: what the first fold carries over fits after the second.
    let once = (sum >> 16) + (sum & 0xffff);
    let twice = (once >> 16) + (once & 0xffff);
    !(twice as u16)
}

const fn sum_of(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §1 as it is written there.
    fn checksum(header: &[u8]) -> u16 {
        let mut sum: u64 = header.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn it_is_the_checksum_of_the_header_that_is_written(
            source: u32, destination: u32, protocol: u8, total_length: u16, identification: u16
        ) {
            let [source, destination] = [source, destination].map(Ipv4Addr::from_bits);
            let mut header = std::vec![0x45, 0];
            header.extend(total_length.to_be_bytes());
            header.extend(identification.to_be_bytes());
            header.extend([0x40, 0, 64, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = outer_ipv4_sum(source, destination, protocol);
            prop_assert_eq!(outer_ipv4_checksum(sum, total_length, identification), checksum(&header));
        }
    }
}
