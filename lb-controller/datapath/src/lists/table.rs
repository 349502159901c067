//! The table of the prefixes longer than /24: every entry in one of two lines.

use lb_common::lists::{CHUNK_LINES, LINE_SLOTS, Line, ListKey, OVERFLOWED, PAYLOAD_BITS, lines_of};

/// A key and what the table says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) key: ListKey,
    pub(super) payload: u64,
}

/// Half of the slots at most: nearly every entry then stands in its first line, and one that no list has is looked for
/// in one line only.
const ENTRIES_PER_LINE: usize = LINE_SLOTS / 2;

const NOBODY: u32 = u32::MAX;

struct Table<'e> {
    entries: &'e [Entry],
    seed: u64,
    line_mask: u32,
    lines: Vec<Line>,
    /// Which entry stands in each slot.
    owners: Vec<[u32; LINE_SLOTS]>,
    draws: u64,
}

/// A power of two of lines, whole chunks of them. `None` if an entry found no place: another seed must be tried.
pub(super) fn build(entries: &[Entry], seed: u64) -> Option<Vec<Line>> {
    let lines = entries.len().div_ceil(ENTRIES_PER_LINE).next_power_of_two().max(CHUNK_LINES);
    let mut table = Table {
        entries,
        seed,
        line_mask: lines as u32 - 1,
        lines: vec![[0; LINE_SLOTS]; lines],
        owners: vec![[NOBODY; LINE_SLOTS]; lines],
        draws: seed | 1,
    };
    if (0..entries.len() as u32).all(|number| table.place(number)) { Some(table.finish()) } else { None }
}

impl Table<'_> {
    fn lines_of(&self, entry: u32) -> [u32; 2] {
        lines_of(self.entries[entry as usize].key.hash(self.seed), self.line_mask)
    }

    /// Whoever is in the way moves to its other line.
    fn place(&mut self, entry: u32) -> bool {
        const MOST_MOVES: usize = 500;
        let mut homeless = entry;
        for _ in 0..MOST_MOVES {
            let candidates = self.lines_of(homeless);
            for line in candidates {
                if let Some(slot) = self.owners[line as usize].iter().position(|owner| *owner == NOBODY) {
                    self.owners[line as usize][slot] = homeless;
                    return true;
                }
            }
            let draw = self.draw();
            let line = candidates[draw & 1];
            let slot = draw >> 1 & (LINE_SLOTS - 1);
            homeless = std::mem::replace(&mut self.owners[line as usize][slot], homeless);
        }
        false
    }

    /// Xorshift: always evicting the same slot could go in circles.
    fn draw(&mut self) -> usize {
        self.draws ^= self.draws << 13;
        self.draws ^= self.draws >> 7;
        self.draws ^= self.draws << 17;
        self.draws as usize
    }

    fn finish(mut self) -> Vec<Line> {
        for line in 0..self.owners.len() {
            for slot in 0..LINE_SLOTS {
                let owner = self.owners[line][slot];
                if owner == NOBODY {
                    continue;
                }
                let entry = self.entries[owner as usize];
                let hash = entry.key.hash(self.seed);
                // The mark may be there already: it belongs to the line, not to the entry.
                self.lines[line][slot] |= hash >> PAYLOAD_BITS << PAYLOAD_BITS | entry.payload;
                let [first, _] = lines_of(hash, self.line_mask);
                if first as usize != line {
                    self.lines[first as usize][LINE_SLOTS - 1] |= OVERFLOWED;
                }
            }
        }
        self.lines
    }
}
