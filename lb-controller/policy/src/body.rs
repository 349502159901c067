//! What rules read from request bodies: which bytes are needed, and how they are read without a second meaning.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::decimal::Decimal;
use crate::signal::{Kind, Value};

mod form;
mod graphql;
mod json;
mod media_type;
mod multipart;
mod pointer;

pub(crate) use form::{Ambiguous, Fields as FormFields, named as form_field, parse as parse_form};
pub(crate) use graphql::GraphQlOperation;
use media_type::BodyFormat;
pub(crate) use pointer::Pointer;

/// What a rule that names no maximum reads at most.
pub(crate) const DEFAULT_MAX_BYTES: u64 = 64 * 1024;

/// How a fact in a body is written, and so how it may be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFactKind {
    Text,
    Boolean,
    /// No decimal point, at most 18 digits.
    Integer,
    /// At most 18 digits before and after the point.
    Decimal,
    /// A decimal with at most two digits after the point: money.
    Decimal2,
}

/// The names of the kinds in rules.
const KINDS: &[(&str, BodyFactKind)] = &[
    ("string", BodyFactKind::Text),
    ("bool", BodyFactKind::Boolean),
    ("integer", BodyFactKind::Integer),
    ("decimal", BodyFactKind::Decimal),
    ("decimal2", BodyFactKind::Decimal2),
];

/// The facts that were read from one body. Facts that were not in it are missing, as all are in the default value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BodyFacts {
    values: Vec<(BodySlot, BodyValue)>,
    graphql: Option<GraphQlOperation>,
}

/// What the rules for one request want from its body.
#[derive(Clone, Debug)]
pub struct BodyNeeds {
    /// A body beyond this is refused, not half read: a rule must never be dodged by padding.
    pub max_bytes: u64,
    pub(crate) facts: Vec<Arc<BodyFact>>,
    /// Some rule goes by the GraphQL operation.
    pub(crate) graphql: bool,
}

/// Why a body cannot be judged. The request is refused with [`BodyError::status`]: forwarding what the rules could not
/// read would let every such rule be dodged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// 413.
    TooLarge { max_bytes: u64 },
    /// 415. Neither JSON nor an HTML form in UTF-8, or no content type at all; or a form where GraphQL is due.
    UnsupportedType,
    /// 415. A compressed body is not unpacked, since a small one can unpack to anything.
    Encoded,
    /// 400. Not the strict form of its type; `offset_bytes` is where reading stopped.
    Malformed { offset_bytes: usize, problem: &'static str },
    /// 400. The query of the URL has a GraphQL operation that cannot be told.
    Query { problem: &'static str },
    /// 400. The fact is there, but not as what the rule says it is.
    WrongKind { pointer: String, expected: BodyFactKind },
    /// 400. A name that some backends take for the fact's own, such as `Amount` beside `/amount`.
    AmbiguousName { pointer: String },
}

/// One fact that some rule reads. Rules that agree on place and kind share it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BodyFact {
    pub(crate) slot: BodySlot,
    pub(crate) pointer: Pointer,
    pub(crate) kind: BodyFactKind,
}

/// The place of a fact among all facts of a rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BodySlot(pub(crate) u32);

#[derive(Clone, Debug, PartialEq)]
enum BodyValue {
    Boolean(bool),
    Text(String),
    Number(Decimal),
}

