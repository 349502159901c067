use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::lists::Listed;

use super::*;

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a length");
    Prefix::new(address.parse().expect("an address"), length.parse().expect("a number")).expect("a prefix")
}

fn compiled(deny: &[&str], allow: &[&str]) -> CompiledLists {
    let rows = deny.iter().map(|text| (text, Listed::Denied)).chain(allow.iter().map(|text| (text, Listed::Allowed)));
    compile(rows.map(|(text, listed)| ListedPrefix { prefix: prefix(text), listed }).collect()).expect("compiles")
}

fn find(lists: &CompiledLists, address: &str) -> Listed {
    lists.find(address.parse().expect("an address"))
}

#[test]
fn the_longest_prefix_decides_and_of_two_equal_ones_the_one_that_allows() {
    use Listed::{Allowed, Denied, Unlisted};
    let lists = compiled(
        &[
            "10.0.0.0/8",
            "10.1.1.0/25",
            "10.1.1.9/32",
            "192.0.2.0/24",
            "2001:db8::/29",
            "2001:db8:1::/48",
            "2001:db8:3::1/128",
        ],
        &["10.1.0.0/16", "10.1.1.0/29", "192.0.2.0/24", "2001:db8::/32", "2001:db8:1:2::/64", "2001:db8:1:2::8/125"],
    );
    for (address, expected) in [
        ("10.0.0.1", Denied),
        ("10.1.0.1", Allowed),
        ("10.1.1.127", Denied),
        ("10.1.1.128", Allowed),
        ("10.1.1.7", Allowed),
        ("10.1.1.8", Denied),
        ("10.1.1.9", Denied),
        ("10.2.0.0", Denied),
        ("11.0.0.0", Unlisted),
        ("9.255.255.255", Unlisted),
        ("192.0.2.1", Allowed),
        ("::ffff:10.0.0.1", Denied),
        ("2001:db9::1", Denied),
        ("2001:db8::1", Allowed),
        ("2001:db8:1::1", Denied),
        ("2001:db8:1:2::1", Allowed),
        ("2001:db8:1:3::1", Denied),
        ("2001:db8:3::1", Denied),
        ("2001:db8:3::2", Allowed),
        ("2001:dc0::1", Unlisted),
        ("::a00:1", Unlisted),
    ] {
        assert_eq!(find(&lists, address), expected, "{address}");
    }
}

#[test]
fn one_prefix_of_every_length_covers_its_block_and_not_its_neighbours() {
    for length in 1..=32_u8 {
        let network = 0b1011_0110_1011_0110_1011_0110_1011_0110_u32 >> (32 - length) << (32 - length);
        let last = network | u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let lists = compiled(&[&format!("{}/{length}", Ipv4Addr::from(network))], &[]);
        for (address, expected) in [(network, true), (last, true), (network - 1, false), (last.wrapping_add(1), false)]
        {
            let denied = lists.find(Ipv4Addr::from(address).into()) == Listed::Denied;
            assert_eq!(denied, expected, "{} of {}/{length}", Ipv4Addr::from(address), Ipv4Addr::from(network));
        }
    }
    for length in 1..=128_u8 {
        let network = (u128::MAX / 3 * 2) >> (128 - length) << (128 - length);
        let last = network | u128::MAX.checked_shr(length.into()).unwrap_or(0);
        let lists = compiled(&[&format!("{}/{length}", Ipv6Addr::from(network))], &[]);
        for (address, expected) in [(network, true), (last, true), (network - 1, false), (last.wrapping_add(1), false)]
        {
            let denied = lists.find(Ipv6Addr::from(address).into()) == Listed::Denied;
            assert_eq!(denied, expected, "{} of {}/{length}", Ipv6Addr::from(address), Ipv6Addr::from(network));
        }
    }
}

#[test]
fn everything_and_nothing_can_be_listed() {
    let lists = compiled(&["0.0.0.0/0", "::/0"], &["198.51.100.7/32"]);
    assert_eq!(find(&lists, "203.0.113.1"), Listed::Denied);
    assert_eq!(find(&lists, "198.51.100.7"), Listed::Allowed);
    assert_eq!(find(&lists, "2001:db8::1"), Listed::Denied);
    let lists = compiled(&[], &[]);
    assert_eq!(find(&lists, "203.0.113.1"), Listed::Unlisted);
    assert_eq!(lists.memory_bytes(), 0);
}

#[test]
fn a_mapped_block_is_the_ipv4_block_and_a_shorter_one_is_ipv6() {
    let lists = compiled(&["::ffff:10.0.0.0/104", "::/64"], &[]);
    assert_eq!(find(&lists, "10.255.0.1"), Listed::Denied);
    assert_eq!(find(&lists, "11.0.0.1"), Listed::Unlisted, "::/64 is about IPv6");
    assert_eq!(find(&lists, "::1"), Listed::Denied);
    assert_eq!(prefix("::ffff:10.0.0.0/104").to_string(), "10.0.0.0/8");
    assert!(Prefix::new("10.0.0.0".parse().unwrap(), 33).is_none());
}

#[test]
fn a_table_too_large_is_refused_before_it_is_made() {
    let one = |number: u128| ListedPrefix {
        prefix: Prefix::new(Ipv6Addr::from(number << 95).into(), 33).expect("a prefix"),
        listed: Listed::Denied,
    };
    let error = compile((0..2_200_000).map(one).collect()).expect_err("too many");
    assert!(error.to_string().contains("the IPv6 list takes 17600000 entries"), "{error}");
}

/// What is meant: no structure, every prefix looked at.
fn find_plainly(prefixes: &[ListedPrefix], address: IpAddr) -> Listed {
    let holding = prefixes.iter().filter(|one| one.prefix.contains(address));
    holding.max_by_key(|one| (one.prefix.length(), one.listed)).map_or(Listed::Unlisted, |one| one.listed)
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Few different bits, so that prefixes nest and addresses fall into them.
    fn address(is_ipv6: bool) -> impl Strategy<Value = IpAddr> {
        let sparse = prop::collection::vec((0_u32..128, any::<bool>()), 0..5).prop_map(|bits| {
            bits.into_iter().fold(0_u128, |address, (bit, keep)| if keep { address | 1 << bit } else { address })
        });
        sparse.prop_map(move |bits| match is_ipv6 {
            true => IpAddr::V6(Ipv6Addr::from(bits | 0x2001_u128 << 112)),
            false => IpAddr::V4(Ipv4Addr::from((bits >> 96) as u32)),
        })
    }

    fn listed() -> impl Strategy<Value = ListedPrefix> {
        (any::<bool>(), any::<bool>()).prop_flat_map(|(is_ipv6, is_denied)| {
            let longest = if is_ipv6 { 128_u8 } else { 32 };
            (address(is_ipv6), 0..=longest).prop_map(move |(address, length)| ListedPrefix {
                prefix: Prefix::new(address, length).expect("a prefix"),
                listed: if is_denied { Listed::Denied } else { Listed::Allowed },
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_address_is_found_as_by_looking_at_every_prefix(
            prefixes in prop::collection::vec(listed(), 1..60),
            addresses in prop::collection::vec(any::<bool>().prop_flat_map(address), 200),
        ) {
            let lists = compile(prefixes.clone()).expect("compiles");
            let own = prefixes.iter().map(|one| one.prefix.first_address());
            for address in addresses.into_iter().chain(own) {
                prop_assert_eq!(lists.find(address), find_plainly(&prefixes, address), "{}", address);
            }
        }
    }
}
