//! Deny and allow prefixes: a map of all /24s, and beneath those that have longer prefixes a table of them.
//!
//! Both families are looked up alike: a prefix is the leading bits of 128, and an IPv4 address has 32 of them. Lengths
//! above 24 are rounded up to multiples of four when the list is built (a /29 becomes eight /32s), so that few lengths
//! have to be tried: at most 2 for IPv4; for IPv6 at most 10, and 26 beneath a /64 that has longer ones. A
//! source that no list is about costs one or two loads from an array.

/// What the lists say of a source: its longest prefix decides, and of two equal ones the one that allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listed {
    Unlisted,
    Denied,
    Allowed,
}

impl Listed {
    /// Two bits, as they stand in roots and tables.
    pub const fn to_bits(self) -> u64 {
        self as u64
    }

    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            1 => Self::Denied,
            2 => Self::Allowed,
            _ => Self::Unlisted,
        }
    }
}

/// The kernel side of one family's list, or a test's: words of the root, and lines of the table.
pub trait ListMaps {
    /// `block` is below [`ROOT_BLOCKS`], `word` below [`ROOT_BLOCK_WORDS`].
    fn root_word(&self, block: u32, word: usize) -> Option<u64>;

    /// `table` is as the root's header says; `line` is at most its `line_mask`.
    fn line(&self, table: u32, line: u32) -> Option<&Line>;
}

/// Slots that are compared together: one cache line.
pub type Line = [u64; LINE_SLOTS];
pub const LINE_SLOTS: usize = 8;
/// An element of a table: lines one after the other. A table has 2^n of them.
///
/// Not an array of lines: the loader takes the size of the inner array for that of the whole.
pub type Chunk = [u64; CHUNK_LINES * LINE_SLOTS];
pub const CHUNK_LINES: usize = 64;
/// Two tables for each family: one in use, one to write the next list to.
pub const TABLES: usize = 2 * FAMILIES;
/// IPv4 and IPv6, in this order.
pub const FAMILIES: usize = 2;

/// An element of a root.
pub type RootBlock = [u64; ROOT_BLOCK_WORDS];
pub const ROOT_BLOCK_WORDS: usize = 1024;
/// The parts of a root, in this order: hints, marks, cells, the filter, the header. Each one answers for most addresses
/// that pass the one before it, from a place that fits a nearer cache than the next one.
pub const ROOT_BLOCKS: usize = HEADER_BLOCK as usize + 1;

const BITS_PER_BLOCK: usize = ROOT_BLOCK_WORDS * u64::BITS as usize;
/// One bit for each /16 that has a cell which is not 0: 8 KiB.
const FIRST_HINT_BLOCK: u32 = 0;
/// One bit for each cell that is not 0: 2 MiB.
const FIRST_MARK_BLOCK: u32 = FIRST_HINT_BLOCK + 1;
/// 8 MiB.
const FIRST_CELL_BLOCK: u32 = FIRST_MARK_BLOCK + (CELLS / BITS_PER_BLOCK) as u32;
/// One bit for each value of some bits of a hash: that of an entry of level 32 has them. 2 MiB.
const FIRST_FILTER_BLOCK: u32 = FIRST_CELL_BLOCK + (CELLS / CELLS_PER_BLOCK) as u32;
const FILTER_BITS: u64 = 1 << 24;
const HEADER_BLOCK: u32 = FIRST_FILTER_BLOCK + (FILTER_BITS / BITS_PER_BLOCK as u64) as u32;

/// One for each /24, of four bits: a [`Listed`], and which of the shortest levels beneath it have entries.
pub const CELLS: usize = 1 << 24;
const CELL_BITS: usize = 4;
const CELLS_PER_WORD: usize = u64::BITS as usize / CELL_BITS;
const CELLS_PER_BLOCK: usize = CELLS_PER_WORD * ROOT_BLOCK_WORDS;
/// There are entries of level 32 beneath the /24: prefixes of 29 to 32 bits, or the way to longer ones.
pub const CELL_HAS_LEVEL_32: u64 = 4;
/// There are entries of level 28: prefixes of 25 to 28 bits.
pub const CELL_HAS_LEVEL_28: u64 = 8;

