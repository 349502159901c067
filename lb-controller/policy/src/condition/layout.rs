//! All conditions of a rule set, laid out side by side for evaluation.
//!
//! Ten thousand conditions as trees on the heap cost a fetch from far memory for every branch. Here the steps of one
//! condition stand in one line, and what they point to (numbers, texts) stands in the same order in lines of its own, so
//! that the few lines of memory a condition takes are fetched at once, and often with those of the rule before.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use memchr::memmem::Finder;

use super::exits::{Exits, Target, Targets};
use super::{Comparison, Condition, ConditionError, ConditionSource, Names, Networks, NumberTerm, Test, TextRelation};
use super::{TextTerm, check, parse};
use crate::body::BodySlot;
use crate::decimal::Decimal;
use crate::signal::FactRef;
use crate::text_pattern::TextPattern;

/// Where evaluation reads from.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    pub(super) steps: Vec<Step>,
    pub(super) numbers: Vec<Decimal>,
    pub(super) text_ends: Vec<u32>,
    /// The literal texts, one after the other.
    pub(super) texts: String,
    /// Each fact once, however many conditions name it.
    pub(super) facts: Vec<FactRef>,
    pub(super) networks: Vec<Networks>,
    pub(super) finders: Vec<Finder<'static>>,
    pub(super) patterns: Vec<TextPattern>,
}

/// A test that is made of no others, and where to go on from it.
///
/// `&&`, `||` and `!` are no steps: they are where steps lead. Of `a && b` the step of `a` leads to that of `b` when it holds,
/// and past it when it does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) test: Simple,
    pub(super) exits: Exits,
}

/// A test that is made of no others; or of others that are tests of their own, which follow it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Simple {
    Constant(bool),
    Fact(u32),
    Present(u32),
    /// Of the test that follows and the one that begins at `right`.
    SameTruth {
        right: u32,
    },
    /// What nearly all comparisons are: a fact that counts something, and a literal that does.
    Count {
        fact: u32,
        comparison: Comparison,
        literal: u32,
    },
    Numbers(NumberOperand, Comparison, NumberOperand),
    NumberIn {
        number: NumberOperand,
        first: u32,
        length: u16,
    },
    /// A fact and a literal.
    Text {
        fact: u32,
        relation: TextRelation,
        start: u32,
        length: u16,
    },
    Texts(TextOperand, TextRelation, TextOperand),
    TextIn {
        text: TextOperand,
        first: u32,
        length: u16,
    },
    LiteralInFact {
        start: u32,
        length: u16,
        list: u32,
    },
    TextInFact(TextOperand, u32),
    AddressIn {
        address: u32,
        networks: u32,
    },
    ContainsLiteral(TextOperand, u32),
    Matches(TextOperand, u32),
    /// Some entry of a list passes the test that follows.
    Exists {
        list: u32,
    },
}

/// A number and where it stands, in one word: the kind in the two lowest bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberOperand(u32);

/// The same for a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextOperand(u32);

/// What an operand stands for, with its place in the list of that kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    Literal(usize),
    Fact(usize),
    /// Of a number: how large the fact is. Of a text: the entry that `exists` is at.
    Other(usize),
}

impl Operand {
    fn pack(self) -> u32 {
        let (kind, place) = match self {
            Operand::Literal(place) => (0, place),
            Operand::Fact(place) => (1, place),
            Operand::Other(place) => (2, place),
        };
        let place = u32::try_from(place).ok().filter(|place| *place < 1 << 30);
        place.expect("conditions are limited in length and number") << 2 | kind
    }

    fn unpack(packed: u32) -> Operand {
        let place = (packed >> 2) as usize;
        match packed & 3 {
            0 => Operand::Literal(place),
            1 => Operand::Fact(place),
            _ => Operand::Other(place),
        }
    }
}

impl NumberOperand {
    pub(super) fn stands_for(self) -> Operand {
        Operand::unpack(self.0)
    }
}

impl TextOperand {
    pub(super) fn stands_for(self) -> Operand {
        Operand::unpack(self.0)
    }
}

impl Conditions {
    /// A literal text by where it stands.
    pub(super) fn single(&self, start: u32, length: u16) -> &str {
        &self.texts[start as usize..][..usize::from(length)]
    }

    /// The same by its place in the list of all.
    pub(super) fn text(&self, place: usize) -> &str {
        let start = place.checked_sub(1).map_or(0, |before| self.text_ends[before]);
        &self.texts[start as usize..self.text_ends[place] as usize]
    }
}

