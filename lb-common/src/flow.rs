//! The flow cache: which backend a connection was given, so that it stays there while backends come and go.
//!
//! It is a cache, and it is under attack: a flood of new flows must not push out those that are known to live. A flow
//! is *confirmed* when a second packet of it that is no SYN has come; only an unconfirmed flow gives way to a new one.
//! Nothing expires by itself. When all flows of a bucket are confirmed and a new one asks for room, those that were not
//! used since the bucket was last looked through lose their confirmation, at most once in [`AGE_SECONDS`].
//!
//! A bucket is one cache line: a word of flags, then [`SLOTS`] words of 48 bits tag and 16 bits backend.

use crate::maps::FLOW_BUCKETS;
use crate::types::FlowBucket;

/// Flows of a bucket.
pub const SLOTS: usize = 7;

/// A confirmed flow that was idle for this long, and for twice as long at most, gives way.
pub const AGE_SECONDS: u32 = 60;

const BACKEND_BITS: u32 = 16;
const BACKEND_MASK: u64 = (1 << BACKEND_BITS) - 1;

/// In the word of flags: a bit for each slot, then where the next new flow goes, then when the slots last aged.
const CONFIRMED: u32 = 0;
const USED: u32 = 8;
const NEXT: u32 = 16;
const AGED: u32 = 32;
const ALL_SLOTS: u64 = (1 << SLOTS) - 1;

/// The bucket of a connection.
#[inline(always)]
pub const fn bucket(hash: u64) -> u32 {
    (hash % FLOW_BUCKETS as u64) as u32
}

/// What distinguishes a connection from others in its bucket; the bits that [`bucket`] did not use, in their place in a
/// slot's word.
#[inline(always)]
const fn tag(hash: u64) -> u64 {
    // Never zero, which a free slot is.
    hash & !BACKEND_MASK | 1 << 63
}

/// A known flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The bit of its slot.
    pub slots: u64,
    pub backend: u16,
}

impl FlowBucket {
    pub const EMPTY: Self = Self { words: [0; 8] };

    /// The flow with this connection hash.
    #[inline(always)]
    pub fn find(&self, hash: u64) -> Option<Flow> {
        let tag = tag(hash);
        let mut index = 0;
        while index < SLOTS {
            // A free slot is all zero: no tag matches it. A backend's number is stored one higher.
            let difference = self.words[index + 1] ^ tag;
            if difference >> BACKEND_BITS == 0 {
                return Some(Flow { slots: 1 << index, backend: (difference as u16).wrapping_sub(1) });
            }
            index += 1;
        }
        None
    }

    /// Notes that a packet other than a SYN came for a known flow. Writes only what is not so yet: a flow that is busy
    /// costs no store.
    #[inline(always)]
    pub fn confirm(&mut self, flow: Flow) {
        let bits = flow.slots << CONFIRMED | flow.slots << USED;
        if self.words[0] & bits != bits {
            self.words[0] |= bits;
        }
    }

    /// Notes that the connection ends: a SYN may take its place.
    #[inline(always)]
    pub fn close(&mut self, flow: Flow) {
        self.words[0] &= !(flow.slots << CONFIRMED);
    }

    /// A SYN of a flow that is known and not confirmed is taken for a new flow's first or repeated packet.
    #[inline(always)]
    pub const fn is_confirmed(&self, flow: Flow) -> bool {
        self.words[0] & flow.slots << CONFIRMED != 0
    }

    /// Forgets a flow whose backend is gone.
    #[inline(always)]
    pub fn forget(&mut self, flow: Flow) {
        self.close(flow);
        let mut index = 0;
        while index < SLOTS {
            if flow.slots >> index & 1 != 0 {
                self.words[index + 1] = 0;
            }
            index += 1;
        }
    }

    /// Remembers a new flow, in the place of an unconfirmed one. `false` if all others are confirmed and used: then it
    /// goes where its hash leads, packet by packet, and is not remembered.
    #[inline(always)]
    pub fn insert(&mut self, hash: u64, backend: u16, now_seconds: impl FnOnce() -> u32) -> bool {
        let mut flags = self.words[0];
        if flags & ALL_SLOTS == ALL_SLOTS {
            flags = aged(flags, now_seconds());
            self.words[0] = flags;
            if flags & ALL_SLOTS == ALL_SLOTS {
                return false;
            }
        }
        let slot = unconfirmed(flags);
        self.words[word(slot)] = tag(hash) | (backend as u64 + 1);
        let next = (slot + 1) & 7;
        self.words[0] = flags & !(1 << (USED + slot)) & !(7 << NEXT) | (next as u64) << NEXT;
        true
    }
}

/// The word of a slot. The mask tells the verifier what callers know.
#[inline(always)]
const fn word(slot: u32) -> usize {
    (slot as usize + 1) & 7
}

/// The first slot without confirmation, beginning where the last search ended. There must be one.
#[inline(always)]
fn unconfirmed(flags: u64) -> u32 {
    let next = (flags >> NEXT & 7) as u32;
    let open = !flags & ALL_SLOTS;
    let after = open >> next << next;
    let candidates = if after != 0 { after } else { open };
    lowest_bit(candidates)
}

/// The number of the lowest bit that is set, of seven. The target has no instruction that counts zeros; a product puts
/// another three bits on top for each bit (a de Bruijn sequence), and a packed table says which.
#[inline(always)]
const fn lowest_bit(bits: u64) -> u32 {
    const SEQUENCE: u64 = 0b0001_0111;
    /// Four bits for each three on top, from right to left.
    const NUMBERS: u64 = 0x5637_4210;
    let lowest = bits & bits.wrapping_neg();
    (NUMBERS >> ((lowest.wrapping_mul(SEQUENCE) >> 5 & 7) * 4) & 7) as u32
}

#[inline(always)]
fn aged(flags: u64, now_seconds: u32) -> u64 {
    let aged_seconds = (flags >> AGED) as u32;
    if now_seconds.wrapping_sub(aged_seconds) < AGE_SECONDS {
        return flags;
    }
    let kept = flags >> CONFIRMED & flags >> USED & ALL_SLOTS;
    kept << CONFIRMED | flags & 7 << NEXT | (now_seconds as u64) << AGED
}

#[cfg(test)]
mod tests;
