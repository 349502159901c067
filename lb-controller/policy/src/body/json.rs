//! A strict JSON reader (RFC 8259, narrowed as I-JSON, RFC 7493, narrows it).
//!
//! General parsers keep the first or the last of two equal keys, round large numbers, or skip a byte order mark. Each
//! such leniency is a way to show the rules one amount and the backend another, so here every one is an error.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::pointer::mistakable;
use super::{BodyError, Found, Pointer};

/// Deeper documents are refused: the reader calls itself once a level.
const MAX_DEPTH: usize = 64;

/// A document that borrows what it can from the body.
#[derive(Debug, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Boolean(bool),
    /// In its own digits: what they mean is for the fact's kind to say.
    Number(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(BTreeMap<Cow<'a, str>, Json<'a>>),
}

/// Reads one whole document.
pub(super) fn parse(bytes: &[u8]) -> Result<Json<'_>, BodyError> {
    let text = core::str::from_utf8(bytes)
        .map_err(|error| BodyError::Malformed { offset_bytes: error.valid_up_to(), problem: "not UTF-8" })?;
    let mut reader = Reader { text, position: 0 };
    reader.skip_whitespace();
    let document = reader.value(0)?;
    reader.skip_whitespace();
    match reader.peek() {
        None => Ok(document),
        Some(_) => reader.fail("more after the end of the document"),
    }
}

impl<'a> Json<'a> {
    /// What stands at `pointer`. A key beside the path that only case tells apart is an error.
    pub(super) fn find(&self, pointer: &Pointer) -> Result<Found<'_>, BodyError> {
        let mut here = self;
        for segment in pointer.segments() {
            let next = match here {
                Json::Object(members) => {
                    if members.keys().any(|key| mistakable(key, segment)) {
                        return Err(BodyError::AmbiguousName { pointer: pointer.text().into() });
                    }
                    members.get(segment.as_str())
                }
                Json::Array(elements) => array_index(segment).and_then(|index| elements.get(index)),
                _ => None,
            };
            match next {
                Some(value) => here = value,
                None => return Ok(Found::Nothing),
            }
        }
        Ok(match here {
            Json::Null => Found::Nothing,
            Json::Boolean(value) => Found::Boolean(*value),
            Json::Number(digits) => Found::Number(digits),
            Json::Text(text) => Found::Text(Cow::Borrowed(text)),
            Json::Array(_) | Json::Object(_) => Found::Composite,
        })
    }
}