/// A value as it stands in the body.
enum Found<'a> {
    /// Absent, or JSON `null`.
    Nothing,
    Boolean(bool),
    /// A JSON number, in its own digits.
    Number(&'a str),
    Text(Cow<'a, str>),
    /// From a form, where all kinds are written as text.
    FormText(Cow<'a, str>),
    /// A JSON array or object.
    Composite,
}

impl BodyNeeds {
    /// Whether a body with these headers can be read at all. Ask before `100 Continue` and before buffering.
    pub fn check_headers(
        &self,
        content_type: Option<&str>,
        content_encoding: Option<&str>,
        content_length: Option<u64>,
    ) -> Result<(), BodyError> {
        if content_length == Some(0) {
            return Ok(());
        }
        if content_encoding.is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
            return Err(BodyError::Encoded);
        }
        if content_length.is_some_and(|length| length > self.max_bytes) {
            return Err(BodyError::TooLarge { max_bytes: self.max_bytes });
        }
        if content_length.is_some() {
            BodyFormat::of(content_type).ok_or(BodyError::UnsupportedType)?;
        }
        Ok(())
    }

    /// Reads the facts from the whole body. JSON (`application/json`, `application/…+json`) and HTML forms
    /// (`application/x-www-form-urlencoded`, `multipart/form-data`) are understood, all in UTF-8; an empty body has no
    /// facts.
    pub fn read(&self, content_type: Option<&str>, bytes: &[u8]) -> Result<BodyFacts, BodyError> {
        if bytes.is_empty() {
            return Ok(BodyFacts::default());
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > self.max_bytes {
            return Err(BodyError::TooLarge { max_bytes: self.max_bytes });
        }
        let mut facts = BodyFacts::default();
        match BodyFormat::of(content_type).ok_or(BodyError::UnsupportedType)? {
            BodyFormat::Json => {
                let document = json::parse(bytes)?;
                if self.graphql {
                    facts.graphql = graphql::read(&document)?;
                }
                self.read_each(&mut facts, |pointer| document.find(pointer))?;
            }
            // Where an operation decides, one that could be hidden in an uploading form must not pass unread.
            BodyFormat::Form | BodyFormat::Multipart { .. } if self.graphql => return Err(BodyError::UnsupportedType),
            BodyFormat::Form => {
                let fields = form::parse(bytes)?;
                self.read_each(&mut facts, |pointer| form::find(&fields, pointer))?;
            }
            BodyFormat::Multipart { boundary } => {
                let form = multipart::parse(bytes, boundary)?;
                self.read_each(&mut facts, |pointer| form.find(pointer))?;
            }
        }
        Ok(facts)
    }

    /// Adds the GraphQL operation that the query of the URL has, as [`crate::canonical_query`] gives it. One in the URL and
    /// another in the body are refused: servers differ on which of the two they run.
    pub fn read_query(&self, query: &str, facts: &mut BodyFacts) -> Result<(), BodyError> {
        if !self.graphql {
            return Ok(());
        }
        match (graphql::read_query(query)?, &facts.graphql) {
            (Some(_), Some(_)) => Err(BodyError::Query { problem: "the body has a GraphQL operation too" }),
            (Some(operation), None) => {
                facts.graphql = Some(operation);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn read_each<'d>(
        &self,
        facts: &mut BodyFacts,
        find: impl Fn(&Pointer) -> Result<Found<'d>, BodyError>,
    ) -> Result<(), BodyError> {
        self.facts.iter().try_for_each(|fact| facts.insert(fact, find(&fact.pointer)?))
    }
}

impl BodyFacts {
    pub(crate) fn graphql(&self) -> Option<&GraphQlOperation> {
        self.graphql.as_ref()
    }

    pub(crate) fn value(&self, slot: BodySlot) -> Option<Value<'_>> {
        let (_, value) = self.values.iter().find(|(other, _)| *other == slot)?;
        Some(match value {
            BodyValue::Boolean(value) => Value::Boolean(*value),
            BodyValue::Text(text) => Value::Text(text),
            BodyValue::Number(number) => Value::Number(*number),
        })
    }

    fn insert(&mut self, fact: &BodyFact, found: Found<'_>) -> Result<(), BodyError> {
        if matches!(found, Found::Nothing) {
            return Ok(());
        }
        let wrong_kind = || BodyError::WrongKind { pointer: fact.pointer.text().into(), expected: fact.kind };
        let value = fact.kind.value_of(found).ok_or_else(wrong_kind)?;
        self.values.push((fact.slot, value));
        Ok(())
    }
}

impl BodyFactKind {
    /// The kind that rules call `name`.
    pub fn from_name(name: &str) -> Option<BodyFactKind> {
        KINDS.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// The names of all kinds.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|row| row.0)
    }

    pub(crate) fn value_kind(self) -> Kind {
        match self {
            BodyFactKind::Text => Kind::Text,
            BodyFactKind::Boolean => Kind::Boolean,
            BodyFactKind::Integer | BodyFactKind::Decimal | BodyFactKind::Decimal2 => Kind::Number,
        }
    }

    /// Most digits after the point; `None` for kinds that are no numbers.
    fn max_fraction_digits(self) -> Option<usize> {
        match self {
            BodyFactKind::Text | BodyFactKind::Boolean => None,
            BodyFactKind::Integer => Some(0),
            BodyFactKind::Decimal2 => Some(2),
            BodyFactKind::Decimal => Some(18),
        }
    }

    /// A JSON text is no number: `"500.01"` is one to some backends and an error to others.
    fn value_of(self, found: Found<'_>) -> Option<BodyValue> {
        match (self, found) {
            (BodyFactKind::Text, Found::Text(text) | Found::FormText(text)) => Some(BodyValue::Text(text.into_owned())),
            (BodyFactKind::Boolean, Found::Boolean(value)) => Some(BodyValue::Boolean(value)),
            (BodyFactKind::Boolean, Found::FormText(text)) => text.parse().ok().map(BodyValue::Boolean),
            (kind, Found::Number(digits)) => kind.number(digits),
            (kind, Found::FormText(text)) => kind.number(&text),
            _ => None,
        }
    }

    fn number(self, digits: &str) -> Option<BodyValue> {
        let number = Decimal::parse(digits).ok()?;
        (Decimal::fraction_digits(digits) <= self.max_fraction_digits()?).then_some(BodyValue::Number(number))
    }
}

impl BodyError {
    /// The HTTP status to refuse with: 400, 413 or 415.
    pub fn status(&self) -> u16 {
        match self {
            BodyError::TooLarge { .. } => 413,
            BodyError::UnsupportedType | BodyError::Encoded => 415,
            BodyError::Malformed { .. }
            | BodyError::Query { .. }
            | BodyError::WrongKind { .. }
            | BodyError::AmbiguousName { .. } => 400,
        }
    }
}

/// As rules write it, such as `decimal2`.
impl fmt::Display for BodyFactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|row| row.1 == *self).map_or("", |row| row.0))
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::TooLarge { max_bytes } => write!(f, "the body is larger than {max_bytes} bytes"),
            BodyError::UnsupportedType => {
                f.write_str("the body is in no form that rules here can read: JSON or an HTML form in UTF-8")
            }
            BodyError::Encoded => f.write_str("the body is compressed; send it as it is"),
            BodyError::Malformed { offset_bytes, problem } => {
                write!(f, "at byte {offset_bytes} of the body: {problem}")
            }
            BodyError::Query { problem } => write!(f, "in the query of the URL: {problem}"),
            BodyError::WrongKind { pointer, expected } => write!(f, "{pointer} in the body is not a plain {expected}"),
            BodyError::AmbiguousName { pointer } => {
                write!(f, "the body has a name that could be mistaken for {pointer}")
            }
        }
    }
}

impl core::error::Error for BodyError {}

#[cfg(test)]
mod tests;
