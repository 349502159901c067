//! W3C Trace Context: how a request says which trace it is part of. Read as strictly as it is written, since what passes
//! here goes on to every backend.

use std::fmt;

/// Of a whole trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// Of one span; never all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// The bit that says that whoever called us keeps this trace (W3C Trace Context §3.2.2.5.1).
const SAMPLED: u8 = 0x01;
/// Level 2 has a second bit, which is passed on: the id is random.
const RANDOM: u8 = 0x02;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
    pub is_sampled: bool,
    is_random: bool,
}

impl TraceId {
    pub(super) fn random() -> TraceId {
        TraceId(std::iter::repeat_with(|| fastrand::u128(..)).find(|id| *id != 0).unwrap_or(1).to_be_bytes())
    }

    /// As 32 digits.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        push_hexadecimal(out, &self.0);
    }

    pub(super) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Evenly spread over all numbers, the same on every host that sees the trace.
    pub(super) fn share(&self) -> u64 {
        self.0[8..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl SpanId {
    pub(super) fn random() -> SpanId {
        SpanId(std::iter::repeat_with(|| fastrand::u64(..)).find(|id| *id != 0).unwrap_or(1).to_be_bytes())
    }

    pub(super) fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl Parent {
    /// A span whose trace begins here.
    pub(super) fn first(is_sampled: impl FnOnce(TraceId) -> bool) -> Parent {
        let trace = TraceId::random();
        Parent { trace, span: SpanId::random(), is_sampled: is_sampled(trace), is_random: true }
    }

    /// Another span of the same trace.
    pub(super) fn with_span(self, span: SpanId) -> Parent {
        Parent { span, ..self }
    }

    /// Reads `<version>-<trace id>-<span id>-<flags>`, in lower-case hexadecimal digits.
    ///
    /// Later versions may have more behind a further `-`, which is not read. `None`: it is no such thing, or says nothing.
    pub fn parse(text: &[u8]) -> Option<Parent> {
        let (fields, rest) = text.split_at_checked(LENGTH)?;
        let [version] = hexadecimal(&fields[..2])?;
        let may_have_more = version != 0;
        let is_well_ended = rest.is_empty() || may_have_more && rest[0] == b'-';
        let dashes = [fields[2], fields[35], fields[52]];
        if version == 0xff || !is_well_ended || dashes != [b'-'; 3] {
            return None;
        }
        let trace = TraceId(hexadecimal(&fields[3..35])?);
        let span = SpanId(hexadecimal(&fields[36..52])?);
        let [flags] = hexadecimal(&fields[53..])?;
        if trace.0 == [0; 16] || span.0 == [0; 8] {
            return None;
        }
        Some(Parent { trace, span, is_sampled: flags & SAMPLED != 0, is_random: flags & RANDOM != 0 })
    }

    /// As version 00.
    pub fn to_text(self) -> Vec<u8> {
        let mut text = Vec::with_capacity(LENGTH);
        text.extend_from_slice(b"00-");
        push_hexadecimal(&mut text, &self.trace.0);
        text.push(b'-');
        push_hexadecimal(&mut text, &self.span.0);
        let flags = if self.is_sampled { SAMPLED } else { 0 } | if self.is_random { RANDOM } else { 0 };
        text.push(b'-');
        push_hexadecimal(&mut text, &[flags]);
        text
    }
}

fn push_hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
}

/// Of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// `None`: another number of digits, or something else than lower-case ones.
fn hexadecimal<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// §3.3.1.1.
const MOST_MEMBERS: usize = 32;
const LONGEST_PART: usize = 256;

/// Whether these values of `tracestate`, one after the other, are a list as it should be: at most 32 members, each
/// `key=value` with another key. Empty ones are allowed and count for nothing.
pub(super) fn is_tracestate<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for value in values {
        for member in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
            let (key, value) = (&member[..equals], &member[equals + 1..]);
            if keys.len() == MOST_MEMBERS || !is_key(key) || !is_value(value) || keys.contains(&key) {
                return false;
            }
            keys.push(key);
        }
    }
    true
}

fn is_key(key: &[u8]) -> bool {
    let is_first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.first().is_some_and(is_first)
        && key.len() <= LONGEST_PART
        && key.iter().all(|byte| is_first(byte) || b"_-*/@".contains(byte))
}

/// It may have spaces within, and was trimmed.
fn is_value(value: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= LONGEST_PART
        && value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && !b",=".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fuzzing;
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it_and_not_otherwise() {
        for (text, is_sampled) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", None),
            ("", None),
        ] {
            let parsed = Parent::parse(text.as_bytes());
            assert_eq!(parsed.map(|parent| parent.is_sampled), is_sampled, "{text}");
            assert!(parsed.is_none_or(|parent| parent.trace.to_string() == TRACE), "{text}");
        }
    }

    #[test]
    fn what_a_later_version_adds_may_be_anything_and_is_not_passed_on() {
        let text = b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-futur\xa3";
        fuzzing::a_trace_context_is_read_as_another_reader_reads_it(text);
        let passed_on = Parent::parse(text).map(Parent::to_text);
        assert_eq!(passed_on.as_deref(), Some(&b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"[..]));
    }

    #[test]
    fn a_tracestate_is_a_list_of_members_with_keys_of_their_own() {
        let many = |members: usize| (0..members).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let (most, too_many) = (many(32), many(33));
        let (long, too_long) = (format!("a={}", "v".repeat(256)), format!("a={}", "v".repeat(257)));
        for (values, is_good) in [
            (&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..], true),
            (&["rojo=1", "congo=2"], true),
            (&["fw529a3039@dt=FfAAAA==", "x=1"], false),
            (&["tenant@vendor=a b:c;d", " , ,x=1 "], true),
            (&[""], true),
            (&["a=1,a=2"], false),
            (&["a=1", "a=2"], false),
            (&["A=1"], false),
            (&["a"], false),
            (&["a="], false),
            (&["=1"], false),
            (&["a=\u{e9}"], false),
            (&["a=\t1\t2"], false),
            (&[&most], true),
            (&[&too_many], false),
            (&[&long], true),
            (&[&too_long], false),
        ] {
            assert_eq!(is_tracestate(values.iter().map(|value| value.as_bytes())), is_good, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn another_reader_says_the_same(
            text in "[0-9a-fA-F]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,4})?|.{0,70}|(0|-){50,60}",
            state in "([a-z0-9@*/_-]{0,3}[=, ]{0,2}){0,40}|.{0,40}",
        ) {
            fuzzing::a_trace_context_is_read_as_another_reader_reads_it(text.as_bytes());
            fuzzing::a_trace_context_is_read_as_another_reader_reads_it(state.as_bytes());
        }
    }
}
