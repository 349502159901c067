//! SSH's data types (RFC 4251 §5), read from a slice.

use super::Refusal;

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn number(&mut self) -> Result<u32, Refusal> {
        self.bytes().map(u32::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'b [u8], Refusal> {
        let length = usize::try_from(self.number()?).map_err(|_| Refusal::Malformed)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(string)
    }

    pub(super) fn text(&mut self) -> Result<&'b str, Refusal> {
        str::from_utf8(self.string()?).map_err(|_| Refusal::Malformed)
    }

    /// A positive number, without the zero byte that keeps its sign. One number has one spelling.
    pub(super) fn positive(&mut self) -> Result<&'b [u8], Refusal> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => Ok(rest),
            bytes @ [1..=0x7f, ..] => Ok(bytes),
            _ => Err(Refusal::Malformed),
        }
    }

    /// Nothing may be left: it would be signed by nobody, or read by somebody else.
    pub(super) fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::Malformed) }
    }
}

pub(super) fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("what is signed is far shorter than 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(string);
}
