//! The value of a condition in one request.

use core::cmp::Ordering;
use core::net::IpAddr;

use super::exits::Next;
use super::layout::{NumberOperand, Operand, Simple, TextOperand};
use super::{Comparison, Condition, Conditions, Decimal, FactRef, Facts, Networks, TextRelation, Truth, Value};

/// Longer lists leave `exists` undecided: a session or certificate with more entries is not what a rule was written for.
const MOST_ENTRIES: usize = 256;

impl Conditions {
    /// Reads from where `condition` stands. What comes of it means nothing: the memory is wanted soon.
    pub(crate) fn touch(&self, condition: Condition) -> u32 {
        u32::from(self.steps[condition.start as usize].exits.if_missing(false))
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
        Walk { conditions: self, facts, entry: None }.truth(start as usize)
    }
}

impl<'c: 'a, 'a> Walk<'c, '_, 'a> {
    /// The value of the steps from `start` on. One decisive part decides, whatever else is missing, in whatever order: what
    /// comes to true with missing facts against it is true, what comes to false with them for it is false.
    fn truth(&self, start: usize) -> Truth {
        let (value, first_missing) = self.follow(start, false);
        match first_missing {
            _ if value => Truth::True,
            Some(at) if self.could_hold(at) => Truth::Missing,
            _ => Truth::False,
        }
    }

    /// Whether the steps come to true with missing facts for it. The one at `at` lacks a fact, and those before do not. It is
    /// not tried again: `a == b == c == …` would be tried twice as often for each part.
    #[cold]
    fn could_hold(&self, at: usize) -> bool {
        let exits = self.conditions.steps[at].exits;
        match exits.next(exits.if_missing(true)) {
            Next::Ahead(steps) => self.follow(at + steps, true).0,
            Next::End(value) => value,
        }
    }

    /// Goes along the steps from `at`. Returns what they come to if missing facts count as `assumed`, and the first that lacks
    /// one.
    fn follow(&self, mut at: usize, assumed: bool) -> (bool, Option<usize>) {
        let mut first_missing = None;
        loop {
            let step = &self.conditions.steps[at];
            let value = self.test(step.test, at).unwrap_or_else(|| {
                first_missing = first_missing.or(Some(at));
                step.exits.if_missing(assumed)
            });
            match step.exits.next(value) {
                Next::Ahead(steps) => at += steps,
                Next::End(value) => return (value, first_missing),
            }
        }
    }

    /// The value of the test of the step that stands at `at`; `None` for want of a fact.
    #[inline(always)]
    fn test(&self, test: Simple, at: usize) -> Option<bool> {
        match test {
            Simple::Constant(value) => Some(value),
            Simple::Fact(fact) => self.fact(fact).boolean(self.facts),
            Simple::Present(fact) => self.fact(fact).is_present(self.facts),
            Simple::SameTruth { right } => self.same_truth(at + 1, right as usize),
            Simple::Count { fact, comparison, literal } => {
                self.fact(fact).count(self.facts).map(|count| comparison.holds_for(count.cmp(&u64::from(literal))))
            }
            Simple::Numbers(left, comparison, right) => self.compare(left, comparison, right),
            Simple::NumberIn { number, first, length } => self.number_in(number, first, length),
            Simple::Text { fact, relation, start, length } => {
                let literal = self.conditions.single(start, length);
                self.fact(fact).text(self.facts).map(|text| relation.holds_for(text, literal))
            }
            Simple::Texts(left, relation, right) => self.relate(left, relation, right),
            Simple::TextIn { text, first, length } => self.text_in(text, first, length),
            Simple::LiteralInFact { start, length, list } => {
                let literal = self.conditions.single(start, length);
                self.fact(list).text_list(self.facts).map(|entries| entries.iter().any(|entry| entry == literal))
            }
            Simple::TextInFact(text, list) => self.text_in_fact(text, list),
            Simple::AddressIn { address, networks } => {
                let networks = &self.conditions.networks[networks as usize];
                self.fact(address).address(self.facts).map(|address| networks.contain(address))
            }
            Simple::ContainsLiteral(text, finder) => {
                let finder = &self.conditions.finders[finder as usize];
                self.text(text).map(|text| finder.find(text.as_bytes()).is_some())
            }
            Simple::Matches(text, pattern) => {
                let pattern = &self.conditions.patterns[pattern as usize];
                self.text(text).map(|text| pattern.is_match(text))
            }
            Simple::Exists { list } => self.exists(at + 1, list),
        }
    }

    #[inline(never)]
    fn same_truth(&self, left: usize, right: usize) -> Option<bool> {
        match (self.truth(left), self.truth(right)) {
            (Truth::Missing, _) | (_, Truth::Missing) => None,
            (left, right) => Some(left == right),
        }
    }

    #[inline(never)]
    fn exists(&self, test: usize, list: u32) -> Option<bool> {
        let entries = self.fact(list).text_list(self.facts)?;
        if entries.len() > MOST_ENTRIES {
            return None;
        }
        let mut result = Some(false);
        for entry in entries {
            match (Walk { entry: Some(entry), ..*self }).truth(test) {
                Truth::True => return Some(true),
                Truth::Missing => result = None,
                Truth::False => {}
            }
        }
        result
    }

    fn fact(&self, fact: u32) -> &'c FactRef {
        &self.conditions.facts[fact as usize]
    }

    #[inline(never)]
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

    #[inline(never)]
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
