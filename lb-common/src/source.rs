//! Who a packet comes from, as far as limits, blocks and verification go.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use crate::address::Address;
use crate::hash::limiter_hash;
use crate::maps::VERIFIED_HINT_WORDS;

/// One IPv4 address, or the /64 of an IPv6 address: the smallest network a subscriber is given, who could otherwise
/// step from address to address inside it without end.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct Source {
    network: Address,
}

impl Source {
    /// `::ffff:a.b.c.d` is the IPv4 source `a.b.c.d`.
    pub fn of(address: IpAddr) -> Self {
        Self::of_address(address.into())
    }

    #[inline(always)]
    pub const fn of_address(address: Address) -> Self {
        if address.is_v4() {
            return Self { network: address };
        }
        let [first, second, _, _] = address.words_be;
        Self { network: Address { words_be: [first, second, 0, 0] } }
    }

    /// The form in which `VERIFIED` and `BLOCKS` are keyed.
    #[inline(always)]
    pub const fn key(&self) -> [u32; 4] {
        self.network.words_be
    }

    /// The source as two words, and back.
    #[inline(always)]
    pub const fn halves(&self) -> [u64; 2] {
        self.network.halves()
    }

    #[inline(always)]
    pub const fn from_halves([high, low]: [u64; 2]) -> Self {
        Self { network: Address { words_be: [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32] } }
    }

    pub const fn from_key(key: [u32; 4]) -> Self {
        Self { network: Address { words_be: key } }
    }

    /// The word of [`crate::types::Control::block_hints`] and the bit in it that are set while this source is blocked, and
    /// perhaps for others.
    #[inline(always)]
    pub const fn block_hint(&self) -> (u32, u64) {
        self.network.hint()
    }

    /// As [`Self::block_hint`], in `VERIFIED_HINTS` and while the source is verified.
    #[inline(always)]
    pub const fn verified_hint(&self) -> (u32, u64) {
        self.network.hint_among(VERIFIED_HINT_WORDS)
    }

    /// Places the source in the limiter of sources. The service is part of it: its limits give the entry's time a meaning
    /// of its own.
    #[inline(always)]
    pub const fn limiter_hash(&self, key: [u64; 2], service: u16) -> u64 {
        self.masked_hash(key, service, u32::MAX, u32::MAX)
    }

    /// Places the source's network, IPv4 /24 or IPv6 /48, in the limiter of networks.
    #[inline(always)]
    pub const fn network_hash(&self, key: [u64; 2], service: u16) -> u64 {
        self.masked_hash(key, service, 0xffff_ff00_u32.to_be(), 0xffff_0000_u32.to_be())
    }

    /// The masks are for the whole IPv4 address and for the second word of an IPv6 one.
    #[inline(always)]
    const fn masked_hash(&self, key: [u64; 2], service: u16, v4_mask_be: u32, v6_mask_be: u32) -> u64 {
        /// As an IPv6 prefix it would be 0:ffff::/32, which is reserved (RFC 4291 §2.4).
        const V4: u64 = 0xffff << 48;
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let [first, second, _, _] = self.network.words_be;
        let word = match self.network.v4_word() {
            Some(word) => V4 | (word & v4_mask_be) as u64,
            None => (second & v6_mask_be) as u64 | (first as u64) << 32,
        };
        limiter_hash(key, word ^ (service as u64).wrapping_mul(ODD))
    }

    /// The address itself for IPv4, the network's first address for IPv6.
    pub fn network(&self) -> IpAddr {
        self.network.into()
    }
}

/// In the order of the addresses, IPv4 before IPv6.
impl Ord for Source {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.network().cmp(&other.network())
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network() {
            IpAddr::V4(address) => write!(formatter, "{address}/32"),
            IpAddr::V6(network) => write!(formatter, "{network}/{}", Ipv6Addr::BITS / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::HINT_WORDS;
    use std::string::ToString;

    #[test]
    fn a_source_reads_as_the_network_it_stands_for() {
        let rows = [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ];
        for (address, expected) in rows {
            assert_eq!(Source::of(address.parse().expect("an address")).to_string(), expected, "{address}");
        }
    }

    #[test]
    fn neighbours_share_a_source_only_inside_an_ipv6_64() {
        let source = |text: &str| Source::of(text.parse().expect("an address"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        for one in [source("192.0.2.1"), source("2001:db8:1:2::")] {
            assert_eq!((Source::from_key(one.key()), Source::from_halves(one.halves())), (one, one));
        }
    }

    #[test]
    fn sources_spread_over_the_hints_and_each_keeps_its_own() {
        const SOURCES: u32 = 4096;
        let v4 = |number: u32| Source::of(IpAddr::V4((0x0a00_0000 + number).into()));
        let v6 = |number: u32| Source::of(IpAddr::V6(((0x2001_0db8_u128 << 32 | u128::from(number)) << 64).into()));
        for source_of in [v4, v6] {
            let hints: std::collections::HashSet<_> =
                (0..SOURCES).map(|number| source_of(number).block_hint()).collect();
            // Random placement of 4,096 in 65,536 leaves some 3,970 bits.
            assert!(hints.len() > 3800, "{}", hints.len());
            assert!(hints.iter().all(|(word, bit)| (*word as usize) < HINT_WORDS && bit.count_ones() == 1));
            assert_eq!(source_of(7).block_hint(), source_of(7).block_hint());
        }
    }
}
