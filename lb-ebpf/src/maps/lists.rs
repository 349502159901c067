//! The maps of deny and allow lists.

use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::macros::btf_map;
use lb_common::lists::{
    CHUNK_LINES, Chunk, FAMILIES, Line, ListMaps, Listed, ROOT_BLOCK_WORDS, ROOT_BLOCKS, RootBlock, TABLES, find,
};
use lb_common::types::ListFacts;

/// All roots have one size, so that the verifier makes reading one a few instructions.
type ListRoot = Array<RootBlock, ROOT_BLOCKS>;

/// A family without a list has no root, and no memory is spent on it.
#[btf_map]
static LIST_ROOTS: ArrayOfMaps<ListRoot, FAMILIES> = ArrayOfMaps::new();
/// Tables have any size, so that reading one is a call; it is done for few sources.
#[btf_map]
static LIST_TABLES: ArrayOfMaps<Array<Chunk, 1, BPF_F_INNER_MAP>, TABLES> = ArrayOfMaps::new();
const BPF_F_INNER_MAP: usize = 1 << 12;
/// Written and read by user space only.
#[btf_map]
static LIST_FACTS: Array<ListFacts, FAMILIES> = Array::new();

/// The root that a packet began with. One that is replaced meanwhile, and its table with it, is freed only after the
/// packet.
pub(crate) struct List {
    root: &'static ListRoot,
}

impl List {
    /// `None` if the family has no list.
    #[inline(always)]
    pub(crate) fn of_family(is_ipv6: bool) -> Option<Self> {
        Some(Self { root: LIST_ROOTS.get(is_ipv6 as u32)? })
    }
}

impl ListMaps for List {
    #[inline(always)]
    fn root_word(&self, block: u32, word: usize) -> Option<u64> {
        Some(self.root.get(block)?[word & (ROOT_BLOCK_WORDS - 1)])
    }

    #[inline(always)]
    fn line(&self, table: u32, line: u32) -> Option<&Line> {
        let chunk = LIST_TABLES.get(table)?.get(line / CHUNK_LINES as u32)?;
        let (lines, _) = chunk.as_chunks();
        Some(&lines[line as usize % CHUNK_LINES])
    }
}

/// What the list says of an address, as the bits of a [`Listed`].
///
/// Global, and never inlined: the verifier looks at such a function once and by itself. The many ways through it, each
/// continued by all the ways through the rest of the program, would be more than it takes.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_listed(is_ipv6: u64, high: u64, low: u64) -> u64 {
    match List::of_family(is_ipv6 != 0) {
        Some(list) => find(&list, high, low).to_bits(),
        None => Listed::Unlisted.to_bits(),
    }
}
