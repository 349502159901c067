//! Which layout the maps have: this version's, or in tests another's.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use lb_common::maps::{self, LAYOUT, MapShape, PINNED};

/// How the maps differ from this version's, so that an upgrade and a rollback can be tried with one build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OtherVersion {
    /// Maps whose bytes mean something else.
    pub changed: Vec<&'static str>,
    /// Maps with another capacity.
    pub entries: Vec<(&'static str, u32)>,
}

/// What the maps of one version look like.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    hash: u64,
    other: OtherVersion,
}

impl Layout {
    pub(crate) fn of(other: &OtherVersion) -> Self {
        let differs = *other != OtherVersion::default();
        let hash = if differs { LAYOUT ^ number(other) } else { LAYOUT };
        Self { hash, other: other.clone() }
    }

    /// Names the folder of the pins.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Every map that outlives the controller.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = MapShape> {
        PINNED.iter().map(|shape| MapShape { entries: self.entries(shape), ..*shape })
    }

    /// See [`maps::meaning`].
    pub(crate) fn meaning(&self, shape: &MapShape) -> u64 {
        let meaning = maps::meaning(shape);
        if self.other.changed.contains(&shape.name) { !meaning } else { meaning }
    }

    fn entries(&self, shape: &MapShape) -> usize {
        let other = self.other.entries.iter().find(|(name, _)| *name == shape.name);
        other.map_or(shape.entries, |(_, entries)| *entries as usize)
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::of(&OtherVersion::default())
    }
}

fn number(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_meaning_or_capacity_is_another_layout_and_touches_no_other_map() {
        let changed = Layout::of(&OtherVersion { changed: vec!["FLOWS"], ..OtherVersion::default() });
        let larger = Layout::of(&OtherVersion { entries: vec![("BLOCKS", 9)], ..OtherVersion::default() });
        let usual = Layout::default();
        assert_eq!(usual.hash(), LAYOUT);
        assert!(changed.hash() != usual.hash() && larger.hash() != usual.hash() && changed.hash() != larger.hash());
        for (shape, (of_changed, of_larger)) in usual.shapes().zip(changed.shapes().zip(larger.shapes())) {
            assert_eq!(changed.meaning(&of_changed) != usual.meaning(&shape), shape.name == "FLOWS");
            assert_eq!(of_larger.entries, if shape.name == "BLOCKS" { 9 } else { shape.entries });
        }
    }
}
