//! One spelling for every path, so that `//admin`, `/x/../admin` and `/%61dmin` cannot slip past a rule for `/admin`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A path in the two forms that belong together: what rules judge, and what the backend receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    judged: String,
    forwarded: String,
}

/// Why a path is refused (400): a backend could read it differently from the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    BadEscape,
    /// `%2f`, `%5c` or a plain `\`: a separator to some backends.
    EncodedSeparator,
    /// NUL, line breaks and their kin, plain or encoded.
    ControlCharacter,
    /// The decoded path is not UTF-8; overlong forms of `/` and `.` among it.
    NotUtf8,
    /// `..` beyond the root.
    AboveRoot,
    /// `..;x`: one directory up to servers that drop path parameters first.
    DotsWithParameters,
    /// `?` and `#` end a path; non-ASCII must be percent-encoded.
    BadCharacter,
}

impl CanonicalPath {
    /// Reads the raw path of a request target, without its query.
    ///
    /// Escapes are decoded once (`%25` stays a percent sign), `//` collapses, `.` and `..` are resolved. Both
    /// forms come from the same segments, so what is judged is what goes on.
    pub fn parse(raw_path: &str) -> Result<CanonicalPath, PathError> {
        if is_plain(raw_path) {
            let judged = raw_path.strip_suffix('/').filter(|judged| !judged.is_empty()).unwrap_or(raw_path);
            return Ok(CanonicalPath { judged: judged.to_owned(), forwarded: raw_path.to_owned() });
        }
        CanonicalPath::resolve(raw_path)
    }

    fn resolve(raw_path: &str) -> Result<CanonicalPath, PathError> {
        let relative = raw_path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        let mut segments: Vec<Segment> = Vec::new();
        // `/a/.` and `/a/x/..` name the directory `/a/`, as `/a/` does (RFC 3986 §5.2.4).
        let mut ends_in_slash = true;
        for raw_segment in relative.split('/') {
            let segment = Segment::parse(raw_segment)?;
            let dots = matches!(segment.judged.as_str(), "." | "..");
            if dots && segment.has_parameters {
                return Err(PathError::DotsWithParameters);
            }
            ends_in_slash = dots || segment.forwarded.is_empty();
            match segment.judged.as_str() {
                ".." => drop(segments.pop().ok_or(PathError::AboveRoot)?),
                _ if ends_in_slash => {}
                _ => segments.push(segment),
            }
        }
        let mut path = CanonicalPath { judged: String::new(), forwarded: String::new() };
        for segment in &segments {
            // `/;x/admin` is `//admin` once parameters are dropped, and that is `/admin`.
            if !segment.judged.is_empty() {
                path.judged.push('/');
                path.judged.push_str(&segment.judged);
            }
            path.forwarded.push('/');
            path.forwarded.push_str(&segment.forwarded);
        }
        if path.judged.is_empty() {
            path.judged.push('/');
        }
        if path.forwarded.is_empty() || ends_in_slash {
            path.forwarded.push('/');
        }
        Ok(path)
    }

    /// For rules: decoded, without path parameters (`;…`) and trailing slash, since backends disagree on whether these
    /// name another resource.
    pub fn judged(&self) -> &str {
        &self.judged
    }

    /// For the backend: the same segments, percent-encoded one way only (RFC 3986 §6.2.2), trailing slash kept.
    pub fn forwarded(&self) -> &str {
        &self.forwarded
    }

    /// What is judged, and what is forwarded.
    pub fn into_forms(self) -> (String, String) {
        (self.judged, self.forwarded)
    }
}

/// Nearly every path: nothing to decode or to resolve, so that it is its own canonical form.
fn is_plain(raw_path: &str) -> bool {
    let mut previous = None;
    let fits = raw_path.bytes().all(|byte| {
        match previous.replace(byte) {
            None => byte == b'/',
            // An empty segment, or one that may be dots.
            Some(b'/') if matches!(byte, b'/' | b'.') => false,
            Some(_) => byte == b'/' || (byte != b';' && is_plain_in_a_segment(byte)),
        }
    });
    fits && previous.is_some()
}

struct Segment {
    judged: String,
    forwarded: String,
    has_parameters: bool,
}

impl Segment {
    fn parse(raw: &str) -> Result<Segment, PathError> {
        let mut decoded = Vec::with_capacity(raw.len());
        let mut forwarded = String::with_capacity(raw.len());
        let mut judged_length = None;
        let mut bytes = raw.bytes();
        while let Some(byte) = bytes.next() {
            let (value, was_escaped) = match byte {
                b'%' => (hex_pair(bytes.next(), bytes.next()).ok_or(PathError::BadEscape)?, true),
                plain => (plain, false),
            };
            check_byte(value, was_escaped)?;
            // An escaped `;` too: some servers decode first and drop parameters afterwards.
            if value == b';' && judged_length.is_none() {
                judged_length = Some(decoded.len());
            }
            decoded.push(value);
            push_forwarded(&mut forwarded, value, was_escaped);
        }
        core::str::from_utf8(&decoded).map_err(|_| PathError::NotUtf8)?;
        decoded.truncate(judged_length.unwrap_or(decoded.len()));
        let judged = String::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
        Ok(Segment { judged, forwarded, has_parameters: judged_length.is_some() })
    }
}

fn check_byte(value: u8, was_escaped: bool) -> Result<(), PathError> {
    match value {
        b'/' | b'\\' => Err(PathError::EncodedSeparator),
        0..0x20 | 0x7f => Err(PathError::ControlCharacter),
        b'?' | b'#' | 0x80.. if !was_escaped => Err(PathError::BadCharacter),
        _ => Ok(()),
    }
}

