//! The table from VIP:port to service: each key may live in one of two slots, so a lookup is two comparisons.

use crate::address::Address;
use crate::parse::{TCP, UDP};
use crate::types::ServiceEntry;

/// A power of two, so that a mask replaces a division.
pub const TABLE_SLOTS: usize = 4096;

/// Entries of one table. Above half of the slots two-choice placement starts to fail for every seed.
pub const MAX_ENTRIES: usize = TABLE_SLOTS / 2;

/// [`ServiceEntry::kind`] of a free slot.
pub const EMPTY: u8 = 0;
/// [`ServiceEntry::kind`] of a VIP:port.
pub const ENDPOINT: u8 = 1;
/// [`ServiceEntry::kind`] of an entry whose port and protocol are 0: some port of the VIP belongs to a service. It leads
/// to the VIP's port ranges, and packets without readable ports are ours to drop only where it exists.
pub const WHOLE_ADDRESS: u8 = 2;
/// As [`ENDPOINT`] and [`WHOLE_ADDRESS`], for a VIP that is a prefix: [`crate::vip::VipPrefix::stand_in`] is the address.
pub const PREFIX_ENDPOINT: u8 = 3;
pub const PREFIX_WHOLE: u8 = 4;

/// What the table is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    pub address: Address,
    pub port: u16,
    pub protocol: u8,
    pub kind: u8,
}

impl ServiceKey {
    #[inline(always)]
    pub const fn endpoint(address: Address, port: u16, protocol: u8) -> Self {
        Self { address, port, protocol, kind: ENDPOINT }
    }

    #[inline(always)]
    pub const fn whole_address(address: Address) -> Self {
        Self { address, port: 0, protocol: 0, kind: WHOLE_ADDRESS }
    }

    #[inline(always)]
    pub const fn prefix_endpoint(stand_in: Address, port: u16, protocol: u8) -> Self {
        Self { address: stand_in, port, protocol, kind: PREFIX_ENDPOINT }
    }

    #[inline(always)]
    pub const fn prefix_whole(stand_in: Address) -> Self {
        Self { address: stand_in, port: 0, protocol: 0, kind: PREFIX_WHOLE }
    }

    #[inline(always)]
    fn slots(&self, seed: u64) -> [usize; 2] {
        let [first, second, third] = self.words();
        // Three products side by side and one after them: a chain of them would cost more than the two lookups.
        let hash = (first ^ seed).wrapping_mul(ODD[0])
            ^ (second ^ seed).wrapping_mul(ODD[1])
            ^ (third ^ seed.rotate_left(32)).wrapping_mul(ODD[2]);
        let hash = (hash ^ hash >> 32).wrapping_mul(ODD[0]);
        [(hash >> SLOT_SHIFTS[0]) as usize & (TABLE_SLOTS - 1), (hash >> SLOT_SHIFTS[1]) as usize & (TABLE_SLOTS - 1)]
    }

    /// All of the key, in words that compare at once.
    #[inline(always)]
    const fn words(&self) -> [u64; 3] {
        let [first, second] = self.address.halves();
        [first, second, self.port as u64 | (self.protocol as u64) << 16 | (self.kind as u64) << 24]
    }
}

/// Stands for a service in the ranges of ports where backends answer to NAT: one that no service has.
pub const NAT_REPLIES: u16 = u16::MAX;

/// Not keyed: the operator chooses the entries, and an outsider's lookups cost the same wherever they land.
const ODD: [u64; 3] = [0xd6e8_feb8_6659_fd93, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];
/// The highest bits of a product depend on all bits of its factors.
const SLOT_SHIFTS: [u32; 2] = [64 - 12, 64 - 24];

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Index into the maps of services.
    pub number: u16,
    /// How many worker sockets share its connections.
    pub workers: u16,
}

/// The bit of [`ServiceEntry::protocols`]; none for a protocol that no service can have.
#[inline(always)]
pub const fn protocol_bit(protocol: u8) -> u8 {
    match protocol {
        TCP => 1,
        UDP => 2,
        _ => 0,
    }
}

/// The bit of [`ServiceEntry::protocols`] of an address that backends answer to. It is an address of this host: of what
/// comes to it, only what belongs to a known connection is ours.
pub const NAT_BIT: u8 = 4;
const SERVICE_BITS: u8 = 3;

impl ServiceEntry {
    pub const FREE: Self = Self {
        address: Address { words_be: [0; 4] },
        port: 0,
        protocol: 0,
        kind: EMPTY,
        service: 0,
        workers: 0,
        ranges_start: 0,
        ranges_count: 0,
        protocols: 0,
        unused: [0; 3],
    };

    /// May a packet of this protocol to the whole VIP be a service's? One without readable ports is ours only then.
    #[inline(always)]
    pub const fn has_protocol(&self, protocol: u8) -> bool {
        self.protocols & protocol_bit(protocol) != 0
    }

