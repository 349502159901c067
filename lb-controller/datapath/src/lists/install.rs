//! Writing lists into maps.

use std::array;
use std::time::SystemTime;

use aya::maps::{Array, MapData};
use lb_common::lists::{
    CHUNK_LINES, Chunk, FAMILIES, LINE_SLOTS, ROOT_BLOCK_WORDS, ROOT_BLOCKS, RootBlock, RootHeader,
};
use lb_common::maps as names;
use lb_common::types::{Control, ListFacts};

use super::{CompiledList, CompiledLists};
use crate::error::MapError;
use crate::load::Datapath;
use crate::maps::{Maps, failed};

/// Tables of any size may stand in the outer map.
const BPF_F_INNER_MAP: u32 = 1 << 12;

const NO_LIST: ListFacts = ListFacts { denied: 0, allowed: 0, memory_bytes: 0, loaded_unix_s: 0, table: 0 };

impl Datapath {
    /// Puts `lists` in the place of whatever was listed, each family at once: a packet is judged by the whole old list
    /// or by the whole new one. The memory of the old ones is free when this returns.
    ///
    /// Creates maps, which needs CAP_BPF where the kernel keeps bpf(2) from others (`unprivileged_bpf_disabled`).
    pub fn replace_lists(&mut self, lists: &CompiledLists) -> Result<(), MapError> {
        for (family, list) in (0..).zip(&lists.families) {
            match list {
                Some(list) => publish(&mut self.maps, &mut self.control, family, list)?,
                None => remove(&mut self.maps, &mut self.control, family)?,
            }
        }
        Ok(())
    }
}

/// The root names its table, so exchanging the root exchanges both. The kernel returns from that only when the packets
/// that began with the old root are over; then nobody reads the old table.
///
/// The hints are those of both lists meanwhile: one that is missing would hide what the list in force says.
fn publish(maps: &mut Maps, control: &mut Control, family: u32, list: &CompiledList) -> Result<(), MapError> {
    let [idle, used] = idle_and_used(maps, family)?;
    let table = new_table(list)?;
    maps.list_tables.set(idle, &table)?;
    let root = new_root(list, idle)?;
    let loaded_unix_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let before = control.list_hints[family as usize];
    let hints = list.hints();
    hint(maps, control, family, array::from_fn(|word| before[word] | hints[word]))?;
    maps.list_roots.set(family, &root)?;
    hint(maps, control, family, hints)?;
    let facts = ListFacts {
        denied: list.denied,
        allowed: list.allowed,
        memory_bytes: list.memory_bytes(),
        loaded_unix_s,
        table: idle.into(),
    };
    maps.list_facts.set(family, &facts)?;
    maps.list_tables.clear(used)
}

/// Returns when every packet that was under way is over. The kernel waits for them when a table is taken out, here one
/// that no root names.
pub(crate) fn await_packets(maps: &mut Maps) -> Result<(), MapError> {
    let [idle, _] = idle_and_used(maps, 0)?;
    let create = Array::<_, Chunk>::create(1, BPF_F_INNER_MAP);
    maps.list_tables.set(idle, &create.map_err(failed("create", names::LIST_TABLES))?)?;
    maps.list_tables.clear(idle)
}

/// Of the two tables of a family.
fn idle_and_used(maps: &Maps, family: u32) -> Result<[u32; 2], MapError> {
    let tables = [0, 1].map(|number| table_index(family, number));
    let facts = maps.list_facts.get(family)?;
    Ok(if facts.table == u64::from(tables[0]) { [tables[1], tables[0]] } else { tables })
}

fn hint(maps: &mut Maps, control: &mut Control, family: u32, hints: RootBlock) -> Result<(), MapError> {
    control.list_hints[family as usize] = hints;
    maps.control.set(0, control)
}

fn remove(maps: &mut Maps, control: &mut Control, family: u32) -> Result<(), MapError> {
    maps.list_roots.clear(family)?;
    hint(maps, control, family, [0; ROOT_BLOCK_WORDS])?;
    maps.list_facts.set(family, &NO_LIST)?;
    for number in 0..2 {
        maps.list_tables.clear(table_index(family, number))?;
    }
    Ok(())
}

/// Each family has two tables.
const fn table_index(family: u32, number: u32) -> u32 {
    number * FAMILIES as u32 + family
}

fn new_table(list: &CompiledList) -> Result<Array<MapData, Chunk>, MapError> {
    let (chunks, _) = list.lines.as_flattened().as_chunks::<{ CHUNK_LINES * LINE_SLOTS }>();
    let create = Array::create(chunks.len() as u32, BPF_F_INNER_MAP);
    let mut table: Array<_, Chunk> = create.map_err(failed("create", names::LIST_TABLES))?;
    for (index, chunk) in (0..).zip(chunks) {
        table.set(index, chunk, 0).map_err(failed("fill", names::LIST_TABLES))?;
    }
    Ok(table)
}

fn new_root(list: &CompiledList, table: u32) -> Result<Array<MapData, RootBlock>, MapError> {
    let mut words = list.root.clone();
    RootHeader { table, ..list.header }.write(&mut words);
    let mut root: Array<_, RootBlock> =
        Array::create(ROOT_BLOCKS as u32, 0).map_err(failed("create", names::LIST_ROOTS))?;
    let (blocks, _) = words.as_chunks::<ROOT_BLOCK_WORDS>();
    for (index, block) in (0..).zip(blocks) {
        root.set(index, block, 0).map_err(failed("fill", names::LIST_ROOTS))?;
    }
    Ok(root)
}
