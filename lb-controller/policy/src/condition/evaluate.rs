//! The value of a condition in one request.

use core::cmp::Ordering;
use core::net::IpAddr;

use super::layout::{NumberOperand, Operand, Step, TextOperand};
use super::{Comparison, Condition, Conditions, Decimal, FactRef, Facts, Networks, TextRelation, Truth, Value};

/// Longer lists leave `exists` undecided: a session or certificate with more entries is not what a rule was written for.
const MOST_ENTRIES: usize = 256;

impl Conditions {
    /// Reads from where `condition` stands. What comes of it means nothing: the memory is wanted soon.
    pub(crate) fn touch(&self, condition: Condition) -> u32 {
        u32::from(matches!(self.steps[condition.start as usize], Step::Not))
    }
}

/// What one evaluation looks at, wherever it is along the steps.
struct Walk<'c, 's, 'a> {
    conditions: &'c Conditions,
    facts: &'s Facts<'a>,
    /// Within `exists`.
    entry: Option<&'a str>,
}

impl Conditions {
    /// The value of the condition whose steps begin at `start`.
    pub(super) fn evaluate(&self, start: u32, facts: &Facts<'_>) -> Truth {
        Walk { conditions: self, facts, entry: None }.test(start as usize).0
    }
}

impl<'c: 'a, 'a> Walk<'c, '_, 'a> {
    /// The value of the test that begins at `at`, and where the next one begins.
    fn test(&self, at: usize) -> (Truth, usize) {
        let next = at + 1;
        let value = match self.conditions.steps[at] {
            Step::Not => {
                let (truth, next) = self.test(next);
                return (truth.negated(), next);
            }
            Step::All { end } => return (self.first_decisive(next, end as usize, Truth::False), end as usize),
            Step::Any { end } => return (self.first_decisive(next, end as usize, Truth::True), end as usize),
            Step::Exists { list, end } => return (self.exists(next, list), end as usize),
            Step::SameTruth => {
                let (left, next) = self.test(next);
                let (right, next) = self.test(next);
                let is_missing = left == Truth::Missing || right == Truth::Missing;
                return (if is_missing { Truth::Missing } else { Truth::of(Some(left == right)) }, next);
            }
            Step::Constant(value) => Some(value),
            Step::Fact(fact) => self.fact(fact).boolean(self.facts),
            Step::Present(fact) => self.fact(fact).is_present(self.facts),
            Step::Number { fact, comparison, literal } => {
                let literal = &self.conditions.numbers[literal as usize];
                self.fact(fact).number(self.facts).map(|number| comparison.holds_for(number.cmp(literal)))
            }
            Step::Numbers(left, comparison, right) => self.compare(left, comparison, right),
            Step::NumberIn { number, first, length } => self.number_in(number, first, length),
            Step::Text { fact, relation, literal } => {
                let literal = self.conditions.text(literal as usize);
                self.fact(fact).text(self.facts).map(|text| relation.holds_for(text, literal))
            }
            Step::Texts(left, relation, right) => self.relate(left, relation, right),
            Step::TextIn { text, first, length } => self.text_in(text, first, length),
            Step::TextInFact(text, list) => self.text_in_fact(text, list),
            Step::AddressIn { address, networks } => {
                let networks = &self.conditions.networks[networks as usize];
                self.fact(address).address(self.facts).map(|address| networks.contain(address))
            }
            Step::ContainsLiteral(text, finder) => {
                let finder = &self.conditions.finders[finder as usize];
                self.text(text).map(|text| finder.find(text.as_bytes()).is_some())
            }
            Step::Matches(text, pattern) => {
                let pattern = &self.conditions.patterns[pattern as usize];
                self.text(text).map(|text| pattern.is_match(text))
            }
        };
        (Truth::of(value), next)
    }

    /// `&&` and `||` with a third value: one decisive part decides, whatever else is missing, in whatever order.
    fn first_decisive(&self, mut at: usize, end: usize, decisive: Truth) -> Truth {
        let mut result = decisive.negated();
        while at < end {
            let (truth, next) = self.test(at);
            if truth == decisive {
                return decisive;
            }
            if truth == Truth::Missing {
                result = Truth::Missing;
            }
            at = next;
        }
        result
    }

    fn exists(&self, test: usize, list: u32) -> Truth {
        let Some(entries) = self.fact(list).text_list(self.facts) else { return Truth::Missing };
        if entries.len() > MOST_ENTRIES {
            return Truth::Missing;
        }
        let mut result = Truth::False;
        for entry in entries {
            match (Walk { entry: Some(entry), ..*self }).test(test).0 {
                Truth::True => return Truth::True,
                Truth::Missing => result = Truth::Missing,
                Truth::False => {}
            }
        }
        result
    }

    fn fact(&self, fact: u32) -> &'c FactRef {
        &self.conditions.facts[fact as usize]
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
        match operand.stands_for() {
            Operand::Literal(place) => Some(self.conditions.numbers[place]),
            Operand::Fact(place) => self.conditions.facts[place].number(self.facts),
            Operand::Other(place) => {
                let size = match self.conditions.facts[place].read(self.facts)? {
                    Value::Text(text) => text.chars().count(),
                    Value::TextList(entries) => entries.len(),
                    _ => return None,
                };
                i64::try_from(size).ok().map(Decimal::from)
            }
        }
    }

    fn relate(&self, left: TextOperand, relation: TextRelation, right: TextOperand) -> Option<bool> {
        Some(relation.holds_for(self.text(left)?, self.text(right)?))
    }

    fn text_in(&self, text: TextOperand, first: u32, length: u16) -> Option<bool> {
        let text = self.text(text)?;
        let first = first as usize;
        Some((first..first + usize::from(length)).any(|place| self.conditions.text(place) == text))
    }

    fn text_in_fact(&self, text: TextOperand, list: u32) -> Option<bool> {
        let text = self.text(text)?;
        let entries = self.fact(list).text_list(self.facts)?;
        Some(entries.iter().any(|entry| entry == text))
    }

    fn text(&self, operand: TextOperand) -> Option<&'a str> {
        match operand.stands_for() {
            Operand::Literal(place) => Some(self.conditions.text(place)),
            Operand::Fact(place) => self.conditions.facts[place].text(self.facts),
            Operand::Other(_) => self.entry,
        }
    }
}

impl Comparison {
    /// Without a branch: how two numbers compare cannot be guessed.
    fn holds_for(self, ordering: Ordering) -> bool {
        let place = (ordering as i8 + 1) as u8;
        self as u8 >> place & 1 == 1
    }
}

impl TextRelation {
    fn holds_for(self, left: &str, right: &str) -> bool {
        match self {
            TextRelation::Equal => left == right,
            TextRelation::NotEqual => left != right,
            TextRelation::StartsWith => left.starts_with(right),
            TextRelation::EndsWith => left.ends_with(right),
            TextRelation::Contains => left.contains(right),
        }
    }
}

impl Networks {
    fn contain(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(address)) || self.sets.iter().any(|set| set.contains(address))
    }
}
