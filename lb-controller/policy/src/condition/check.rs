//! The type checker: syntax tree in, typed [`Test`] out, every mistake reported with its place.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};

use super::parse::Syntax;
use super::{Comparison, ConditionError, Names, Networks, NumberTerm, Test, TextRelation, TextTerm};
use crate::decimal::Decimal;
use crate::network::Network;
use crate::rule::Span;
use crate::signal::{FactRef, Kind, QUERY};

mod function;
mod literal;
mod name;

/// A list in a condition has at most this many entries: membership is a walk along it.
const MAX_LIST: usize = 256;

/// Checks a parsed condition. Returns its test and the facts that it names.
pub(super) fn check(syntax: &Syntax<'_>, names: Names<'_>) -> Result<(Test, Vec<FactRef>), Vec<ConditionError>> {
    let mut checker = Checker { syntax, names, entry: None, facts: Vec::new(), errors: Vec::new() };
    match checker.test(&syntax.root) {
        Some(test) if checker.errors.is_empty() => Ok((test, checker.facts)),
        _ => Err(checker.errors),
    }
}

/// A checked part of a condition.
enum Checked {
    Test(Test),
    Number(NumberTerm),
    Text(TextTerm),
    /// In seconds.
    Duration(NumberTerm),
    Threat(FactRef),
    Address(FactRef),
    TextList(FactRef),
    Headers,
    Numbers(Vec<Decimal>),
    Texts(Vec<Box<str>>),
    Networks(Networks),
    EmptyList,
}

/// Methods return `None` once they have put their complaint into `errors`.
struct Checker<'a> {
    syntax: &'a Syntax<'a>,
    names: Names<'a>,
    /// What `exists` calls the entry at hand.
    entry: Option<String>,
    facts: Vec<FactRef>,
    errors: Vec<ConditionError>,
}

