//! The value of a condition in one request.

use core::cmp::Ordering;
use core::net::IpAddr;

use super::layout::{NumberOperand, Operand, Step, TextOperand};
use super::{Comparison, Condition, Conditions, Decimal, Facts, Networks, TextRelation, Truth, Value};
use alloc::string::String;

/// Longer lists leave `exists` undecided: a session or certificate with more entries is not what a rule was written for.
const MOST_ENTRIES: usize = 256;

impl Conditions {
    /// Reads from where `condition` stands. What comes of it means nothing: the memory is wanted soon.
    pub(crate) fn touch(&self, condition: Condition) -> u32 {
        u32::from(matches!(self.steps[condition.start as usize], Step::Not))
    }
}

/// One evaluation on its way along the steps.
struct Walk<'c, 's, 'a> {
    conditions: &'c Conditions,
    facts: &'s Facts<'a>,
    /// The step to take next.
    at: usize,
    /// Within `exists`.
    entry: Option<&'a str>,
}

impl Conditions {
    /// The value of the condition whose steps begin at `start`.
    pub(super) fn evaluate(&self, start: u32, facts: &Facts<'_>) -> Truth {
        Walk { conditions: self, facts, at: start as usize, entry: None }.test()
    }
}

impl<'c: 'a, 'a> Walk<'c, '_, 'a> {
    /// The value of the next test, which is passed.
    fn test(&mut self) -> Truth {
        let step = self.conditions.steps[self.at];
        self.at += 1;
        match step {
            Step::Constant(value) => Truth::of(Some(value)),
            Step::Fact(fact) => Truth::of(match self.fact(fact) {
                Some(Value::Boolean(value)) => Some(value),
                _ => None,
            }),
            Step::Present(fact) => Truth::of(self.conditions.facts[fact as usize].is_present(self.facts)),
            Step::Not => match self.test() {
                Truth::True => Truth::False,
                Truth::False => Truth::True,
                Truth::Missing => Truth::Missing,
            },
            Step::All { end } => self.first_decisive(end, Truth::False, Truth::True),
            Step::Any { end } => self.first_decisive(end, Truth::True, Truth::False),
            Step::SameTruth => match (self.test(), self.test()) {
                (Truth::Missing, _) | (_, Truth::Missing) => Truth::Missing,
                (left, right) => Truth::of(Some(left == right)),
            },
            Step::Numbers(left, comparison, right) => Truth::of(self.compare(left, comparison, right)),
            Step::NumberIn { number, first, length } => Truth::of(self.number_in(number, first, length)),
            Step::Texts(left, relation, right) => Truth::of(self.relate(left, relation, right)),
            Step::TextIn { text, first, length } => Truth::of(self.text_in(text, first, length)),
            Step::TextInFact(text, list) => Truth::of(self.text_in_fact(text, list)),
            Step::AddressIn { address, networks } => Truth::of(match self.fact(address) {
                Some(Value::Address(address)) => Some(self.conditions.networks[networks as usize].contain(address)),
                _ => None,
            }),
            Step::ContainsLiteral(text, finder) => {
                let finder = &self.conditions.finders[finder as usize];
                Truth::of(self.text(text).map(|text| finder.find(text.as_bytes()).is_some()))
            }
            Step::Matches(text, pattern) => {
                let pattern = &self.conditions.patterns[pattern as usize];
                Truth::of(self.text(text).map(|text| pattern.is_match(text)))
            }
            Step::Exists { list, end } => self.exists(list, end),
        }
    }

    /// `&&` and `||` with a third value: one decisive part decides, whatever else is missing, in whatever order.
    fn first_decisive(&mut self, end: u32, decisive: Truth, otherwise: Truth) -> Truth {
        let mut result = otherwise;
        while self.at < end as usize {
            match self.test() {
                truth if truth == decisive => {
                    self.at = end as usize;
                    return decisive;
                }
                Truth::Missing => result = Truth::Missing,
                _ => {}
            }
        }
        result
    }

    fn exists(&mut self, list: u32, end: u32) -> Truth {
        let start = self.at;
        self.at = end as usize;
        let Some(Value::TextList(entries)) = self.fact(list) else { return Truth::Missing };
        if entries.len() > MOST_ENTRIES {
            return Truth::Missing;
        }
        let mut result = Truth::False;
        for entry in entries {
            match (Walk { at: start, entry: Some(entry), ..*self }).test() {
                Truth::True => return Truth::True,
                Truth::Missing => result = Truth::Missing,
                Truth::False => {}
            }
        }
        result
    }

    fn fact(&self, fact: u32) -> Option<Value<'a>> {
        self.conditions.facts[fact as usize].read(self.facts)
    }

    fn compare(&self, left: NumberOperand, comparison: Comparison, right: NumberOperand) -> Option<bool> {
        let (left, right) = (self.number(left)?, self.number(right)?);
        Some(comparison.holds_for(left.cmp(&right)))
    }

    fn number_in(&self, number: NumberOperand, first: u32, length: u16) -> Option<bool> {
        let number = self.number(number)?;
        let list = &self.conditions.numbers[first as usize..][..usize::from(length)];
        Some(list.contains(&number))
    }

    fn number(&self, operand: NumberOperand) -> Option<Decimal> {
        let fact = |place: usize| self.conditions.facts[place].read(self.facts);
        match operand.stands_for() {
            Operand::Literal(place) => Some(self.conditions.numbers[place]),
            Operand::Fact(place) => match fact(place)? {
                Value::Number(number) | Value::Duration(number) => Some(number),
                Value::Threat(level) => Some(Decimal::from(level as i64)),
                _ => None,
            },
            Operand::Other(place) => {
                let size = match fact(place)? {
                    Value::Text(text) => text.chars().count(),
                    Value::TextList(entries) => entries.len(),
                    _ => return None,
                };
                i64::try_from(size).ok().map(Decimal::from)
            }
        }
    }

    fn relate(&self, left: TextOperand, relation: TextRelation, right: TextOperand) -> Option<bool> {
        let (left, right) = (self.text(left)?, self.text(right)?);
        Some(match relation {
            TextRelation::Equal => left == right,
            TextRelation::NotEqual => left != right,
            TextRelation::StartsWith => left.starts_with(right),
            TextRelation::EndsWith => left.ends_with(right),
            TextRelation::Contains => left.contains(right),
        })
    }

    fn text_in(&self, text: TextOperand, first: u32, length: u16) -> Option<bool> {
        let text = self.text(text)?;
        let first = first as usize;
        Some((first..first + usize::from(length)).any(|place| self.conditions.text(place) == text))
    }

    fn text_in_fact(&self, text: TextOperand, list: u32) -> Option<bool> {
        let text = self.text(text)?;
        match self.fact(list)? {
            Value::TextList(entries) => Some(entries.iter().map(String::as_str).any(|entry| entry == text)),
            _ => None,
        }
    }

    fn text(&self, operand: TextOperand) -> Option<&'a str> {
        match operand.stands_for() {
            Operand::Literal(place) => Some(self.conditions.text(place)),
            Operand::Fact(place) => match self.conditions.facts[place].read(self.facts)? {
                Value::Text(text) => Some(text),
                _ => None,
            },
            Operand::Other(_) => self.entry,
        }
    }
}

impl Comparison {
    fn holds_for(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::NotEqual => ordering.is_ne(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Networks {
    fn contain(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(address)) || self.sets.iter().any(|set| set.contains(address))
    }
}
