//! From prefixes to a root and a table.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use lb_common::lists::{
    CELL_HAS_LEVEL_28, CELL_HAS_LEVEL_32, CELLS, LEVEL_STEP, LONG_GUIDE_LEVEL, ListKey, Listed, ROOT_BLOCK_WORDS,
    ROOT_BLOCKS, RootHeader, SHORT_GUIDE_LEVEL, longer_bit, probe, write_cell, write_filter,
};

use super::prefix::{ListedPrefix, Prefix};
use super::table::{self, Entry};
use super::{CompiledList, CompiledLists};

/// Entries of one table: 256 MiB. Two million prefixes reach it only if most of them have the lengths that make eight.
const MOST_ENTRIES: usize = 1 << 24;

/// The last length that a cell of the root stands for.
const CELL_LENGTH: u8 = 24;

/// Why a list cannot be looked up by XDP.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error(
        "the {family} list takes {found} entries once lengths above /24 are rounded up to multiples of four, and at most \
         {MOST_ENTRIES} are held; drop the longest prefixes or use lengths such as /28, /32, /48 and /64"
    )]
    TooManyEntries { family: &'static str, found: usize },
    #[error("no table was found for the {family} list in {tries} tries; please report it with the list")]
    NoTable { family: &'static str, tries: usize },
}

/// The longest prefix decides; of two equal ones the one that allows. Takes about a second for a million.
pub fn compile(prefixes: Vec<ListedPrefix>) -> Result<CompiledLists, ListError> {
    let (ipv6, ipv4) = prefixes.into_iter().partition(|one: &ListedPrefix| one.prefix.is_ipv6());
    Ok(CompiledLists { families: [compile_family("IPv4", ipv4)?, compile_family("IPv6", ipv6)?] })
}

fn compile_family(family: &'static str, prefixes: Vec<ListedPrefix>) -> Result<Option<CompiledList>, ListError> {
    if prefixes.is_empty() {
        return Ok(None);
    }
    let prefixes = without_repetition(prefixes);
    let entries = entries_of(family, &prefixes)?;
    let mut root = vec![0; ROOT_BLOCKS * ROOT_BLOCK_WORDS];
    write_cells(&mut root, &cells(&prefixes, &entries));
    let count = |listed| prefixes.iter().filter(|one| one.listed == listed).count() as u64;
    let (denied, allowed) = (count(Listed::Denied), count(Listed::Allowed));
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        let seed = RandomState::new().build_hasher().finish();
        let Some(lines) = table::build(&entries, seed) else { continue };
        let header = RootHeader { seed, table: 0, line_mask: lines.len() as u32 - 1 };
        header.write(&mut root);
        for entry in entries.iter().filter(|entry| entry.key.level == SHORT_GUIDE_LEVEL) {
            write_filter(&mut root, entry.key.hash(seed));
        }
        let list = CompiledList { root, header, lines, denied, allowed };
        if is_sound(&list, &entries) {
            return Ok(Some(list));
        }
        root = list.root;
    }
    Err(ListError::NoTable { family, tries: TRIES })
}

/// Sorted by address, then length.
fn without_repetition(mut prefixes: Vec<ListedPrefix>) -> Vec<ListedPrefix> {
    prefixes.retain(|one| one.listed != Listed::Unlisted);
    // What allows comes before what denies.
    prefixes.sort_unstable_by(|one, other| (one.prefix, other.listed).cmp(&(other.prefix, one.listed)));
    prefixes.dedup_by_key(|one| one.prefix);
    prefixes
}

/// By number of the /24.
fn cells(prefixes: &[ListedPrefix], entries: &[Entry]) -> Vec<u8> {
    let mut cells = vec![0; CELLS];
    for length in 0..=CELL_LENGTH {
        for one in prefixes.iter().filter(|one| one.prefix.length() == length) {
            let first = slash_24(one.prefix.halves()[0]);
            let covered = 1 << (CELL_LENGTH - length);
            cells[first..first + covered].fill(one.listed.to_bits() as u8);
        }
    }
    for entry in entries {
        match entry.key.level {
            28 => cells[slash_24(entry.key.high)] |= CELL_HAS_LEVEL_28 as u8,
            SHORT_GUIDE_LEVEL => cells[slash_24(entry.key.high)] |= CELL_HAS_LEVEL_32 as u8,
            _ => {}
        }
    }
    cells
}

