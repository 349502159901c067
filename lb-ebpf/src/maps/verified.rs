//! The sources that finished a step-up.
#![expect(unsafe_code, reason = "map elements are reached by raw pointers; the verifier checks every access")]

use aya_ebpf::btf_maps::{Array, LruHashMap};
use aya_ebpf::macros::btf_map;
use lb_common::Source;
use lb_common::maps::{MAX_VERIFIED, VERIFIED_HINT_WORDS};
use lb_common::types::{Limit, VerifiedSource};

use super::{SourceKey, monotonic_ns};

#[btf_map]
static VERIFIED: LruHashMap<SourceKey, VerifiedSource, MAX_VERIFIED> = LruHashMap::new();
#[btf_map]
static VERIFIED_HINTS: Array<u64, VERIFIED_HINT_WORDS> = Array::new();

/// Charges one packet of `source` to its own limit if its verification is alive. `None`: not verified;
/// `Some(false)`: verified, and over that limit too.
#[inline(always)]
pub(crate) fn charge(source: &Source, limit: &Limit) -> Option<bool> {
    let entry = VERIFIED.get_ptr_mut(source.key())?;
    // SAFETY: the element stays readable for the program's run. The LRU may give it to another source meanwhile: then
    // one packet is charged to a neighbour.
    unsafe {
        if (&raw const (*entry).verified_until_ns).read_volatile() <= monotonic_ns() {
            return None;
        }
        Some(super::charge(&raw mut (*entry).theoretical_arrival_ps, limit))
    }
}

/// `false` if the source is certainly not verified: one inlined load instead of the call that looking it up is, for
/// every packet of a flood.
#[inline(always)]
pub(crate) fn may_be(source: &Source) -> bool {
    let (word, bit) = source.verified_hint();
    match VERIFIED_HINTS.get_ptr(word) {
        // SAFETY: an element of an array map never goes away; an aligned u64 is never read half-written.
        Some(hints) => unsafe { hints.read_volatile() & bit != 0 },
        None => true,
    }
}