/// Unreserved characters are written plainly and everything else that arrived escaped stays escaped, so a `%3B` never
/// turns into the `;` that starts parameters.
fn push_forwarded(forwarded: &mut String, value: u8, was_escaped: bool) {
    if is_unreserved(value) || (is_plain_in_a_segment(value) && !was_escaped) {
        forwarded.push(char::from(value));
    } else {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        forwarded.push('%');
        forwarded.push(char::from(HEX[usize::from(value >> 4)]));
        forwarded.push(char::from(HEX[usize::from(value & 15)]));
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 §3.3, but for escapes.
fn is_plain_in_a_segment(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::NotAbsolute => "the path does not start with `/`",
            PathError::BadEscape => "a `%` without two hexadecimal digits",
            PathError::EncodedSeparator => "an encoded slash, or a backslash",
            PathError::ControlCharacter => "a control character",
            PathError::NotUtf8 => "not UTF-8 once decoded",
            PathError::AboveRoot => "`..` beyond the root",
            PathError::DotsWithParameters => "`.` or `..` with path parameters",
            PathError::BadCharacter => "a character that must be percent-encoded",
        })
    }
}

impl core::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_path_is_judged_as_one() {
        let rows = [
            // raw, judged, forwarded
            ("/", "/", "/"),
            ("/admin", "/admin", "/admin"),
            ("/admin/", "/admin", "/admin/"),
            ("//admin", "/admin", "/admin"),
            ("/./admin", "/admin", "/admin"),
            ("/x/../admin", "/admin", "/admin"),
            ("/x//y/", "/x/y", "/x/y/"),
            ("/%61dmin", "/admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin", "/admin"),
            ("/%2e/admin", "/admin", "/admin"),
            ("/admin/.", "/admin", "/admin/"),
            ("/admin/x/..", "/admin", "/admin/"),
            ("/admin/x/%2e%2e", "/admin", "/admin/"),
            ("/admin;v=1", "/admin", "/admin;v=1"),
            ("/admin;v=1/x", "/admin/x", "/admin;v=1/x"),
            ("/;x/admin", "/admin", "/;x/admin"),
            ("/;x", "/", "/;x"),
            ("/admin%3bb", "/admin", "/admin%3Bb"),
            ("/%252e%252e/admin", "/%2e%2e/admin", "/%252e%252e/admin"),
            ("/100%25", "/100%", "/100%25"),
            ("/caf%c3%a9", "/café", "/caf%C3%A9"),
            ("/a%20b%3Fc", "/a b?c", "/a%20b%3Fc"),
            ("/a+b@c", "/a+b@c", "/a+b@c"),
            ("/a%2Bb", "/a+b", "/a%2Bb"),
            ("/a\"b", "/a\"b", "/a%22b"),
            ("/...", "/...", "/..."),
        ];
        for (raw, judged, forwarded) in rows {
            let path = CanonicalPath::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
            assert_eq!((path.judged(), path.forwarded()), (judged, forwarded), "{raw}");
        }
    }

    #[test]
    fn a_path_that_backends_read_in_two_ways_is_refused() {
        let rows = [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("admin", PathError::NotAbsolute),
            ("http://shop.example/admin", PathError::NotAbsolute),
            ("/..%2fadmin", PathError::EncodedSeparator),
            ("/a%2Fb", PathError::EncodedSeparator),
            ("/a%5cb", PathError::EncodedSeparator),
            ("/a\\b", PathError::EncodedSeparator),
            ("/a%00", PathError::ControlCharacter),
            ("/a%0d%0aX:1", PathError::ControlCharacter),
            ("/a\tb", PathError::ControlCharacter),
            ("/a%7f", PathError::ControlCharacter),
            ("/%zz", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/%ff", PathError::NotUtf8),
            ("/%c0%af", PathError::NotUtf8),
            ("/%c0%ae%c0%ae/", PathError::NotUtf8),
            ("/../admin", PathError::AboveRoot),
            ("/a/../../admin", PathError::AboveRoot),
            ("/x/..;/admin", PathError::DotsWithParameters),
            ("/x/%2e%2e;a=b/admin", PathError::DotsWithParameters),
            ("/x/..%3b/admin", PathError::DotsWithParameters),
            ("/a#b", PathError::BadCharacter),
            ("/a?b", PathError::BadCharacter),
            ("/café", PathError::BadCharacter),
        ];
        for (raw, expected) in rows {
            assert_eq!(CanonicalPath::parse(raw), Err(expected), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_path_with_nothing_to_resolve_is_read_as_any_other(raw in "[/a.;%~@]{0,8}") {
            prop_assert_eq!(CanonicalPath::parse(&raw), CanonicalPath::resolve(&raw));
        }

        #[test]
        fn a_canonical_path_is_stable_and_has_nothing_left_to_resolve(
            raw in "(/|[a-c.%;]|%2e|%25|%3[bB]|%c3%a9|%2f|%61|\\PC){0,24}".prop_map(|rest| alloc::format!("/{rest}"))
        ) {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                let again = CanonicalPath::parse(path.forwarded());
                prop_assert_eq!(again.as_ref(), Ok(&path));
                prop_assert!(path.forwarded().is_ascii());
                for form in [path.judged(), path.forwarded()] {
                    prop_assert!(form.starts_with('/'));
                    prop_assert!(!form.contains("//"), "{}", form);
                    prop_assert!(form.split('/').all(|segment| segment != "." && segment != ".."), "{}", form);
                }
            }
        }
    }
}
