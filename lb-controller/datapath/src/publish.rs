//! Exchanging the table of services under running packets.

use std::net::IpAddr;
use std::ops::Range;

use lb_common::Address;
use lb_common::address::HINT_WORDS;
use lb_common::service::{PREFIX_WHOLE, TABLE_SLOTS, WHOLE_ADDRESS};
use lb_common::types::{Control, ServiceEntry, ServiceRange};
use lb_common::vip::{MAX_RANGES, VipPrefix};

use crate::error::MapError;
use crate::maps::Maps;
use crate::plan::Table;

/// Writes the table that no packet reads, then switches. A packet that began before keeps reading the old one, which
/// stays untouched until the next change. Of prefixes and ranges the same: each table has its own.
pub(crate) fn publish(
    maps: &mut Maps,
    control: &mut Control,
    table: &Table,
    ranges: &[ServiceRange],
) -> Result<(), MapError> {
    let idle = 1 - control.active_table.min(1);
    for (index, entry) in table_range(idle).zip(&table.slots) {
        maps.services.set(index, entry)?;
    }
    for (index, range) in half(idle, MAX_RANGES).zip(ranges) {
        maps.ranges.set(index, range)?;
    }
    let prefixes = prefixes(&table.slots);
    maps.vip_prefixes.replace(idle, &prefixes)?;
    control.vip_hints[idle as usize] = hints(&table.slots, &prefixes);
    control.seeds[idle as usize] = table.seed;
    control.any_vip_prefixes[idle as usize] = (!prefixes.is_empty()).into();
    maps.control.set(0, control)?;
    control.active_table = idle;
    maps.control.set(0, control)
}

/// The elements of `SERVICES` that make up a table.
pub(crate) fn table_range(table: u32) -> Range<u32> {
    half(table, TABLE_SLOTS)
}

/// The elements that belong to a table in a map of two halves.
pub(crate) fn half(table: u32, length: usize) -> Range<u32> {
    let start = table * length as u32;
    start..start + length as u32
}

fn prefixes(slots: &[ServiceEntry]) -> Vec<VipPrefix> {
    let wholes = slots.iter().filter(|entry| entry.kind == PREFIX_WHOLE);
    wholes.filter_map(|entry| VipPrefix::of_stand_in(entry.address)).collect()
}

/// The widest prefix whose addresses are listed one by one: more would set nearly every bit in any case.
const MOST_LISTED: u128 = 1 << 12;

/// The bit of each VIP. A wide prefix sets all of them: a clear bit is a promise.
fn hints(slots: &[ServiceEntry], prefixes: &[VipPrefix]) -> [u64; HINT_WORDS] {
    if prefixes.iter().any(|prefix| prefix.addresses() > MOST_LISTED) {
        return [u64::MAX; HINT_WORDS];
    }
    let mut words = [0; HINT_WORDS];
    let single = slots.iter().filter(|entry| entry.kind == WHOLE_ADDRESS).map(|entry| entry.address);
    let listed = prefixes.iter().flat_map(|prefix| {
        (0..prefix.addresses()).map(|number| Address::from(IpAddr::from((prefix.first_bits() + number).to_be_bytes())))
    });
    for (word, bit) in single.chain(listed).map(|address| address.hint()) {
        words[word as usize] |= bit;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::service::ServiceKey;

    fn slots(vips: &[&str]) -> Vec<ServiceEntry> {
        let entry = |vip: &&str| {
            let vip: VipPrefix = vip.parse().expect("a VIP");
            let of = if vip.address().is_some() { ServiceKey::whole_address } else { ServiceKey::prefix_whole };
            ServiceEntry::of(of(vip.stand_in()))
        };
        vips.iter().map(entry).collect()
    }

    fn is_hinted(vips: &[&str], address: &str) -> bool {
        let slots = slots(vips);
        let words = hints(&slots, &prefixes(&slots));
        let (word, bit) = Address::from(address.parse::<IpAddr>().expect("an address")).hint();
        words[word as usize] & bit != 0
    }

    #[test]
    fn every_address_of_a_vip_is_hinted_and_hardly_another() {
        let vips = ["192.0.2.1", "198.51.100.0/24", "2001:db8::/120"];
        for address in ["192.0.2.1", "198.51.100.0", "198.51.100.255", "2001:db8::", "2001:db8::ff"] {
            assert!(is_hinted(&vips, address), "{address}");
        }
        let others = (0..=255).filter(|number| is_hinted(&vips, &format!("203.0.113.{number}"))).count();
        assert!(others <= 8, "{others}");
    }

    #[test]
    fn a_prefix_too_wide_to_list_hints_at_everything() {
        assert!(is_hinted(&["10.0.0.0/8"], "203.0.113.1"));
        assert!(is_hinted(&["2001:db8::/64"], "203.0.113.1"));
        assert!(!is_hinted(&["10.0.0.0/20"], "203.0.113.1"));
    }
}
