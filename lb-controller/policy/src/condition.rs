//! Conditions: CEL syntax in, a closed and typed form out.
//!
//! The text is parsed by a CEL parser, checked against the table of facts, and lowered to [`Test`]. No interpreter of
//! CEL runs on a request: there is nothing to loop, allocate or convert, and what is not in [`Test`] cannot happen.
//!
//! A fact that the request lacks makes a condition [`Truth::Missing`] unless the rest decides it; what then happens is
//! for the rule's `on_missing` to say, never for an error to swallow.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decimal::Decimal;
use crate::facts::Facts;
use crate::network::Network;
use crate::rule::Span;
use crate::signal::{FactRef, Value};

mod check;
mod evaluate;
mod parse;
mod span;

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    /// A fact that decides it is not there.
    Missing,
}

/// A compiled condition.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) text: Arc<str>,
    /// Every fact that it names, in order of first use.
    pub(crate) facts: Vec<FactRef>,
    root: Test,
}

/// What is wrong with a condition, and where in its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConditionError {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// A fact that one rule reads from bodies, by the name it gave.
pub(crate) struct NamedBodyFact {
    pub(crate) name: Arc<str>,
    pub(crate) fact: FactRef,
}

/// Anything that is true, false or missing.
#[derive(Debug)]
enum Test {
    Constant(bool),
    /// A fact that is itself a boolean.
    Fact(FactRef),
    Present(FactRef),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
    SameTruth(Box<Test>, Box<Test>),
    Numbers(NumberTerm, Comparison, NumberTerm),
    NumberIn(NumberTerm, Vec<Decimal>),
    Texts(TextTerm, TextRelation, TextTerm),
    TextIn(TextTerm, Vec<Box<str>>),
    /// `"admins" in session.groups`.
    TextInFact(TextTerm, FactRef),
    AddressIn(FactRef, Vec<Network>),
}

#[derive(Debug)]
enum NumberTerm {
    Literal(Decimal),
    Fact(FactRef),
    /// Characters of a text, or entries of a list.
    SizeOf(FactRef),
}

#[derive(Debug)]
enum TextTerm {
    Literal(Box<str>),
    Fact(FactRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextRelation {
    Equal,
    NotEqual,
    StartsWith,
    EndsWith,
    Contains,
}

impl Condition {
    /// Parses, checks and lowers `text`. All errors are returned, not only the first.
    pub(crate) fn compile(text: &str, body_facts: &[NamedBodyFact]) -> Result<Condition, Vec<ConditionError>> {
        let syntax = parse::parse(text)?;
        let (root, facts) = check::check(&syntax, body_facts)?;
        Ok(Condition { text: text.into(), facts, root })
    }

    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Truth {
        self.root.evaluate(facts)
    }

    /// Whether a session could turn a missing condition into one that holds or does not.
    pub(crate) fn needs_session(&self) -> bool {
        self.facts.iter().any(FactRef::needs_session)
    }
}

impl Truth {
    fn of(value: Option<bool>) -> Truth {
        match value {
            Some(true) => Truth::True,
            Some(false) => Truth::False,
            None => Truth::Missing,
        }
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
