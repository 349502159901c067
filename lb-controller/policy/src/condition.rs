//! Conditions: CEL syntax in, a closed and typed form out.
//!
//! The text is parsed by a CEL parser, checked against the table of facts into a [`Test`], and laid out in [`Conditions`]
//! beside those of all other rules. No interpreter of CEL runs on a request: there is nothing to loop, allocate or convert,
//! and what is not in [`Test`] cannot happen.
//!
//! A fact that the request lacks makes a condition [`Truth::Missing`] unless the rest decides it; what then happens is
//! for the rule's `on_missing` to say, never for an error to swallow.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use memchr::memmem::Finder;

use crate::body::{BodyFactKind, BodySlot};
use crate::decimal::Decimal;
use crate::facts::Facts;
use crate::network::Network;
use crate::prefix_set::PrefixSet;
use crate::rule::Span;
use crate::signal::{FactRef, GRAPHQL_PREFIX, Value};
use crate::text_pattern::TextPattern;
use crate::vocabulary::Vocabulary;

mod check;
mod evaluate;
mod exits;
mod layout;
mod parse;
mod span;

pub(crate) use layout::{Conditions, Layout};

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    False,
    True,
    /// A fact that decides it is not there.
    Missing,
}

/// One of [`Conditions`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// Its first step.
    start: u32,
    needs_session: bool,
}

/// What is needed to explain a condition, and not to evaluate it: kept apart, so that evaluating touches less memory.
#[derive(Debug)]
pub(crate) struct ConditionSource {
    pub(crate) text: Arc<str>,
    /// Every fact that it names, in order of first use.
    pub(crate) facts: Vec<FactRef>,
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
    pub(crate) slot: BodySlot,
    pub(crate) kind: BodyFactKind,
}

impl NamedBodyFact {
    fn fact(&self) -> FactRef {
        FactRef::Body { name: self.name.clone(), slot: self.slot, kind: self.kind }
    }
}

/// What one condition may name.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) vocabulary: &'a Vocabulary,
    /// What its rule reads from bodies.
    pub(crate) body: &'a [NamedBodyFact],
}

/// Anything that is true, false or missing, as the checker leaves it.
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
    AddressIn(FactRef, Box<Networks>),
    /// A text that is known when the rule is read, and so what its search needs.
    ContainsLiteral(TextTerm, Box<Finder<'static>>),
    /// Of `glob` and `matches`.
    Matches(TextTerm, Box<TextPattern>),
    /// Some entry of a list passes the test, in which it is [`TextTerm::Entry`].
    Exists(FactRef, Box<Test>),
}

/// Address blocks that stand in the text, and named sets of them.
#[derive(Debug, Default)]
struct Networks {
    blocks: Vec<Network>,
    sets: Vec<Arc<PrefixSet>>,
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
    /// The entry of a list that `exists` is at.
    Entry,
}

/// Its number has the bits of the orderings that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Comparison {
    Less = LESS,
    LessOrEqual = LESS | EQUAL,
    Equal = EQUAL,
    NotEqual = LESS | GREATER,
    GreaterOrEqual = GREATER | EQUAL,
    Greater = GREATER,
}

/// One bit for each way in which two numbers compare, in the order of [`core::cmp::Ordering`].
const LESS: u8 = 1;
const EQUAL: u8 = 2;
const GREATER: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextRelation {
    Equal,
    NotEqual,
    StartsWith,
    EndsWith,
    Contains,
}

impl Condition {
    pub(crate) fn evaluate(self, conditions: &Conditions, facts: &Facts<'_>) -> Truth {
        conditions.evaluate(self.start, facts)
    }

    /// Whether a session could turn a missing condition into one that holds or does not.
    pub(crate) fn needs_session(self) -> bool {
        self.needs_session
    }
}

impl Comparison {
    /// The same with its sides exchanged.
    fn mirrored(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            Comparison::Equal | Comparison::NotEqual => self,
        }
    }
}

impl ConditionSource {
    /// Whether it goes by the GraphQL operation in the body.
    pub(crate) fn reads_graphql(&self) -> bool {
        let is_graphql =
            |fact: &FactRef| matches!(fact, FactRef::Signal(signal) if signal.name.starts_with(GRAPHQL_PREFIX));
        self.facts.iter().any(is_graphql)
    }

    pub(crate) fn reads_query_parameters(&self) -> bool {
        self.facts.iter().any(|fact| matches!(fact, FactRef::QueryParameter(_)))
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
