//! Connections through NAT. `lb_common::nat` says why the order of reads and writes is as it is.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::maps::MAX_SERVICES;
use lb_common::nat::{self, BLOCK_WORDS, DEFAULT_CAPACITY, STEP_BITS};
use lb_common::types::{NatCounters, NatKey, NatPolicy, NatSlot, NatWords};

use super::{compare_and_swap, forget_number, monotonic_ns};

// User space gives the three their lengths. Keys take memory as they come: two for each connection.
#[btf_map]
static NAT_SLOTS: Array<NatSlot, DEFAULT_CAPACITY> = Array::new();
#[btf_map]
static NAT_WORDS: Array<NatWords, { DEFAULT_CAPACITY / BLOCK_WORDS }> = Array::new();
#[btf_map]
static NAT_INDEX: HashMap<NatKey, u32, { 2 * DEFAULT_CAPACITY }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map]
static NAT_POLICY: Array<NatPolicy, 1> = Array::new();
#[btf_map]
static NAT_STATS: PerCpuArray<NatCounters, MAX_SERVICES> = PerCpuArray::new();

#[inline(always)]
pub(crate) fn policy() -> Option<&'static NatPolicy> {
    NAT_POLICY.get(0)
}

#[inline(always)]
pub(crate) fn now_steps() -> u32 {
    (monotonic_ns() >> STEP_BITS) as u32
}

/// The number of a slot, with [`nat::IS_REPLY`] where the key says so.
#[inline(always)]
pub(crate) fn find(key: &NatKey) -> Option<u32> {
    let value = NAT_INDEX.get_ptr(key)?;
    // SAFETY: the element stays readable for the program's run; an aligned u32 is never read half-written.
    Some(unsafe { value.read_volatile() })
}

/// `false` if the key is there already, or there is no memory for it.
#[inline(always)]
pub(crate) fn insert(key: &NatKey, value: u32) -> bool {
    NAT_INDEX.insert(key, value, BPF_NOEXIST as u64).is_ok()
}

#[inline(always)]
pub(crate) fn remove(key: &NatKey) {
    // One that is gone needs no removal.
    let _ = NAT_INDEX.remove(key);
}

#[inline(always)]
fn word_place(slot: u32) -> Option<*mut u64> {
    let block = NAT_WORDS.get_ptr_mut(slot / BLOCK_WORDS as u32)?;
    // SAFETY: the index is below the words' number.
    Some(unsafe { (&raw mut (*block).words).cast::<u64>().add(slot as usize % BLOCK_WORDS) })
}

#[inline(always)]
pub(crate) fn word(slot: u32) -> Option<u64> {
    // SAFETY: an element of an array map never goes away; an aligned u64 is never read half-written.
    word_place(slot).map(|place| unsafe { place.read_volatile() })
}

/// Writes `new` if the word is `seen`, at once for all CPUs; `false` if it was not.
#[inline(always)]
pub(crate) fn exchange(slot: u32, seen: u64, new: u64) -> bool {
    match word_place(slot) {
        // SAFETY: an aligned u64 in a map element.
        Some(place) => unsafe { compare_and_swap(place, seen, new) == seen },
        None => false,
    }
}

/// What is in a slot: to be read by whoever has touched its word, or holds it.
#[inline(always)]
pub(crate) fn slot(slot: u32) -> Option<&'static NatSlot> {
    NAT_SLOTS.get(slot)
}

/// To be called by whoever holds the slot.
#[inline(always)]
pub(crate) fn write_slot(slot: u32, content: &NatSlot) -> Option<()> {
    let place = NAT_SLOTS.get_ptr_mut(slot)?;
    // SAFETY: nobody else writes a slot that is held, and nobody reads it.
    unsafe { place.write(*content) };
    Some(())
}

/// Where the client's packets come from now. CPUs that write it at once write the same, or differ because it changes.
#[inline(always)]
pub(crate) fn write_link(slot: u32, reply_link: [u32; 3], interface: u32) {
    if let Some(place) = NAT_SLOTS.get_ptr_mut(slot) {
        // SAFETY: an element of an array map never goes away.
        unsafe {
            (&raw mut (*place).reply_link).write_volatile(reply_link);
            (&raw mut (*place).interface).write_volatile(interface);
        }
    }
}

#[inline(always)]
pub(crate) fn write_backend_sequence(slot: u32, sequence: u32) {
    if let Some(place) = NAT_SLOTS.get_ptr_mut(slot) {
        // SAFETY: an element of an array map never goes away.
        unsafe { (&raw mut (*place).backend_sequence).write_volatile(sequence) };
    }
}

/// A slot that may be taken, of those in a block, and its word.
#[inline(always)]
pub(crate) fn free_in(block: u32, now_steps: u32, policy: &NatPolicy) -> Option<(u32, u64)> {
    let place = NAT_WORDS.get_ptr(block)?;
    // SAFETY: an element of an array map never goes away.
    let words = unsafe { &raw const (*place).words }.cast::<u64>();
    let mut index = 0;
    while index < BLOCK_WORDS {
        // SAFETY: the index is inside the array; an aligned u64 is never read half-written.
        let word = unsafe { words.add(index).read_volatile() };
        if nat::is_free(word, now_steps, policy) {
            break;
        }
        index += 1;
    }
    let index = forget_number(index as u64) as usize;
    if index >= BLOCK_WORDS {
        return None;
    }
    // SAFETY: as above.
    let word = unsafe { words.add(index).read_volatile() };
    nat::is_free(word, now_steps, policy).then_some((block * BLOCK_WORDS as u32 + index as u32, word))
}

#[inline(always)]
pub(crate) fn update_counters(service: u16, update: impl FnOnce(&mut NatCounters)) {
    if let Some(counters) = NAT_STATS.get_ptr_mut(service as u32) {
        // SAFETY: a per-CPU element; XDP runs are not preempted by another XDP run on the same CPU.
        update(unsafe { &mut *counters });
    }
}