/// RFC 6901 §4: digits without a leading zero.
fn array_index(segment: &str) -> Option<usize> {
    let plain = segment == "0" || (!segment.starts_with('0') && segment.bytes().all(|byte| byte.is_ascii_digit()));
    plain.then(|| segment.parse().ok()).flatten()
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Json<'a>, BodyError> {
        if depth > MAX_DEPTH {
            return self.fail("nested too deeply");
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Boolean(true)),
            Some(b'f') => self.word("false", Json::Boolean(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => self.fail("expected a value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, BodyError> {
        self.position += 1;
        let mut members = BTreeMap::new();
        self.skip_whitespace();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.fail("expected a key");
            }
            let key = self.string()?;
            if members.contains_key(&key) {
                return self.fail("the same key twice in one object");
            }
            self.skip_whitespace();
            if !self.take(b':') {
                return self.fail("expected `:`");
            }
            self.skip_whitespace();
            let value = self.value(depth + 1)?;
            members.insert(key, value);
            if self.ends_list(b'}')? {
                return Ok(Json::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, BodyError> {
        self.position += 1;
        let mut elements = Vec::new();
        self.skip_whitespace();
        if self.take(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.ends_list(b']')? {
                return Ok(Json::Array(elements));
            }
        }
    }

    /// After an element: true at the closing bracket, false after a comma.
    fn ends_list(&mut self, closing: u8) -> Result<bool, BodyError> {
        self.skip_whitespace();
        if self.take(closing) {
            return Ok(true);
        }
        if !self.take(b',') {
            return self.fail("expected `,` or a closing bracket");
        }
        self.skip_whitespace();
        Ok(false)
    }

    fn number(&mut self) -> Result<Json<'a>, BodyError> {
        let start = self.position;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(Json::Number(&self.text[start..self.position]))
    }

    fn digits(&mut self) -> Result<(), BodyError> {
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        if start == self.position { self.fail("expected a digit") } else { Ok(()) }
    }

    /// Borrowed when it has no escapes.
    fn string(&mut self) -> Result<Cow<'a, str>, BodyError> {
        self.position += 1;
        let mut unescaped = String::new();
        let mut run_start = self.position;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let run = &self.text[run_start..self.position];
                    self.position += 1;
                    if unescaped.is_empty() {
                        return Ok(Cow::Borrowed(run));
                    }
                    unescaped.push_str(run);
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    unescaped.push_str(&self.text[run_start..self.position]);
                    self.position += 1;
                    unescaped.push(self.escape()?);
                    run_start = self.position;
                }
                Some(0..0x20) => return self.fail("a control character in a string"),
                Some(_) => self.position += 1,
                None => return self.fail("the string does not end"),
            }
        }
    }

    /// The character after a backslash.
    fn escape(&mut self) -> Result<char, BodyError> {
        let escape = self.peek();
        self.position += 1;
        Ok(match escape {
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => {
                self.position -= 1;
                return self.fail("an unknown escape");
            }
        })
    }

    fn unicode_escape(&mut self) -> Result<char, BodyError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !(self.take(b'\\') && self.take(b'u')) {
                return self.fail("half a surrogate pair");
            }
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return self.fail("half a surrogate pair");
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        match char::from_u32(code) {
            // A reader that keeps strings as C does would see the text end here.
            Some('\0') => self.fail("a NUL character"),
            Some(char) => Ok(char),
            None => self.fail("half a surrogate pair"),
        }
    }

    fn hex4(&mut self) -> Result<u32, BodyError> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.fail("expected four hexadecimal digits");
            };
            code = code * 16 + digit;
            self.position += 1;
        }
        Ok(code)
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, BodyError> {
        if !self.text[self.position..].starts_with(word) {
            return self.fail("expected a value");
        }
        self.position += word.len();
        Ok(value)
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.position += usize::from(taken);
        taken
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn fail<T>(&self, problem: &'static str) -> Result<T, BodyError> {
        Err(BodyError::Malformed { offset_bytes: self.position, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_that_two_parsers_read_differently_is_refused() {
        let rows: &[(&[u8], &str)] = &[
            (b"\xef\xbb\xbf{}", "expected a value"),
            (b"{\"a\":1,\"a\":2}", "the same key twice in one object"),
            (b"{\"x\":[{\"a\":1,\"\\u0061\":2}]}", "the same key twice in one object"),
            (b"{\"a\":1}{\"a\":2}", "more after the end of the document"),
            (b"{\"a\":1} x", "more after the end of the document"),
            (b"{\"a\":1,}", "expected a key"),
            (b"[1,]", "expected a value"),
            (b"[1 2]", "expected `,` or a closing bracket"),
            (b"{\"a\" 1}", "expected `:`"),
            (b"{a:1}", "expected a key"),
            (b"{'a':1}", "expected a key"),
            (b"/* */{}", "expected a value"),
            (b"NaN", "expected a value"),
            (b"nul", "expected a value"),
            (b"Infinity", "expected a value"),
            (b"-", "expected a digit"),
            (b"+1", "expected a value"),
            (b".5", "expected a value"),
            (b"5.", "expected a digit"),
            (b"1e", "expected a digit"),
            (b"007", "more after the end of the document"),
            (b"0x10", "more after the end of the document"),
            (b"\"a\nb\"", "a control character in a string"),
            (b"\"\\x41\"", "an unknown escape"),
            (b"\"\\u00\"", "expected four hexadecimal digits"),
            (b"\"\\ud800\"", "half a surrogate pair"),
            (b"\"\\ud800\\u0041\"", "half a surrogate pair"),
            (b"\"\\udc00\"", "half a surrogate pair"),
            (b"\"\\u0000\"", "a NUL character"),
            (b"\"a", "the string does not end"),
            (b"\"\xff\"", "not UTF-8"),
            (b"{\x00\"a\x00\":\x001\x00}\x00", "expected a key"),
            (b"", "expected a value"),
        ];
        for (bytes, expected) in rows {
            let error = parse(bytes).expect_err(&String::from_utf8_lossy(bytes));
            assert!(
                matches!(error, BodyError::Malformed { problem, .. } if problem == *expected),
                "{bytes:?}: {error}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_ok());
        assert!(parse(nested(MAX_DEPTH + 2).as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e9..1e9).prop_map(|number: f64| number.into()),
            "[^\\x00]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map("[^\\x00]{0,4}", inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn same(ours: &Json<'_>, theirs: &serde_json::Value) -> bool {
        match (ours, theirs) {
            (Json::Null, serde_json::Value::Null) => true,
            (Json::Boolean(left), serde_json::Value::Bool(right)) => left == right,
            (Json::Number(digits), serde_json::Value::Number(number)) => {
                let (ours, theirs) = (digits.parse::<f64>().unwrap(), number.as_f64().unwrap());
                // The general parser rounds the last bit its own way.
                (ours - theirs).abs() <= theirs.abs() * 1e-12
            }
            (Json::Text(left), serde_json::Value::String(right)) => left == right,
            (Json::Array(left), serde_json::Value::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
            }
            (Json::Object(left), serde_json::Value::Object(right)) => {
                left.len() == right.len()
                    && left.iter().all(|(key, value)| right.get(key.as_ref()).is_some_and(|other| same(value, other)))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn valid_documents_read_as_a_general_parser_reads_them(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let document = parse(&text);
            prop_assert!(document.as_ref().is_ok_and(|ours| same(ours, &value)), "{:?}", document);
        }

        #[test]
        fn whatever_is_read_a_general_parser_reads_too(bytes in "[\\[\\]{}:,\"\\\\0-9eEu.+ \\-atrufalsn]{0,24}|\\PC{0,24}") {
            if let Ok(document) = parse(bytes.as_bytes()) {
                // Numbers beyond f64 are the one thing the general parser gives up on.
                if let Ok(value) = serde_json::from_str::<serde_json::Value>(&bytes) {
                    prop_assert!(same(&document, &value), "{}", bytes);
                } else {
                    prop_assert!(bytes.contains(['e', 'E']), "{}", bytes);
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if parse(&bytes).is_ok() {
                prop_assert!(core::str::from_utf8(&bytes).is_ok());
            }
        }
    }
}
