//! Base32 (RFC 4648 §6) for codes that people read off one screen and type at another: no case, and no 0, 1, 8 or 9 to
//! confuse with letters.

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Whole groups of five bytes alone: codes have no padding.
pub(in crate::stepup) fn encode(bytes: &[u8]) -> String {
    debug_assert_eq!(bytes.len() % 5, 0);
    let group = |group: &[u8]| {
        let number = group.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        (0..8).rev().map(move |at| char::from(ALPHABET[(number >> (5 * at) & 31) as usize])).collect::<String>()
    };
    bytes.chunks(5).map(group).collect()
}

/// The one spelling of a code of `bytes` bytes, typed in any case, with spaces or hyphens; `None` for what is no code.
pub(in crate::stepup) fn normalized(text: &str, bytes: usize) -> Option<String> {
    let code: String =
        text.chars().filter(|char| !matches!(char, ' ' | '-')).map(|char| char.to_ascii_uppercase()).collect();
    let is_code = code.len() == bytes / 5 * 8 && code.bytes().all(|byte| ALPHABET.contains(&byte));
    is_code.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_that_need_no_padding() {
        assert_eq!(encode(b""), "");
        assert_eq!(encode(b"fooba"), "MZXW6YTB");
    }

    #[test]
    fn a_code_has_one_spelling_whatever_is_typed() {
        for typed in ["MZXW6YTB", "mzxw6ytb", "MZXW-6YTB", " mzxw 6ytb "] {
            assert_eq!(normalized(typed, 5).as_deref(), Some("MZXW6YTB"), "{typed}");
        }
        for typed in ["", "MZXW6YT", "MZXW6YTBA", "MZXW0YTB", "MZXW6YT=", "МZXW6YTB", "MZXW6YTB\n"] {
            assert_eq!(normalized(typed, 5), None, "{typed:?}");
        }
    }
}
