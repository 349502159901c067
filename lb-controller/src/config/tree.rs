//! YAML as a tree in which everything knows its place.
//!
//! The file is read without regard to meaning first, so that one wrong value does not hide the mistakes behind it: the
//! sections are then checked one by one against this tree. Scalars stay text; what they mean is for their key to say
//! (`no` is a fine name for a pool).

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

/// The deepest section has 8 levels. The reader calls itself several times a level, and 64 levels end a thread with the
/// usual 2 MiB of stack when built without optimisation.
const MAX_DEPTH: usize = 16;

/// Aliases count as what they stand for, so a small file that would unfold to more is refused. A file without aliases
/// never has more values than bytes.
const MAX_NODES_OF_SMALL_FILES: usize = 10_000;

/// A value and the bytes of the file that it stands in.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Range<usize>,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// An empty value, `~` or `null`.
    Nothing,
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, repeated keys included.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Range<usize>,
}

/// Why a file is no YAML, and where.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) place: Range<usize>,
    pub(super) message: String,
}

/// Reads one YAML document.
pub(super) fn parse(source: &str) -> Result<Node, SyntaxError> {
    let max_nodes = source.len().max(MAX_NODES_OF_SMALL_FILES);
    let options = serde_saphyr::options! {
        // Repeated keys are told by the section they stand in, with all its other mistakes.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: max_nodes,
            max_events: 2 * max_nodes,
            max_aliases: 1000,
        },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(source, options) {
        Ok(raw) => Ok(Node::of(raw, source)),
        Err(error) => {
            let message = error.without_snippet().to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text).to_owned();
            Err(SyntaxError { place: error.location().map_or(0..0, |location| place_of(&location, source)), message })
        }
    }
}

impl Node {
    fn of(raw: Spanned<Raw>, source: &str) -> Node {
        // Of an alias the definition is shown: that is where the value can be mended.
        let place = place_of(&raw.defined, source);
        let value = match raw.value {
            Raw::Nothing => Value::Nothing,
            Raw::Text(text) => Value::Text(text),
            Raw::Plain => Value::Text(source.get(place.clone()).unwrap_or_default().to_owned()),
            Raw::List(items) => Value::List(items.into_iter().map(|item| Node::of(item, source)).collect()),
            Raw::Map(entries) => {
                let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| {
                    let place = place_of(&key.referenced, source);
                    (Key { name: key.value, place }, Node::of(value, source))
                };
                Value::Map(entries.into_iter().map(entry).collect())
            }
        };
        Node { place, value }
    }
}

/// Where a part of a scalar's text stands in the file, `part` counting bytes of the text.
///
/// Quotes, escapes and folded lines make text and file differ. The two are walked side by side; where they cannot be
/// matched up, the whole scalar is meant.
pub(super) fn place_of_part(node: &Node, source: &str, part: Range<usize>) -> Range<usize> {
    let Value::Text(text) = &node.value else { return node.place.clone() };
    let written = source.get(node.place.clone()).unwrap_or_default();
    let mut offsets = Vec::with_capacity(text.len() + 1);
    let mut rest = written.char_indices().peekable();
    if written.starts_with(['"', '\'']) {
        rest.next();
    }
    for wanted in text.chars() {
        let offset = loop {
            let Some((offset, found)) = rest.next() else { return node.place.clone() };
            let folded = wanted == ' ' && found == '\n';
            if found == wanted || folded {
                // What an escape stands for is the escaped character; a doubled quote stands for one.
                if found == '\'' && written.starts_with('\'') {
                    rest.next();
                }
                break offset;
            }
            let skippable = found.is_whitespace() || (found == '\\' && written.starts_with('"'));
            if !skippable {
                return node.place.clone();
            }
        };
        offsets.extend(std::iter::repeat_n(node.place.start + offset, wanted.len_utf8()));
    }
    offsets.push(rest.next().map_or(node.place.end, |(offset, _)| node.place.start + offset));
    match (offsets.get(part.start), offsets.get(part.end.saturating_sub(1))) {
        (Some(start), Some(last)) if part.end > part.start => {
            let last_length = source[*last..].chars().next().map_or(1, char::len_utf8);
            *start..last + last_length
        }
        (Some(start), _) => *start..*start,
        (None, _) => node.place.clone(),
    }
}

/// The bytes of a location; syntax errors have a line and a column (in characters, from 1) alone.
fn place_of(location: &Location, source: &str) -> Range<usize> {
    let as_offset = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(source.len());
    let span = location.span();
    if let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) {
        let start = as_offset(start);
        return start..(start + as_offset(length)).min(source.len());
    }
    let lines_before = as_offset(location.line().saturating_sub(1));
    let line_start: usize = source.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let line = source[line_start..].lines().next().unwrap_or_default();
    let column = line.char_indices().nth(as_offset(location.column().saturating_sub(1)));
    let start = line_start + column.map_or(line.len(), |(index, _)| index);
    start..start
}

/// A value before it is known where its text stands.
enum Raw {
    Nothing,
    Text(String),
    /// A boolean or number; its text is in the file, where `500.00` has not lost its zeros.
    Plain,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_scalar_is_found_however_it_is_written() {
        let rows = [
            ("when: body.x > 1", 0..6, "body.x"),
            ("when: body.x > 1", 9..10, "1"),
            ("when: \"body.x > 1\"", 7..8, ">"),
            ("when: 'body.x == ''a'' && y'", 17..18, "y"),
            ("when: \"body.x == \\\"a\\\" && y\"", 17..18, "y"),
            ("when: |\n  body.x >\n    1 && y\n", 16..17, "y"),
            ("when: >-\n  body.x >\n  1 && y\n", 14..15, "y"),
            ("when: body.x >\n  1 && y\n", 14..15, "y"),
            ("when: \"é\" # y", 0..2, "é"),
            ("when: body.x >", 8..8, ""),
            // An escape that stands for another character: the whole scalar is pointed at.
            ("when: \"a\\x41 y\"", 3..4, "\"a\\x41 y\""),
        ];
        for (source, part, expected) in rows {
            let Value::Map(entries) = parse(source).unwrap().value else { panic!("{source}") };
            let place = place_of_part(&entries[0].1, source, part);
            assert_eq!(&source[place], expected, "{source}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_shown_where_reading_stopped() {
        let rows = [
            ("a: [1\nb: 2\n", 7, "illegal placement of ':' indicator"),
            ("a: b: c\n", 4, "mapping values are not allowed in this context"),
            ("é: @x\n", 4, "unexpected character: `@'"),
        ];
        for (source, at, message) in rows {
            let error = parse(source).unwrap_err();
            assert_eq!((error.place.start, error.message.as_str()), (at, message), "{source}");
        }
        let multiple = parse("a: 1\n---\nb: 2\n").unwrap_err();
        assert!(multiple.message.starts_with("multiple YAML documents"), "{}", multiple.message);
    }
}
