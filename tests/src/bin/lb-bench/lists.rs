//! Deny lists: a short one, and one of a million random prefixes of each family in lengths as real lists have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_datapath::{CompiledLists, Listed, ListedPrefix, Prefix, compile_lists};

use crate::cases::List;

/// The lists that cases ask for, compiled once.
pub(crate) struct Lists {
    short: CompiledLists,
    million: CompiledLists,
}

impl Lists {
    pub(crate) fn new() -> Self {
        Self { short: compiled(short()), million: compiled(million()) }
    }

    pub(crate) fn get(&self, list: List) -> &CompiledLists {
        match list {
            List::Short => &self.short,
            List::Million => &self.million,
        }
    }
}

fn compiled(prefixes: Vec<ListedPrefix>) -> CompiledLists {
    compile_lists(prefixes).expect("a list that fits")
}

fn denied(address: impl Into<IpAddr>, length: u8) -> ListedPrefix {
    ListedPrefix { prefix: Prefix::new(address.into(), length).expect("a length"), listed: Listed::Denied }
}

/// Somebody else's networks: a thousand of each family.
fn short() -> Vec<ListedPrefix> {
    let of_ipv4 = (0..1000).map(|number| denied(Ipv4Addr::from_bits(0xcb00_0000 + (number << 8)), 24));
    let of_ipv6 = (0..1000).map(|number| denied(Ipv6Addr::from_bits((0x3fff_0000_u128 << 96) + (number << 80)), 48));
    of_ipv4.chain(of_ipv6).collect()
}

const MILLION: usize = 1_000_000;

/// Lengths and how many of a hundred prefixes have them.
const LENGTHS_4: &[(u8, u32)] = &[(24, 60), (32, 25), (23, 4), (22, 4), (21, 2), (20, 2), (28, 1), (29, 1), (30, 1)];
const LENGTHS_6: &[(u8, u32)] = &[(32, 30), (48, 35), (64, 15), (36, 5), (40, 5), (44, 5), (56, 5)];

fn million() -> Vec<ListedPrefix> {
    let mut numbers = Numbers(1);
    let mut prefixes = Vec::with_capacity(2 * MILLION);
    for _ in 0..MILLION {
        let length = length(&mut numbers, LENGTHS_4);
        prefixes.push(denied(Ipv4Addr::from_bits(numbers.next() as u32), length));
    }
    for _ in 0..MILLION {
        let length = length(&mut numbers, LENGTHS_6);
        let network = numbers.next() >> 3 | 1 << 61;
        prefixes.push(denied(Ipv6Addr::from_bits(u128::from(network) << 64), length));
    }
    prefixes
}

fn length(numbers: &mut Numbers, shares: &[(u8, u32)]) -> u8 {
    let mut percent = (numbers.next() % 100) as u32;
    for (length, share) in shares {
        if percent < *share {
            return *length;
        }
        percent -= share;
    }
    unreachable!("the shares add up to a hundred")
}

/// The same numbers in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
