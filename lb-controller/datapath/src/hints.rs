//! Bitmaps that spare the programs a lookup: a bit says that a source may be listed, its absence that it is not.

use crate::error::MapError;
use crate::maps::Table;

/// A word's index and a bit in it.
pub(crate) type Hint = (u32, u64);

pub(crate) fn set(hints: &mut Table<u64>, (word, bit): Hint) -> Result<(), MapError> {
    let present = hints.get(word)?;
    if present & bit == 0 { hints.set(word, &(present | bit)) } else { Ok(()) }
}

/// Clears what was `present` and is not `needed`, and sets what is needed and missing.
///
/// A hint that a program sets in the very moment its word is written here is lost, and comes back with the next call:
/// until then its source passes for one that is not listed.
pub(crate) fn keep_only(
    hints: &mut Table<u64>,
    present: &[u64],
    needed: impl Iterator<Item = Hint>,
) -> Result<(), MapError> {
    let mut words = vec![0; present.len()];
    for (word, bit) in needed {
        words[word as usize] |= bit;
    }
    for (index, (present, needed)) in (0..).zip(present.iter().zip(words)) {
        if *present == needed {
            continue;
        }
        let now = hints.get(index)?;
        hints.set(index, &(now & !(present & !needed) | needed))?;
    }
    Ok(())
}