/// Reads conditions one by one and lays them out.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    conditions: Conditions,
    facts: BTreeMap<FactKey, u32>,
    singles: BTreeMap<Box<str>, (u32, u16)>,
    known: BTreeMap<ConditionKey, (Condition, Arc<ConditionSource>)>,
}

/// Facts are told apart by how conditions write them, except for those of bodies, which each rule names for itself.
type FactKey = (String, Option<BodySlot>);

/// What a condition means hangs on its text and on what the rule calls the facts it reads from bodies.
type ConditionKey = (String, Vec<(Arc<str>, BodySlot)>);

impl Layout {
    /// Parses, checks and lays out `text`; one that was added before is the same condition. All errors are returned, not
    /// only the first.
    pub(crate) fn add(
        &mut self,
        text: &str,
        names: Names<'_>,
    ) -> Result<(Condition, Arc<ConditionSource>), Vec<ConditionError>> {
        let key = (text.into(), names.body.iter().map(|named| (named.name.clone(), named.slot)).collect());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let (test, facts) = check::check(&parse::parse(text)?, names)?;
        let start = self.next();
        self.test(test, Targets::OF_A_WHOLE);
        let needs_session = facts.iter().any(FactRef::needs_session);
        let condition = Condition { start, needs_session };
        let source = Arc::new(ConditionSource { text: text.into(), facts });
        self.known.insert(key, (condition, source.clone()));
        Ok((condition, source))
    }

    pub(crate) fn finish(self) -> Conditions {
        self.conditions
    }

    /// Lays out a test from which evaluation goes on to `exits`.
    fn test(&mut self, test: Test, exits: Targets) {
        let place = self.conditions.steps.len();
        match test {
            Test::Not(test) => self.test(*test, exits.negated()),
            Test::All(tests) => self.joined(tests, |next| Targets { if_true: next, ..exits }, exits),
            Test::Any(tests) => self.joined(tests, |next| Targets { if_false: next, ..exits }, exits),
            Test::SameTruth(left, right) => {
                self.step(Simple::SameTruth { right: 0 }, exits);
                self.test(*left, Targets::OF_A_WHOLE);
                self.conditions.steps[place].test = Simple::SameTruth { right: self.next() };
                self.test(*right, Targets::OF_A_WHOLE);
            }
            Test::Exists(list, test) => {
                let list = self.fact(list);
                self.step(Simple::Exists { list }, exits);
                self.test(*test, Targets::OF_A_WHOLE);
            }
            simple => {
                let simple = self.simple(simple);
                self.step(simple, exits);
            }
        }
    }

    /// Tests one after the other: those before the last lead to the next or out.
    fn joined(&mut self, tests: Vec<Test>, exits_to: impl Fn(Target) -> Targets, last: Targets) {
        let mut left = tests.len();
        for test in tests {
            left -= 1;
            let next = self.conditions.steps.len() + steps_of(&test);
            self.test(test, if left == 0 { last } else { exits_to(Target::Step(next)) });
        }
    }

    fn step(&mut self, test: Simple, exits: Targets) {
        let exits = exits.seen_from(self.conditions.steps.len());
        self.conditions.steps.push(Step { test, exits });
    }

    /// A test that others are made of.
    fn simple(&mut self, test: Test) -> Simple {
        match test {
            Test::Constant(value) => Simple::Constant(value),
            Test::Fact(fact) => Simple::Fact(self.fact(fact)),
            Test::Present(fact) => Simple::Present(self.fact(fact)),
            Test::Numbers(left, comparison, right) => self.numbers(left, comparison, right),
            Test::NumberIn(number, list) => {
                let number = self.number(number);
                let (first, length) = neighbours(self.conditions.numbers.len(), list.len());
                self.conditions.numbers.extend(list);
                Simple::NumberIn { number, first, length }
            }
            Test::Texts(TextTerm::Fact(fact), relation, TextTerm::Literal(literal)) => {
                let (start, length) = self.single(&literal);
                Simple::Text { fact: self.fact(fact), relation, start, length }
            }
            Test::Texts(left, relation, right) => Simple::Texts(self.text(left), relation, self.text(right)),
            Test::TextIn(text, list) => {
                let text = self.text(text);
                let (first, length) = neighbours(self.conditions.text_ends.len(), list.len());
                list.iter().for_each(|literal| _ = self.literal(literal));
                Simple::TextIn { text, first, length }
            }
            Test::TextInFact(TextTerm::Literal(literal), list) => {
                let (start, length) = self.single(&literal);
                Simple::LiteralInFact { start, length, list: self.fact(list) }
            }
            Test::TextInFact(text, list) => Simple::TextInFact(self.text(text), self.fact(list)),
            Test::AddressIn(address, networks) => {
                let networks = push(&mut self.conditions.networks, *networks);
                Simple::AddressIn { address: self.fact(address), networks }
            }
            Test::ContainsLiteral(text, finder) => {
                Simple::ContainsLiteral(self.text(text), push(&mut self.conditions.finders, *finder))
            }
            Test::Matches(text, pattern) => {
                Simple::Matches(self.text(text), push(&mut self.conditions.patterns, *pattern))
            }
            Test::Not(_) | Test::All(_) | Test::Any(_) | Test::SameTruth(..) | Test::Exists(..) => {
                unreachable!("made of other tests")
            }
        }
    }

