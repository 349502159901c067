//! JSON pointers (RFC 6901), read once at load.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// The place of a fact in a JSON document, such as `/order/lines/0/amount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    text: String,
    segments: Vec<String>,
}

impl Pointer {
    /// `Err` holds what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Pointer, &'static str> {
        const MOST_SEGMENTS: usize = 16;
        let rest = text.strip_prefix('/').ok_or("a JSON pointer starts with `/`, as in `/amount`")?;
        let segments = rest.split('/').map(unescape).collect::<Option<Vec<String>>>();
        let segments = segments.ok_or("in a JSON pointer `~` is written `~0`, and a `/` inside a name `~1`")?;
        if segments.len() > MOST_SEGMENTS {
            return Err("at most 16 names deep");
        }
        Ok(Pointer { text: text.to_owned(), segments })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn segments(&self) -> &[String] {
        &self.segments
    }
}

fn unescape(segment: &str) -> Option<String> {
    let mut name = String::with_capacity(segment.len());
    let mut chars = segment.chars();
    while let Some(char) = chars.next() {
        name.push(match char {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(name)
}

/// Whether a case-insensitive reader takes `written` for `name` although they differ (Go's `encoding/json` does, with
/// the long s and the Kelvin sign folded too).
pub(super) fn mistakable(written: &str, name: &str) -> bool {
    written != name && folded(written.chars()).eq(folded(name.chars()))
}

/// Without a difference between capital and small letters.
pub(super) fn folded<I: Iterator<Item = char>>(chars: I) -> impl Iterator<Item = char> {
    chars.flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_unescaped_once() {
        let rows: &[(&str, &[&str])] = &[
            ("/amount", &["amount"]),
            ("/order/lines/0/amount", &["order", "lines", "0", "amount"]),
            ("/a~1b/c~0d", &["a/b", "c~d"]),
            ("/~01", &["~1"]),
            ("/", &[""]),
        ];
        for (text, expected) in rows {
            assert_eq!(Pointer::parse(text).unwrap().segments(), *expected, "{text}");
        }
        for text in ["", "amount", "/~", "/~2"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_differ_only_in_case_are_mistakable() {
        let rows = [
            ("Amount", "amount", true),
            ("AMOUNT", "amount", true),
            ("acce\u{17f}s", "access", true),
            ("\u{212a}ey", "key", true),
            ("amount", "amount", false),
            ("amounts", "amount", false),
        ];
        for (written, name, expected) in rows {
            assert_eq!(mistakable(written, name), expected, "{written} for {name}");
        }
    }
}
