//! Connections that are known, found by either of their keys.

use lb_common::nat::{IS_REPLY, is_ready, touched};
use lb_common::types::{NatKey, NatSlot};

use crate::maps::nat;

/// Nobody takes its slot while the packet is on its way.
pub(crate) struct Found {
    pub(crate) number: u32,
    pub(crate) word: u64,
    pub(crate) slot: &'static NatSlot,
    /// By the backend's key.
    pub(crate) is_reply: bool,
}

#[inline(always)]
pub(crate) fn find(key: &NatKey) -> Option<Found> {
    let value = nat::find(key)?;
    let (number, is_reply) = (value & !IS_REPLY, value & IS_REPLY != 0);
    let word = touch(number)?;
    let slot = nat::slot(number)?;
    // The slot may have become another connection's since the index was read.
    let is_same = if is_reply { slot.reply_key().is(key) } else { slot.client_key().is(key) };
    is_same.then_some(Found { number, word, slot, is_reply })
}

#[inline(always)]
fn touch(number: u32) -> Option<u64> {
    let now_steps = nat::now_steps();
    let seen = nat::word(number)?;
    let word = touched(seen, now_steps);
    if !is_ready(seen) {
        return None;
    }
    if seen == word || nat::exchange(number, seen, word) {
        return Some(word);
    }
    // Somebody else touched it, or took it and made it anew: a moment ago either way.
    let word = nat::word(number)?;
    is_ready(word).then_some(word)
}

/// Brings the connection's state up to date. Writes only what changes; of CPUs that do so at once, one in four tries
/// succeeds, and a FIN that is not noted costs a longer wait for the slot.
#[inline(always)]
pub(crate) fn change(found: &Found, to: impl Fn(u64) -> u64) {
    const MAX_RACES: u32 = 4;
    let mut seen = found.word;
    let mut races = 0;
    while races < MAX_RACES {
        let word = to(seen);
        if word == seen || nat::exchange(found.number, seen, word) {
            return;
        }
        match nat::word(found.number) {
            Some(word) if is_ready(word) => seen = word,
            _ => return,
        }
        races += 1;
    }
}