/// What the rest of a lookup needs to know; in the first words of the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootHeader {
    pub seed: u64,
    /// Index into the tables of both families.
    pub table: u32,
    /// The table's lines less one; they are a power of two.
    pub line_mask: u32,
}

impl RootHeader {
    /// Writes the header into a root of [`ROOT_BLOCKS`] blocks one after the other.
    pub fn write(&self, root: &mut [u64]) {
        let start = HEADER_BLOCK as usize * ROOT_BLOCK_WORDS;
        root[start] = self.seed;
        root[start + 1] = self.table as u64;
        root[start + 2] = self.line_mask as u64;
    }

    #[inline(always)]
    fn read(maps: &impl ListMaps) -> Option<Self> {
        Some(Self {
            seed: maps.root_word(HEADER_BLOCK, 0)?,
            table: maps.root_word(HEADER_BLOCK, 1)? as u32,
            line_mask: maps.root_word(HEADER_BLOCK, 2)? as u32,
        })
    }
}

/// Sets the cell of one /24, whose number is its first 24 bits, in a root that has none there.
pub fn write_cell(root: &mut [u64], number: u32, cell: u64) {
    let (block, word, shift) = cell_place(number);
    root[block as usize * ROOT_BLOCK_WORDS + word] |= cell << shift;
    if cell != 0 {
        set_bit(root, bit_place(FIRST_HINT_BLOCK, number >> 8));
        set_bit(root, bit_place(FIRST_MARK_BLOCK, number));
    }
}

/// Lets an entry of level 32 through the filter.
pub fn write_filter(root: &mut [u64], hash: u64) {
    set_bit(root, bit_place(FIRST_FILTER_BLOCK, filter_number(hash)));
}

fn set_bit(root: &mut [u64], (block, word, bit): (u32, usize, u64)) {
    root[block as usize * ROOT_BLOCK_WORDS + word] |= bit;
}

#[inline(always)]
const fn cell_place(number: u32) -> (u32, usize, u32) {
    let block = FIRST_CELL_BLOCK + number / CELLS_PER_BLOCK as u32;
    let in_block = number as usize % CELLS_PER_BLOCK;
    (block, in_block / CELLS_PER_WORD, (in_block % CELLS_PER_WORD * CELL_BITS) as u32)
}

#[inline(always)]
const fn bit_place(first_block: u32, number: u32) -> (u32, usize, u64) {
    let in_block = number as usize % BITS_PER_BLOCK;
    (first_block + number / BITS_PER_BLOCK as u32, in_block / u64::BITS as usize, 1 << (number % u64::BITS))
}

/// Other bits than those that choose the first line.
#[inline(always)]
const fn filter_number(hash: u64) -> u32 {
    (hash >> 32 & (FILTER_BITS - 1)) as u32
}

/// The low bits of a slot; above them stands the fingerprint, the same bits of the key's hash.
///
/// With 45 bits of fingerprint and a line chosen by other bits of the hash, a source that is not listed is taken for one
/// that is with a chance below 2^-40, the same source always: one in 250 IPv4 internets.
pub const PAYLOAD_BITS: u32 = 19;
const LISTED_MASK: u64 = 3;
/// In entries of level 32 and 64: bit n says that beneath there are entries of the level 4 (n + 1) bits longer.
const LONGER_SHIFT: u32 = 2;
const LONGER_MASK: u64 = 0xffff;
/// In the last slot of a line: an entry whose first line this is stands in its second one.
pub const OVERFLOWED: u64 = 1 << 18;
/// The payload without [`OVERFLOWED`], which belongs to the line.
pub const PAYLOAD_MASK: u64 = OVERFLOWED - 1;

/// The first 64 bits of a key and the other 64, beyond `level` all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListKey {
    pub level: u8,
    pub high: u64,
    pub low: u64,
}