    /// Of an entry of a whole address: is it a VIP?
    #[inline(always)]
    pub const fn is_vip(&self) -> bool {
        self.protocols & SERVICE_BITS != 0
    }

    /// Do backends answer to it?
    #[inline(always)]
    pub const fn is_nat(&self) -> bool {
        self.protocols & NAT_BIT != 0
    }

    /// With nothing but its key.
    pub const fn of(key: ServiceKey) -> Self {
        let ServiceKey { address, port, protocol, kind } = key;
        Self { address, port, protocol, kind, ..Self::FREE }
    }

    #[inline(always)]
    pub fn key(&self) -> ServiceKey {
        ServiceKey { address: self.address, port: self.port, protocol: self.protocol, kind: self.kind }
    }
}

/// Looks `key` up in a table of [`TABLE_SLOTS`] entries that `entry_at` reads.
#[inline(always)]
pub fn find<'a>(
    key: &ServiceKey,
    seed: u64,
    entry_at: impl Fn(usize) -> Option<&'a ServiceEntry>,
) -> Option<&'a ServiceEntry> {
    let [first, second] = key.slots(seed);
    let candidate = entry_at(first)?;
    if is_of(candidate, key) {
        return Some(candidate);
    }
    let candidate = entry_at(second)?;
    is_of(candidate, key).then_some(candidate)
}

/// One comparison of all words together, and one branch.
#[inline(always)]
fn is_of(entry: &ServiceEntry, key: &ServiceKey) -> bool {
    let (entry, key) = (entry.key().words(), key.words());
    (entry[0] ^ key[0]) | (entry[1] ^ key[1]) | (entry[2] ^ key[2]) == 0
}

/// Puts `entry` into one of its slots in a table of [`TABLE_SLOTS`] entries, moving others to their second slot as
/// needed. `false` if that did not succeed within a bounded number of moves: the table is then unusable, and another
/// seed must be tried.
#[must_use]
pub fn insert(table: &mut [ServiceEntry], seed: u64, entry: ServiceEntry) -> bool {
    const MAX_MOVES: usize = 500;
    let mut homeless = entry;
    let [mut slot, _] = homeless.key().slots(seed);
    for _ in 0..MAX_MOVES {
        let [first, second] = homeless.key().slots(seed);
        if let Some(free) = [first, second].into_iter().find(|slot| table[*slot].kind == EMPTY) {
            table[free] = homeless;
            return true;
        }
        slot = if slot == first { second } else { first };
        core::mem::swap(&mut homeless, &mut table[slot]);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv6Addr};
    use std::vec::Vec;

    fn entry(number: u16) -> ServiceEntry {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
        ServiceEntry {
            address: address.into(),
            port: 443,
            protocol: 6,
            kind: ENDPOINT,
            service: number,
            workers: 1,
            ..ServiceEntry::FREE
        }
    }

    fn empty() -> Vec<ServiceEntry> {
        std::vec![ServiceEntry::FREE; TABLE_SLOTS]
    }

    fn find_in(table: &[ServiceEntry], seed: u64, key: &ServiceKey) -> Option<ServiceEntry> {
        find(key, seed, |slot| table.get(slot)).copied()
    }

    #[test]
    fn every_entry_is_found_again_and_no_other_is_at_half_load() {
        let entries: Vec<_> = (0..MAX_ENTRIES as u16).map(entry).collect();
        let (seed, table) = (0..64)
            .find_map(|seed| {
                let mut table = empty();
                entries.iter().all(|entry| insert(&mut table, seed, *entry)).then_some((seed, table))
            })
            .expect("some seed places all");
        for entry in &entries {
            assert_eq!(find_in(&table, seed, &entry.key()), Some(*entry));
        }
        assert_eq!(find_in(&table, seed, &entry(MAX_ENTRIES as u16).key()), None);
    }

    #[test]
    fn the_key_is_address_port_protocol_and_kind_together() {
        let mut table = empty();
        let present = entry(1).key();
        assert!(insert(&mut table, 0, entry(1)));
        let elsewhere: IpAddr = "2001:db8::2".parse().expect("an address");
        for absent in [
            ServiceKey { address: elsewhere.into(), ..present },
            ServiceKey { port: 444, ..present },
            ServiceKey { protocol: 17, ..present },
            ServiceKey::whole_address(present.address),
        ] {
            assert_eq!(find_in(&table, 0, &absent), None, "{absent:?}");
        }
        assert_eq!(find_in(&table, 0, &present), Some(entry(1)));
    }

    #[test]
    fn a_free_slot_is_never_found() {
        let nothing = ServiceKey::endpoint(Address { words_be: [0; 4] }, 0, 0);
        assert_eq!(find_in(&empty(), 0, &nothing), None);
    }
}
