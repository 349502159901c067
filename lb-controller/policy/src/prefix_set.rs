//! Named sets of networks, of any size: `client.address in sets.office`.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use crate::network::Network;

/// Networks as ranges of addresses, in order and apart from one another: a look-up is a binary search.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl PrefixSet {
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<Network> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> PrefixSet {
        let mut set = PrefixSet::default();
        for network in networks {
            match network.range() {
                (IpAddr::V4(first), IpAddr::V4(last)) => set.v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => set.v6.push((first.to_bits(), last.to_bits())),
                _ => {}
            }
        }
        join(&mut set.v4);
        join(&mut set.v6);
        set
    }
}

fn holds<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

/// Puts ranges in order and joins those that overlap.
fn join<A: Ord + Copy>(ranges: &mut Vec<(A, A)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

/// Sizes alone: a set may hold a million networks.
impl fmt::Debug for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrefixSet({} IPv4 ranges, {} IPv6 ranges)", self.v4.len(), self.v6.len())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_holds_what_one_of_its_networks_holds() {
        let set: PrefixSet = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "0.0.0.0/32"]
            .iter()
            .map(|text| Network::parse(text).unwrap())
            .collect();
        let rows = [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("0.0.0.0", true),
            ("255.255.255.255", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ];
        for (address, expected) in rows {
            assert_eq!(set.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!PrefixSet::default().contains("10.0.0.1".parse().unwrap()));
        let everything: PrefixSet = vec![Network::parse("0.0.0.0/0").unwrap()].into_iter().collect();
        assert!(everything.contains("255.255.255.255".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn the_search_finds_what_trying_every_network_finds(
            networks in proptest::collection::vec((0_u32..64, 26_u8..=32), 0..12),
            address in 0_u32..64,
        ) {
            let networks: Vec<Network> = networks
                .into_iter()
                .map(|(bits, length)| {
                    let masked = bits & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                    Network::parse(&std::format!("{}/{length}", core::net::Ipv4Addr::from(masked))).unwrap()
                })
                .collect();
            let address = IpAddr::V4(address.into());
            let set: PrefixSet = networks.iter().copied().collect();
            prop_assert_eq!(set.contains(address), networks.iter().any(|network| network.contains(address)));
        }
    }
}