/// Entries of this level say which longer levels up to 64 there are beneath them.
pub const SHORT_GUIDE_LEVEL: u8 = 32;
/// Entries of this level say which longer levels up to 128 there are beneath them.
pub const LONG_GUIDE_LEVEL: u8 = 64;
/// Levels are so many bits apart.
pub const LEVEL_STEP: u8 = 4;

/// In the payload of a guide: there are entries of `level`, at most 16 steps longer, beneath it.
pub const fn longer_bit(guide_level: u8, level: u8) -> u64 {
    1 << ((level - guide_level) / LEVEL_STEP - 1) << LONGER_SHIFT
}

impl ListKey {
    /// `level` is a multiple of four from 28 to 128.
    #[inline(always)]
    pub const fn new(level: u8, high: u64, low: u64) -> Self {
        if level <= 64 {
            Self { level, high: high & u64::MAX << (64 - level as u32), low: 0 }
        } else {
            Self { level, high, low: low & u64::MAX << (128 - level as u32) }
        }
    }

    /// Not keyed against outsiders, who cannot enter anything and whose lookups cost the same wherever they land; the
    /// seed is for the builder, who tries another if entries would be mistaken for each other.
    #[inline(always)]
    pub const fn hash(&self, seed: u64) -> u64 {
        let mixed = mix(self.high ^ seed.wrapping_add((self.level as u64).wrapping_mul(ODD)));
        if self.level > 64 { mix(mixed ^ self.low) } else { mixed }
    }
}

const ODD: u64 = 0xd6e8_feb8_6659_fd93;

#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(ODD);
    let value = (value ^ (value >> 32)).wrapping_mul(ODD);
    value ^ (value >> 32)
}

/// The two lines in which an entry may stand; the same twice only in a table of one line.
#[inline(always)]
pub const fn lines_of(hash: u64, line_mask: u32) -> [u32; 2] {
    let first = hash as u32 & line_mask;
    [first, (first ^ ((hash >> 40) as u32 | 1)) & line_mask]
}

/// What the list says of the address whose first 64 bits are `high` and the others `low`; an IPv4 address is the first
/// 32 bits of `high`.
#[inline(always)]
pub fn find(maps: &impl ListMaps, high: u64, low: u64) -> Listed {
    if !is_marked(maps, high) {
        return Listed::Unlisted;
    }
    let cell = cell_of(maps, high).unwrap_or(0);
    if cell & (CELL_HAS_LEVEL_32 | CELL_HAS_LEVEL_28) == 0 {
        return Listed::from_bits(cell);
    }
    match RootHeader::read(maps) {
        Some(header) => Listed::from_bits(find_longer(maps, &header, cell, high, low)),
        None => Listed::Unlisted,
    }
}

/// A word of the root's first block and a bit in it: while it is clear, the list says nothing of the address, nor of any other
/// of its /16. The block has a copy in [`crate::types::Control::list_hints`], which is nearer.
#[inline(always)]
pub const fn hint(high: u64) -> (u32, u64) {
    let (_, word, bit) = bit_place(FIRST_HINT_BLOCK, (high >> 48) as u32);
    (word as u32, bit)
}

/// `false`: the list says nothing of the address, nor of any other of its /24.
#[inline(always)]
fn is_marked(maps: &impl ListMaps, high: u64) -> bool {
    let (word, bit) = hint(high);
    let has_bit = |place| has_bit(maps, place).unwrap_or(false);
    has_bit((FIRST_HINT_BLOCK, word as usize, bit)) && has_bit(bit_place(FIRST_MARK_BLOCK, (high >> 40) as u32))
}

#[inline(always)]
fn cell_of(maps: &impl ListMaps, high: u64) -> Option<u64> {
    let number = (high >> 40) as u32;
    let (block, word, shift) = cell_place(number);
    Some(maps.root_word(block, word)? >> shift & 0xf)
}

#[inline(always)]
fn has_bit(maps: &impl ListMaps, (block, word, bit): (u32, usize, u64)) -> Option<bool> {
    Some(maps.root_word(block, word)? & bit != 0)
}

