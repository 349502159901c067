//! What is wrong with a rule, and exactly where.

use alloc::string::String;
use core::fmt;

/// One mistake in one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The place of the rule among the sources.
    pub index: usize,
    pub rule: String,
    pub field: Field,
    /// The part of the field's text that is wrong; `None`: all of it.
    pub span: Option<Span>,
    pub message: String,
    pub help: Option<String>,
}

/// A part of a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: usize,
    pub length: usize,
}

/// A field of [`crate::RuleSource`]; numbers count its list from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Id,
    Host(usize),
    Method(usize),
    Path(usize),
    BodyMaxBytes,
    BodyFactName(usize),
    BodyFactPointer(usize),
    When,
    /// The requirement as a whole.
    Require,
    RequireLevel,
    RequireMethod(usize),
    RequireMaxAge,
    RequireShow(usize),
    Limit,
    OnMissing,
}

/// As a path into the rule, such as `match.paths[2]`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Id => f.write_str("id"),
            Field::Host(index) => write!(f, "match.hosts[{index}]"),
            Field::Method(index) => write!(f, "match.methods[{index}]"),
            Field::Path(index) => write!(f, "match.paths[{index}]"),
            Field::BodyMaxBytes => f.write_str("body.max_bytes"),
            Field::BodyFactName(index) => write!(f, "body.facts[{index}].name"),
            Field::BodyFactPointer(index) => write!(f, "body.facts[{index}].pointer"),
            Field::When => f.write_str("when"),
            Field::Require => f.write_str("require"),
            Field::RequireLevel => f.write_str("require.level"),
            Field::RequireMethod(index) => write!(f, "require.methods[{index}]"),
            Field::RequireMaxAge => f.write_str("require.max_age"),
            Field::RequireShow(index) => write!(f, "require.show[{index}]"),
            Field::Limit => f.write_str("limit"),
            Field::OnMissing => f.write_str("on_missing"),
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}`, {}", self.rule, self.field)?;
        if let Some(span) = self.span {
            write!(f, ", byte {}", span.offset)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for RuleError {}