impl Checker<'_> {
    /// A part that must be true or false.
    fn test(&mut self, part: &IdedExpr) -> Option<Test> {
        match self.checked(part)? {
            Checked::Test(test) => Some(test),
            other => {
                let message = format!("this is {}, where a condition is needed", other.described());
                self.complain(part, message, Some("compare it with something".into()))
            }
        }
    }

    fn checked(&mut self, part: &IdedExpr) -> Option<Checked> {
        match &part.expr {
            Expr::Literal(value) => self.literal(part, value),
            Expr::Ident(_) | Expr::Select(_) => self.name(part),
            Expr::List(list) => self.list(part, &list.elements),
            Expr::Call(call) => self.call(part, call),
            Expr::Comprehension(comprehension) => self.exists(part, comprehension),
            Expr::Map(_) | Expr::Struct(_) => self.complain(part, "maps and messages are not available".into(), None),
            Expr::Unspecified => self.complain(part, "the condition is not complete".into(), None),
        }
    }

    fn call(&mut self, part: &IdedExpr, call: &CallExpr) -> Option<Checked> {
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [left, right]) => self.logic(call, left, right),
            (operators::LOGICAL_NOT, None, [test]) => {
                self.test(test).map(|test| Checked::Test(Test::Not(Box::new(test))))
            }
            (operators::IN, None, [item, list]) => self.membership(part, item, list),
            (operators::INDEX, None, [indexed, name]) => self.indexed(part, indexed, name),
            (name, None, [left, right]) if comparison_of(name).is_some() => {
                self.compare(part, left, comparison_of(name)?, right)
            }
            _ => self.function(part, call),
        }
    }

    fn logic(&mut self, call: &CallExpr, left: &IdedExpr, right: &IdedExpr) -> Option<Checked> {
        let (left, right) = (self.test(left), self.test(right));
        let (left, right) = (left?, right?);
        let mut tests = Vec::new();
        Some(Checked::Test(if call.func_name == operators::LOGICAL_AND {
            for test in [left, right] {
                match test {
                    Test::All(inner) => tests.extend(inner),
                    other => tests.push(other),
                }
            }
            Test::All(tests)
        } else {
            for test in [left, right] {
                match test {
                    Test::Any(inner) => tests.extend(inner),
                    other => tests.push(other),
                }
            }
            Test::Any(tests)
        }))
    }

    fn compare(
        &mut self,
        part: &IdedExpr,
        left_part: &IdedExpr,
        comparison: Comparison,
        right_part: &IdedExpr,
    ) -> Option<Checked> {
        let (left, right) = (self.checked(left_part), self.checked(right_part));
        let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let test = match (left?, right?) {
            (Checked::Number(left), Checked::Number(right)) | (Checked::Duration(left), Checked::Duration(right)) => {
                Test::Numbers(left, comparison, right)
            }
            (Checked::Threat(fact), Checked::Text(TextTerm::Literal(name))) => {
                Test::Numbers(NumberTerm::Fact(fact), comparison, self.threat_level(right_part, &name)?)
            }
            (Checked::Text(TextTerm::Literal(name)), Checked::Threat(fact)) => {
                Test::Numbers(self.threat_level(left_part, &name)?, comparison, NumberTerm::Fact(fact))
            }
            (Checked::Duration(_), Checked::Number(_)) | (Checked::Number(_), Checked::Duration(_)) => {
                let help = "write the span as `duration(\"8h\")`";
                return self.complain(part, "a duration is compared with a duration".into(), Some(help.into()));
            }
            (Checked::Text(left), Checked::Text(right)) if comparison == Comparison::Equal => {
                Test::Texts(left, TextRelation::Equal, right)
            }
            (Checked::Text(left), Checked::Text(right)) if comparison == Comparison::NotEqual => {
                Test::Texts(left, TextRelation::NotEqual, right)
            }
            (Checked::Test(left), Checked::Test(right)) if comparison == Comparison::Equal => {
                Test::SameTruth(Box::new(left), Box::new(right))
            }
            (Checked::Test(left), Checked::Test(right)) if comparison == Comparison::NotEqual => {
                Test::Not(Box::new(Test::SameTruth(Box::new(left), Box::new(right))))
            }
            (Checked::Address(_), _) | (_, Checked::Address(_)) => {
                let help = "write `client.address in cidr(\"192.0.2.0/24\")`";
                return self.complain(part, "an address is compared with `in` only".into(), Some(help.into()));
            }
            (left, right) if !equality && left.described() == right.described() => {
                let message = format!("only numbers and durations have an order; this is {}", left.described());
                return self.complain(part, message, None);
            }
            (left, right) => {
                let message = format!("cannot compare {} with {}", left.described(), right.described());
                return self.complain(part, message, None);
            }
        };
        Some(Checked::Test(test))
    }

    fn membership(&mut self, part: &IdedExpr, item_part: &IdedExpr, list_part: &IdedExpr) -> Option<Checked> {
        let (item, list) = (self.checked(item_part), self.checked(list_part));
        let test = match (item?, list?) {
            (Checked::Text(text), Checked::TextList(list)) => Test::TextInFact(text, list),
            (Checked::Text(text), Checked::Texts(list)) => Test::TextIn(text, list),
            (Checked::Text(TextTerm::Literal(name)), Checked::Headers) => Test::Present(self.header_fact(&name)),
            (Checked::Text(TextTerm::Literal(name)), Checked::Text(TextTerm::Fact(FactRef::Signal(signal))))
                if signal.name == QUERY =>
            {
                Test::Present(self.query_parameter(&name))
            }
            (Checked::Number(number), Checked::Numbers(list)) => Test::NumberIn(number, list),
            (Checked::Address(address), Checked::Networks(networks)) => Test::AddressIn(address, Box::new(networks)),
            (Checked::Address(_), Checked::Texts(_) | Checked::Text(_)) => {
                let help = "write `client.address in cidr(\"192.0.2.0/24\")`";
                return self.complain(list_part, "an address is looked up in `cidr(…)`".into(), Some(help.into()));
            }
            (_, Checked::EmptyList) => return self.complain(list_part, "nothing is in an empty list".into(), None),
            (Checked::Text(_), Checked::Text(_)) => {
                let help = "to find a text inside another, write `….contains(…)`";
                return self.complain(list_part, "`in` looks into lists".into(), Some(help.into()));
            }
            (item, list) => {
                let message = format!("{} is never in {}", item.described(), list.described());
                return self.complain(part, message, None);
            }
        };
        Some(Checked::Test(test))
    }

    fn remember(&mut self, fact: &FactRef) {
        let name = fact.to_string();
        if self.facts.iter().all(|known| known.to_string() != name) {
            self.facts.push(fact.clone());
        }
    }

    fn complain<T>(&mut self, part: &IdedExpr, message: String, help: Option<String>) -> Option<T> {
        self.complain_at(self.syntax.span(part), message, help)
    }

    fn complain_at<T>(&mut self, span: Span, message: String, help: Option<String>) -> Option<T> {
        self.errors.push(ConditionError { span, message, help });
        None
    }
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

fn comparison_of(operator: &str) -> Option<Comparison> {
    Some(match operator {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

impl Checked {
    fn of_fact(fact: FactRef) -> Checked {
        match fact.kind() {
            Kind::Boolean => Checked::Test(Test::Fact(fact)),
            Kind::Text => Checked::Text(TextTerm::Fact(fact)),
            Kind::Number => Checked::Number(NumberTerm::Fact(fact)),
            Kind::Duration => Checked::Duration(NumberTerm::Fact(fact)),
            Kind::Threat => Checked::Threat(fact),
            Kind::Address => Checked::Address(fact),
            Kind::TextList => Checked::TextList(fact),
        }
    }

    /// For messages, with its article.
    fn described(&self) -> String {
        match self {
            Checked::Test(_) => Kind::Boolean.to_string(),
            Checked::Number(_) => Kind::Number.to_string(),
            Checked::Duration(_) => Kind::Duration.to_string(),
            Checked::Threat(_) => Kind::Threat.to_string(),
            Checked::Text(_) => Kind::Text.to_string(),
            Checked::Address(_) => Kind::Address.to_string(),
            Checked::TextList(_) | Checked::Texts(_) => Kind::TextList.to_string(),
            Checked::Headers => "all headers together".into(),
            Checked::Numbers(_) => "a list of numbers".into(),
            Checked::Networks(_) => "a set of addresses".into(),
            Checked::EmptyList => "an empty list".into(),
        }
    }
}