    fn numbers(&mut self, left: NumberTerm, comparison: Comparison, right: NumberTerm) -> Simple {
        match (left, right) {
            (left @ NumberTerm::Literal(_), right @ NumberTerm::Fact(_)) => {
                self.numbers(right, comparison.mirrored(), left)
            }
            (NumberTerm::Fact(fact), NumberTerm::Literal(literal)) if fact.is_count() => match literal.as_count() {
                Some(literal) => Simple::Count { fact: self.fact(fact), comparison, literal },
                None => {
                    let (fact, literal) = (NumberTerm::Fact(fact), NumberTerm::Literal(literal));
                    Simple::Numbers(self.number(fact), comparison, self.number(literal))
                }
            },
            (left, right) => Simple::Numbers(self.number(left), comparison, self.number(right)),
        }
    }

    fn next(&self) -> u32 {
        u32::try_from(self.conditions.steps.len()).expect("conditions are limited in length and number")
    }

    fn fact(&mut self, fact: FactRef) -> u32 {
        let slot = if let FactRef::Body { slot, .. } = &fact { Some(*slot) } else { None };
        let facts = &mut self.conditions.facts;
        *self.facts.entry((fact.to_string(), slot)).or_insert_with(|| push(facts, fact))
    }

    fn number(&mut self, term: NumberTerm) -> NumberOperand {
        let operand = match term {
            NumberTerm::Literal(number) => Operand::Literal(push(&mut self.conditions.numbers, number) as usize),
            NumberTerm::Fact(fact) => Operand::Fact(self.fact(fact) as usize),
            NumberTerm::SizeOf(fact) => Operand::Other(self.fact(fact) as usize),
        };
        NumberOperand(operand.pack())
    }

    fn text(&mut self, term: TextTerm) -> TextOperand {
        let operand = match term {
            TextTerm::Literal(text) => Operand::Literal(self.literal(&text) as usize),
            TextTerm::Fact(fact) => Operand::Fact(self.fact(fact) as usize),
            TextTerm::Entry => Operand::Other(0),
        };
        TextOperand(operand.pack())
    }

    /// A literal that is no part of a list: where it stands among all texts. What many conditions name stands there once.
    fn single(&mut self, text: &str) -> (u32, u16) {
        let texts = &mut self.conditions.texts;
        *self.singles.entry(text.into()).or_insert_with(|| {
            let (start, length) = neighbours(texts.len(), text.len());
            texts.push_str(text);
            // Those of lists begin where the one before ends.
            push(&mut self.conditions.text_ends, start + u32::from(length));
            (start, length)
        })
    }

    fn literal(&mut self, text: &str) -> u32 {
        let Conditions { texts, text_ends, .. } = &mut self.conditions;
        texts.push_str(text);
        push(text_ends, u32::try_from(texts.len()).expect("conditions are limited in length and number"))
    }
}

/// How many steps a test takes.
fn steps_of(test: &Test) -> usize {
    match test {
        Test::Not(test) => steps_of(test),
        Test::All(tests) | Test::Any(tests) => tests.iter().map(steps_of).sum(),
        Test::SameTruth(left, right) => 1 + steps_of(left) + steps_of(right),
        Test::Exists(_, test) => 1 + steps_of(test),
        _ => 1,
    }
}

/// The place of the first of some that will stand side by side, and how many they are.
fn neighbours(first: usize, length: usize) -> (u32, u16) {
    const LIMITED: &str = "lists are limited in length, conditions in number";
    (u32::try_from(first).expect(LIMITED), u16::try_from(length).expect(LIMITED))
}

/// Returns the place of `item`.
fn push<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    u32::try_from(list.len() - 1).expect("conditions are limited in length and number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_steps_fit_a_line_of_the_cache() {
        assert!(size_of::<Step>() <= 16, "{}", size_of::<Step>());
    }
}
