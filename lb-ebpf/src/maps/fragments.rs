//! First fragments, remembered.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use lb_common::fragment::{self, FRAGMENT_SETS, First, Place, SET_WORDS};
use lb_common::types::FragmentSet;

use super::limiter_clock_ns;

#[btf_map]
static FRAGMENTS: Array<FragmentSet, FRAGMENT_SETS> = Array::new();

/// What is remembered at `place`; `None` if nothing is.
#[inline(always)]
pub(crate) fn find(place: Place) -> Option<First> {
    let set = FRAGMENTS.get_ptr(place.set)?;
    // SAFETY: an element of an array map never goes away.
    fragment::find(&unsafe { read(set) }, place, limiter_clock_ns())
}

#[inline(always)]
pub(crate) fn remember(place: Place, first: First) {
    let Some(set) = FRAGMENTS.get_ptr_mut(place.set) else {
        return;
    };
    // SAFETY: an element of an array map never goes away; `entry` is below half of the words' number. Words are written
    // one by one while other CPUs read them: `fragment` says why that does no harm.
    unsafe {
        let (entry, words) = fragment::remember(&read(set), place, limiter_clock_ns(), first);
        let place = (&raw mut (*set).words).cast::<u64>().add((2 * entry) & (SET_WORDS - 1));
        place.write_volatile(words[0]);
        place.add(1).write_volatile(words[1]);
    }
}

/// # Safety
/// `set` points to a map element.
#[inline(always)]
unsafe fn read(set: *const FragmentSet) -> [u64; SET_WORDS] {
    // SAFETY: by this function's contract.
    let words = unsafe { &raw const (*set).words }.cast::<u64>();
    // SAFETY: each index is inside the array; an aligned u64 is never read half-written.
    core::array::from_fn(|index| unsafe { words.add(index).read_volatile() })
}
