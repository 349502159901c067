//! Connections through NAT, out of another version's maps and into fresh ones while the earlier programs still translate.
//!
//! A connection may stand anywhere, since its keys say where, so that maps of another capacity take over what fits. What
//! begins, ends or answers between the copy and the exchange of the programs is caught up with by copying once more.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use lb_common::maps as names;
use lb_common::nat::{self, BLOCK_WORDS, IS_REPLY, STEP_BITS};
use lb_common::types::{NatKey, NatPolicy, NatSlot, NatWords, Shared};

use crate::clock::monotonic_ns;
use crate::error::MapError;
use crate::maps::{Table, errno, failed, open, table};

/// Connections with less time left are as good as over: their slots might be another's before they are read.
const LEAST_STEPS_LEFT: u32 = 3;

struct Translations {
    words: Table<NatWords>,
    slots: Table<NatSlot>,
    index: HashMap<MapData, <NatKey as Shared>::Bytes, u32>,
}

/// Copies the connections that live. Returns how many are in `to` now, and how many found no room there.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(usize, usize), MapError> {
    let policy = table::<NatPolicy>(from, names::NAT_POLICY)?.get(0)?;
    let (from, mut to) = (Translations::open(from)?, Translations::open(to)?);
    let mut there = to.words.all()?;
    let mut rooms = Rooms::default();
    let (mut copied, mut left_out) = (0, 0);
    for (block, NatWords { words }) in (0..).zip(from.words.all()?) {
        for (place, word) in (0..).zip(words).filter(|(_, word)| lives(*word, &policy)) {
            let slot = from.slots.get(block * BLOCK_WORDS as u32 + place)?;
            match to.place_of(&slot)?.or_else(|| rooms.next(&there)) {
                Some(room) if to.put(room, &slot)? => {
                    set_word(&mut there, room, word);
                    copied += 1;
                }
                _ => left_out += 1,
            }
        }
    }
    for (block, words) in (0..).zip(&there) {
        to.words.set(block, words)?;
    }
    Ok((copied, left_out))
}

fn lives(word: u64, policy: &NatPolicy) -> bool {
    let now_steps = (monotonic_ns() >> STEP_BITS) as u32;
    nat::is_ready(word) && !nat::is_free(word, now_steps.wrapping_add(LEAST_STEPS_LEFT), policy)
}

impl Translations {
    fn open(folder: &Path) -> Result<Self, MapError> {
        Ok(Self {
            words: table(folder, names::NAT_WORDS)?,
            slots: table(folder, names::NAT_SLOTS)?,
            index: open(folder, names::NAT_INDEX)?,
        })
    }

    /// Where the connection stands already.
    fn place_of(&self, slot: &NatSlot) -> Result<Option<u32>, MapError> {
        match self.index.get(&slot.client_key().to_bytes(), 0) {
            Ok(place) => Ok(Some(place & !IS_REPLY)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", names::NAT_INDEX)(error)),
        }
    }

    /// `false` if its keys found no room.
    fn put(&mut self, place: u32, slot: &NatSlot) -> Result<bool, MapError> {
        self.slots.set(place, slot)?;
        Ok(self.lead(&slot.client_key(), place)? && self.lead(&slot.reply_key(), place | IS_REPLY)?)
    }

    fn lead(&mut self, key: &NatKey, place: u32) -> Result<bool, MapError> {
        match self.index.insert(key.to_bytes(), place, 0) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(nix::libc::E2BIG) => Ok(false),
            Err(error) => Err(failed("write", names::NAT_INDEX)(error)),
        }
    }
}

/// Free slots, from the first on.
#[derive(Default)]
struct Rooms {
    looked_at: usize,
}

impl Rooms {
    fn next(&mut self, blocks: &[NatWords]) -> Option<u32> {
        while let Some(block) = blocks.get(self.looked_at / BLOCK_WORDS) {
            let place = self.looked_at;
            self.looked_at += 1;
            if block.words[place % BLOCK_WORDS] == 0 {
                return u32::try_from(place).ok();
            }
        }
        None
    }
}

fn set_word(blocks: &mut [NatWords], place: u32, word: u64) {
    let place = place as usize;
    if let Some(block) = blocks.get_mut(place / BLOCK_WORDS) {
        block.words[place % BLOCK_WORDS] = word;
    }
}