/// Most of the address space is unlisted in most lists: it is passed over in long steps.
fn write_cells(root: &mut [u64], cells: &[u8]) {
    const STEP: usize = 64;
    for (start, step) in (0..).step_by(STEP).zip(cells.as_chunks::<STEP>().0) {
        if *step != [0; STEP] {
            for (number, cell) in (start..).zip(step) {
                write_cell(root, number, (*cell).into());
            }
        }
    }
}

const fn slash_24(high: u64) -> usize {
    (high >> 40) as usize
}

/// Sorted by key: what the prefixes longer than /24 say, and the guides to those longer than /32 and /64.
fn entries_of(family: &'static str, prefixes: &[ListedPrefix]) -> Result<Vec<Entry>, ListError> {
    let long = || prefixes.iter().filter(|one| one.prefix.length() > CELL_LENGTH);
    let found = long().map(|one| expanded_count(&one.prefix)).sum();
    if found > MOST_ENTRIES {
        return Err(ListError::TooManyEntries { family, found });
    }
    // The length is what decides between two prefixes that were rounded up to one key.
    let mut rounded: Vec<(ListKey, u8, Listed)> = Vec::with_capacity(found);
    for one in long() {
        rounded.extend(expanded(&one.prefix).map(|key| (key, one.prefix.length(), one.listed)));
    }
    rounded.sort_unstable_by(|one, other| (one.0, other.1).cmp(&(other.0, one.1)));
    rounded.dedup_by_key(|one| one.0);
    let mut entries: Vec<Entry> =
        rounded.iter().map(|(key, _, listed)| Entry { key: *key, payload: listed.to_bits() }).collect();
    entries.extend(guides(&rounded));
    entries.sort_unstable();
    entries.dedup_by(|one, kept| {
        let is_same = one.key == kept.key;
        if is_same {
            kept.payload |= one.payload;
        }
        is_same
    });
    if entries.len() > MOST_ENTRIES {
        return Err(ListError::TooManyEntries { family, found: entries.len() });
    }
    Ok(entries)
}

const fn level_of(prefix: &Prefix) -> u8 {
    prefix.length().next_multiple_of(LEVEL_STEP)
}

const fn expanded_count(prefix: &Prefix) -> usize {
    1 << (level_of(prefix) - prefix.length())
}

/// All keys of the next level that the prefix covers.
fn expanded(prefix: &Prefix) -> impl Iterator<Item = ListKey> + use<> {
    let level = level_of(prefix);
    let [high, low] = prefix.halves();
    (0..expanded_count(prefix) as u64).map(move |number| {
        if level <= 64 {
            ListKey::new(level, high | number << (64 - level), low)
        } else {
            ListKey::new(level, high, low | number << (128 - level))
        }
    })
}

/// The keys are sorted, so of neighbours beneath one guide all but the first are skipped.
fn guides(rounded: &[(ListKey, u8, Listed)]) -> Vec<Entry> {
    let mut guides: Vec<Entry> = Vec::new();
    let mut add = |level: u8, high: u64, longer: u8| {
        let guide = Entry { key: ListKey::new(level, high, 0), payload: longer_bit(level, longer) };
        if guides.last() != Some(&guide) {
            guides.push(guide);
        }
    };
    for (key, _, _) in rounded.iter().filter(|(key, _, _)| key.level > SHORT_GUIDE_LEVEL) {
        add(SHORT_GUIDE_LEVEL, key.high, key.level.min(LONG_GUIDE_LEVEL));
    }
    for (key, _, _) in rounded.iter().filter(|(key, _, _)| key.level > LONG_GUIDE_LEVEL) {
        add(LONG_GUIDE_LEVEL, key.high, key.level);
    }
    guides
}

/// Every entry is found, and none is taken for another.
fn is_sound(list: &CompiledList, entries: &[Entry]) -> bool {
    entries.iter().all(|entry| probe(list, &list.header, &entry.key) == entry.payload)
}