/// The longest first.
#[inline(always)]
fn find_longer(maps: &impl ListMaps, header: &RootHeader, cell: u64, high: u64, low: u64) -> u64 {
    if cell & CELL_HAS_LEVEL_32 != 0 {
        let key = ListKey::new(SHORT_GUIDE_LEVEL, high, low);
        let number = filter_number(key.hash(header.seed));
        if has_bit(maps, bit_place(FIRST_FILTER_BLOCK, number)).unwrap_or(false) {
            let guide = probe(maps, header, &key);
            let beyond_32 = find_beyond(maps, header, guide, high, low);
            if beyond_32 & LISTED_MASK != 0 {
                return beyond_32;
            }
            if guide & LISTED_MASK != 0 {
                return guide;
            }
        }
    }
    if cell & CELL_HAS_LEVEL_28 != 0 {
        let found = probe(maps, header, &ListKey::new(28, high, low));
        if found & LISTED_MASK != 0 {
            return found;
        }
    }
    cell
}

/// What the levels beneath a guide of level 32 say.
#[inline(always)]
fn find_beyond(maps: &impl ListMaps, header: &RootHeader, guide: u64, high: u64, low: u64) -> u64 {
    const HAS_LEVEL_64: u64 = longer_bit(SHORT_GUIDE_LEVEL, LONG_GUIDE_LEVEL);
    if guide & HAS_LEVEL_64 != 0 {
        let long_guide = probe(maps, header, &ListKey::new(LONG_GUIDE_LEVEL, high, low));
        let found = find_levels(maps, header, LONG_GUIDE_LEVEL, long_guide, high, low);
        if found & LISTED_MASK != 0 {
            return found;
        }
        if long_guide & LISTED_MASK != 0 {
            return long_guide;
        }
    }
    find_levels(maps, header, SHORT_GUIDE_LEVEL, guide & !HAS_LEVEL_64, high, low)
}

/// Tries the levels that a guide names, the longest first.
#[inline(always)]
fn find_levels(maps: &impl ListMaps, header: &RootHeader, guide_level: u8, guide: u64, high: u64, low: u64) -> u64 {
    let longer = guide >> LONGER_SHIFT & LONGER_MASK;
    if longer == 0 {
        return 0;
    }
    let most_steps = if guide_level == SHORT_GUIDE_LEVEL { 8 } else { 16 };
    let mut step = most_steps;
    while step > 0 {
        if longer >> (step - 1) & 1 != 0 {
            let key = ListKey::new(guide_level + step as u8 * LEVEL_STEP, high, low);
            let found = probe(maps, header, &key);
            if found & LISTED_MASK != 0 {
                return found;
            }
        }
        step -= 1;
    }
    0
}

/// The payload of an entry; 0 if there is none.
#[inline(always)]
pub fn probe(maps: &impl ListMaps, header: &RootHeader, key: &ListKey) -> u64 {
    let hash = key.hash(header.seed);
    let [first, second] = lines_of(hash, header.line_mask);
    let Some(line) = maps.line(header.table, first) else {
        return 0;
    };
    let found = scan(line, hash);
    if found != 0 || line[LINE_SLOTS - 1] & OVERFLOWED == 0 {
        return found;
    }
    maps.line(header.table, second).map_or(0, |line| scan(line, hash))
}

#[inline(always)]
fn scan(line: &Line, hash: u64) -> u64 {
    let mut slot = 0;
    while slot < LINE_SLOTS {
        if (line[slot] ^ hash) >> PAYLOAD_BITS == 0 {
            return line[slot] & PAYLOAD_MASK;
        }
        slot += 1;
    }
    0
}

/// Part of the layout hash: what a root and a table look like, which the shapes of the outer maps do not tell.
pub(crate) const LAYOUT: &str = "hints, marks, 2^24 cells of 4 bits, filter of 2^24, header seed table line_mask; lines of 8 slots: \
                                 fingerprint 45, overflowed 1, longer 16, listed 2; chunks of 64 lines";
