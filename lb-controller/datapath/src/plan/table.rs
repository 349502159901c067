//! Building the two-choice table.

use lb_common::service::{TABLE_SLOTS, insert};
use lb_common::types::ServiceEntry;

/// A table in which every entry has a slot, and the seed that made it so.
pub(crate) struct Table {
    pub(crate) seed: u64,
    pub(crate) slots: Vec<ServiceEntry>,
}

/// Tries seeds until every entry has found a slot; `None` if there are too many entries for any.
pub(crate) fn build(entries: &[ServiceEntry]) -> Option<Table> {
    const SEEDS: u64 = 64;
    (0..SEEDS).find_map(|seed| {
        let mut slots = vec![ServiceEntry::FREE; TABLE_SLOTS];
        entries.iter().all(|entry| insert(&mut slots, seed, *entry)).then_some(Table { seed, slots })
    })
}
