//! Identifiers that nobody can guess.

use std::fmt;

/// 128 random bits: a session, a login or a transaction. Written as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RandomId([u8; 16]);

impl RandomId {
    pub(crate) const HEX_LENGTH: usize = 32;

    pub(crate) fn new() -> RandomId {
        RandomId(random_bytes())
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> RandomId {
        RandomId(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Only the spelling that [`Display`](fmt::Display) writes, so that one id has one URL.
    pub(crate) fn parse(text: &str) -> Option<RandomId> {
        if text.len() != RandomId::HEX_LENGTH {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(RandomId(bytes))
    }
}

impl fmt::Display for RandomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Bytes from the operating system's generator. Without it no secret can be made, so its failure ends the process.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator answers");
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_own_spelling_and_no_other() {
        let id = RandomId::new();
        let text = id.to_string();
        assert_eq!(RandomId::parse(&text), Some(id));
        for other in [&text[1..], &format!("{text}0"), &"A".repeat(32), &"g".repeat(32), "", &"é".repeat(16)] {
            assert_eq!(RandomId::parse(other), None, "{other}");
        }
    }
}
