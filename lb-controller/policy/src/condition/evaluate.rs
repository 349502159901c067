//! The value of a checked condition in one request.

use core::net::IpAddr;

use super::{Comparison, Decimal, FactRef, Facts, Test, TextRelation, TextTerm, Truth, Value};
use super::{Networks, NumberTerm, String};

/// Longer lists leave `exists` undecided: a session or certificate with more entries is not what a rule was written for.
const MOST_ENTRIES: usize = 256;

/// What a test is judged on.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s, 'a> {
    pub(super) facts: &'s Facts<'a>,
    /// Within `exists`.
    pub(super) entry: Option<&'a str>,
}

impl Test {
    pub(super) fn evaluate(&self, scope: &Scope<'_, '_>) -> Truth {
        let facts = scope.facts;
        match self {
            Test::Constant(value) => Truth::of(Some(*value)),
            Test::Fact(fact) => Truth::of(match fact.read(facts) {
                Some(Value::Boolean(value)) => Some(value),
                _ => None,
            }),
            Test::Present(fact) => Truth::of(fact.is_present(facts)),
            Test::Not(test) => match test.evaluate(scope) {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                Truth::Missing => Truth::Missing,
            },
            Test::All(tests) => first_decisive(tests, Truth::False, Truth::True, scope),
            Test::Any(tests) => first_decisive(tests, Truth::True, Truth::False, scope),
            Test::SameTruth(left, right) => match (left.evaluate(scope), right.evaluate(scope)) {
                (Truth::Missing, _) | (_, Truth::Missing) => Truth::Missing,
                (left, right) => Truth::of(Some(left == right)),
            },
            Test::Numbers(left, comparison, right) => Truth::of(compare_numbers(left, *comparison, right, facts)),
            Test::NumberIn(number, list) => Truth::of(number.read(facts).map(|number| list.contains(&number))),
            Test::Texts(left, relation, right) => Truth::of(relate_texts(left, *relation, right, scope)),
            Test::TextIn(text, list) => {
                Truth::of(text.read(scope).map(|text| list.iter().any(|entry| **entry == *text)))
            }
            Test::TextInFact(text, list) => Truth::of(text_in_fact(text, list, scope)),
            Test::AddressIn(address, networks) => Truth::of(match address.read(facts) {
                Some(Value::Address(address)) => Some(networks.contain(address)),
                _ => None,
            }),
            Test::ContainsLiteral(text, finder) => {
                Truth::of(text.read(scope).map(|text| finder.find(text.as_bytes()).is_some()))
            }
            Test::Matches(text, pattern) => Truth::of(text.read(scope).map(|text| pattern.is_match(text))),
            Test::Exists(list, test) => exists(list, test, scope),
        }
    }
}

/// `&&` and `||` with a third value: one decisive part decides, whatever else is missing, in whatever order.
fn first_decisive(tests: &[Test], decisive: Truth, otherwise: Truth, scope: &Scope<'_, '_>) -> Truth {
    let mut result = otherwise;
    for test in tests {
        match test.evaluate(scope) {
            truth if truth == decisive => return decisive,
            Truth::Missing => result = Truth::Missing,
            _ => {}
        }
    }
    result
}

fn exists(list: &FactRef, test: &Test, scope: &Scope<'_, '_>) -> Truth {
    let Some(Value::TextList(entries)) = list.read(scope.facts) else { return Truth::Missing };
    if entries.len() > MOST_ENTRIES {
        return Truth::Missing;
    }
    let mut result = Truth::False;
    for entry in entries {
        match test.evaluate(&Scope { facts: scope.facts, entry: Some(entry) }) {
            Truth::True => return Truth::True,
            Truth::Missing => result = Truth::Missing,
            Truth::False => {}
        }
    }
    result
}

fn compare_numbers(left: &NumberTerm, comparison: Comparison, right: &NumberTerm, facts: &Facts<'_>) -> Option<bool> {
    let (left, right) = (left.read(facts)?, right.read(facts)?);
    Some(match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => left < right,
        Comparison::LessOrEqual => left <= right,
        Comparison::Greater => left > right,
        Comparison::GreaterOrEqual => left >= right,
    })
}

fn relate_texts(left: &TextTerm, relation: TextRelation, right: &TextTerm, scope: &Scope<'_, '_>) -> Option<bool> {
    let (left, right) = (left.read(scope)?, right.read(scope)?);
    Some(match relation {
        TextRelation::Equal => left == right,
        TextRelation::NotEqual => left != right,
        TextRelation::StartsWith => left.starts_with(right),
        TextRelation::EndsWith => left.ends_with(right),
        TextRelation::Contains => left.contains(right),
    })
}

fn text_in_fact(text: &TextTerm, list: &FactRef, scope: &Scope<'_, '_>) -> Option<bool> {
    let text = text.read(scope)?;
    match list.read(scope.facts)? {
        Value::TextList(entries) => Some(entries.iter().map(String::as_str).any(|entry| entry == text)),
        _ => None,
    }
}

impl Networks {
    fn contain(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(address)) || self.sets.iter().any(|set| set.contains(address))
    }
}

impl NumberTerm {
    fn read(&self, facts: &Facts<'_>) -> Option<Decimal> {
        match self {
            NumberTerm::Literal(number) => Some(*number),
            NumberTerm::Fact(fact) => match fact.read(facts)? {
                Value::Number(number) | Value::Duration(number) => Some(number),
                Value::Threat(level) => Some(Decimal::from(level as i64)),
                _ => None,
            },
            NumberTerm::SizeOf(fact) => {
                let size = match fact.read(facts)? {
                    Value::Text(text) => text.chars().count(),
                    Value::TextList(entries) => entries.len(),
                    _ => return None,
                };
                i64::try_from(size).ok().map(Decimal::from)
            }
        }
    }
}

impl TextTerm {
    fn read<'a>(&'a self, scope: &Scope<'_, 'a>) -> Option<&'a str> {
        match self {
            TextTerm::Literal(text) => Some(text),
            TextTerm::Entry => scope.entry,
            TextTerm::Fact(fact) => match fact.read(scope.facts)? {
                Value::Text(text) => Some(text),
                _ => None,
            },
        }
    }
}
