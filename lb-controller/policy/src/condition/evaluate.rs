//! The value of a checked condition in one request.

use super::{Comparison, Decimal, FactRef, Facts, Test, TextRelation, TextTerm, Truth, Value};
use super::{NumberTerm, String};

impl Test {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> Truth {
        match self {
            Test::Constant(value) => Truth::of(Some(*value)),
            Test::Fact(fact) => Truth::of(match fact.read(facts) {
                Some(Value::Boolean(value)) => Some(value),
                _ => None,
            }),
            Test::Present(fact) => Truth::of(Some(fact.is_present(facts))),
            Test::Not(test) => match test.evaluate(facts) {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                Truth::Missing => Truth::Missing,
            },
            Test::All(tests) => first_decisive(tests, Truth::False, Truth::True, facts),
            Test::Any(tests) => first_decisive(tests, Truth::True, Truth::False, facts),
            Test::SameTruth(left, right) => match (left.evaluate(facts), right.evaluate(facts)) {
                (Truth::Missing, _) | (_, Truth::Missing) => Truth::Missing,
                (left, right) => Truth::of(Some(left == right)),
            },
            Test::Numbers(left, comparison, right) => Truth::of(compare_numbers(left, *comparison, right, facts)),
            Test::NumberIn(number, list) => Truth::of(number.read(facts).map(|number| list.contains(&number))),
            Test::Texts(left, relation, right) => Truth::of(relate_texts(left, *relation, right, facts)),
            Test::TextIn(text, list) => {
                Truth::of(text.read(facts).map(|text| list.iter().any(|entry| **entry == *text)))
            }
            Test::TextInFact(text, list) => Truth::of(text_in_fact(text, list, facts)),
            Test::AddressIn(address, networks) => Truth::of(match address.read(facts) {
                Some(Value::Address(address)) => Some(networks.iter().any(|network| network.contains(address))),
                _ => None,
            }),
        }
    }
}

/// `&&` and `||` with a third value: one decisive part decides, whatever else is missing, in whatever order.
fn first_decisive(tests: &[Test], decisive: Truth, otherwise: Truth, facts: &Facts<'_>) -> Truth {
    let mut result = otherwise;
    for test in tests {
        match test.evaluate(facts) {
            truth if truth == decisive => return decisive,
            Truth::Missing => result = Truth::Missing,
            _ => {}
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

fn relate_texts(left: &TextTerm, relation: TextRelation, right: &TextTerm, facts: &Facts<'_>) -> Option<bool> {
    let (left, right) = (left.read(facts)?, right.read(facts)?);
    Some(match relation {
        TextRelation::Equal => left == right,
        TextRelation::NotEqual => left != right,
        TextRelation::StartsWith => left.starts_with(right),
        TextRelation::EndsWith => left.ends_with(right),
        TextRelation::Contains => left.contains(right),
    })
}

fn text_in_fact(text: &TextTerm, list: &FactRef, facts: &Facts<'_>) -> Option<bool> {
    let text = text.read(facts)?;
    match list.read(facts)? {
        Value::TextList(entries) => Some(entries.iter().map(String::as_str).any(|entry| entry == text)),
        _ => None,
    }
}

impl NumberTerm {
    fn read(&self, facts: &Facts<'_>) -> Option<Decimal> {
        match self {
            NumberTerm::Literal(number) => Some(*number),
            NumberTerm::Fact(fact) => match fact.read(facts)? {
                Value::Number(number) => Some(number),
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
    fn read<'a>(&'a self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            TextTerm::Literal(text) => Some(text),
            TextTerm::Fact(fact) => match fact.read(facts)? {
                Value::Text(text) => Some(text),
                _ => None,
            },
        }
    }
}
