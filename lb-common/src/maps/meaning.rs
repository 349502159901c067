//! What the bytes of one map mean, as a number to compare with another version's.

use super::{FNV_OFFSET, MapShape, mix_number, mix_text};
use crate::types::DEFINITIONS;
use crate::verdict::NAMES;

/// The counters of reasons are told apart by their indices.
const BY_REASON: &str = "REASONS";

/// Structs inside structs; deeper than any there is.
const DEEPEST: usize = 8;

/// Equal of two versions whose maps of this name hold the same bytes for the same thing; how many there may be does not
/// matter. Where it differs, an element of one version says nothing to the other.
pub fn meaning(map: &MapShape) -> u64 {
    let mut hash = mix_text(mix_text(FNV_OFFSET, map.name), map.value);
    hash = mix_number(mix_number(hash, map.key_bytes), map.value_bytes);
    if map.name == BY_REASON {
        hash = NAMES.iter().fold(hash, |hash, name| mix_text(hash, name));
    }
    mix_definitions(hash, map.value, DEFINITIONS, DEEPEST)
}

/// Mixes the definitions in that `text` names, and those that they name.
fn mix_definitions(hash: u64, text: &str, definitions: &[&str], depth: usize) -> u64 {
    if depth == 0 {
        return hash;
    }
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.filter_map(|word| definition_of(word, definitions)).fold(hash, |hash, (definition, fields)| {
        mix_definitions(mix_text(hash, definition), fields, definitions, depth - 1)
    })
}

/// The whole definition, and what follows its name.
fn definition_of<'a>(name: &str, definitions: &[&'a str]) -> Option<(&'a str, &'a str)> {
    definitions.iter().find_map(|text| match text.split_once(' ') {
        Some((defined, fields)) if defined == name => Some((*text, fields)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::PINNED;

    const OF_TWO: [&str; 3] = ["Outer one:Inner two:u32", "Inner a:u64", "Other b:u8"];

    #[test]
    fn a_field_of_a_struct_inside_the_element_counts_and_another_maps_does_not() {
        let before = mix_definitions(FNV_OFFSET, "Outer", &OF_TWO, DEEPEST);
        let inside = mix_definitions(FNV_OFFSET, "Outer", &[OF_TWO[0], "Inner b:u64", OF_TWO[2]], DEEPEST);
        let elsewhere = mix_definitions(FNV_OFFSET, "Outer", &[OF_TWO[0], OF_TWO[1], "Other c:u8"], DEEPEST);
        assert_ne!(before, inside);
        assert_eq!(before, elsewhere);
    }

    #[test]
    fn every_map_means_something_of_its_own_whatever_its_capacity() {
        for map in PINNED {
            assert_eq!(meaning(map), meaning(&MapShape { entries: map.entries + 1, ..*map }), "{}", map.name);
            let others = PINNED.iter().filter(|other| other.name != map.name);
            assert!(others.map(meaning).all(|other| other != meaning(map)), "{}", map.name);
        }
    }

    #[test]
    fn a_struct_that_names_itself_ends() {
        assert_ne!(mix_definitions(FNV_OFFSET, "Loop", &["Loop next:Loop"], DEEPEST), FNV_OFFSET);
    }
}
