//! Functions that a condition may call.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use memchr::memmem::Finder;

use super::name::dotted;
use super::{Checked, Checker, NumberTerm, Test, TextRelation, TextTerm, did_you_mean};
use crate::decimal::Decimal;
use crate::duration;
use crate::schedule::{Schedule, ScheduleError};
use crate::signal::{FactRef, signal_names};
use crate::suggest::closest_name;
use crate::text_pattern::TextPattern;
use crate::threat::ThreatLevel;

/// Every function, and how it is used.
const FUNCTIONS: &[(&str, &str)] = &[
    ("startsWith", "request.path.startsWith(\"…\")"),
    ("endsWith", "request.path.endsWith(\"…\")"),
    ("contains", "request.path.contains(\"…\")"),
    ("glob", "request.path.glob(\"/files/*.pdf\")"),
    ("matches", "request.path.matches(\"^/[0-9]+$\")"),
    ("size", "size(request.query)"),
    ("has", "has(body.amount)"),
    ("cidr", "cidr(\"10.0.0.0/8\")"),
    ("duration", "duration(\"8h\")"),
    ("exists", "session.groups.exists(group, group.startsWith(\"…\"))"),
    ("within", "time.within(\"Europe/Berlin\", \"Mon-Fri 08:00-18:00\")"),
];

impl Checker<'_> {
    pub(super) fn function(&mut self, part: &IdedExpr, call: &CallExpr) -> Option<Checked> {
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            ("size", None, [sized]) => self.size(sized),
            ("size", Some(sized), []) => self.size(sized),
            ("cidr", None, [network]) => self.network(network),
            ("duration", None, [span]) => self.duration(span),
            ("within", Some(time), [zone, windows]) if dotted(time).is_some_and(|(name, _)| name == "time") => {
                self.within(zone, windows)
            }
            ("matches", Some(target), [pattern]) => self.pattern(target, pattern, TextPattern::regex),
            ("glob", Some(target), [pattern]) => self.pattern(target, pattern, TextPattern::glob),
            (name, Some(target), [argument]) if text_relation_of(name).is_some() => {
                let (target, argument) = (self.text(target), self.text(argument));
                Some(Checked::Test(match (text_relation_of(name)?, argument?) {
                    (TextRelation::Contains, TextTerm::Literal(text)) => {
                        Test::ContainsLiteral(target?, Box::new(Finder::new(text.as_bytes()).into_owned()))
                    }
                    (relation, argument) => Test::Texts(target?, relation, argument),
                }))
            }
            _ => self.refuse_call(part, call),
        }
    }

    /// `list.exists(entry, test)`. The parser has expanded it to a loop, as it does with `all`, `map` and the like; the
    /// loop of `exists` alone begins with `false` and goes on with `||`.
    pub(super) fn exists(&mut self, part: &IdedExpr, expanded: &ComprehensionExpr) -> Option<Checked> {
        let begins_false =
            matches!(&expanded.accu_init.expr, Expr::Literal(LiteralValue::Boolean(value)) if !*value.inner());
        let test = match &expanded.loop_step.expr {
            Expr::Call(step) if begins_false && step.func_name == operators::LOGICAL_OR => step.args.get(1),
            _ => None,
        };
        let Some(test) = test else {
            return self.complain(part, "of the functions on lists only `exists` is available".into(), None);
        };
        if self.entry.is_some() {
            return self.complain(part, "`exists` within `exists` is not available".into(), None);
        }
        let entry = &expanded.iter_var;
        let begins_a_fact = |name: &str| name.split('.').next() == Some(entry);
        if signal_names().any(begins_a_fact) || ["route", "rate", "body", "sets", "time"].contains(&entry.as_str()) {
            let help = "call the entry something that begins no fact";
            return self.complain(part, format!("`{entry}` already means something else"), Some(help.into()));
        }
        let list = self.checked(&expanded.iter_range);
        self.entry = Some(entry.clone());
        let test = self.test(test);
        self.entry = None;
        match list? {
            Checked::TextList(list) => Some(Checked::Test(Test::Exists(list, Box::new(test?)))),
            other => {
                let message = format!("`exists` looks into a fact that is a list; this is {}", other.described());
                self.complain(&expanded.iter_range, message, None)
            }
        }
    }

    fn duration(&mut self, part: &IdedExpr) -> Option<Checked> {
        let text = self.literal_text(part, "duration")?;
        match duration::parse(&text) {
            Some(seconds) => Some(Checked::Duration(NumberTerm::Literal(seconds))),
            None => {
                let help = "write whole numbers with units: 250ms, 90s, 1h30m, 7d";
                self.complain(part, format!("`{text}` is no duration"), Some(help.into()))
            }
        }
    }

    fn within(&mut self, zone_part: &IdedExpr, windows_part: &IdedExpr) -> Option<Checked> {
        let (zone, windows) = (self.literal_text(zone_part, "within"), self.literal_text(windows_part, "within"));
        match Schedule::parse(&zone?, &windows?) {
            Ok(schedule) => {
                let fact = FactRef::Within(Arc::new(schedule));
                self.remember(&fact);
                Some(Checked::of_fact(fact))
            }
            Err(ScheduleError::Zone { message, help }) => self.complain(zone_part, message, Some(help)),
            Err(ScheduleError::Windows { message, help }) => self.complain(windows_part, message, Some(help)),
        }
    }

    fn pattern(
        &mut self,
        target: &IdedExpr,
        pattern_part: &IdedExpr,
        compile: fn(&str) -> Result<TextPattern, String>,
    ) -> Option<Checked> {
        let (target, pattern) = (self.text(target), self.literal_text(pattern_part, "matches"));
        match compile(&pattern?) {
            Ok(pattern) => Some(Checked::Test(Test::Matches(target?, Box::new(pattern)))),
            Err(problem) => self.complain(pattern_part, problem, None),
        }
    }

    /// The name of a threat level, as a number in their order.
    pub(super) fn threat_level(&mut self, part: &IdedExpr, name: &str) -> Option<NumberTerm> {
        if let Some(level) = ThreatLevel::from_name(name) {
            return Some(NumberTerm::Literal(Decimal::from(level as i64)));
        }
        let help = closest_name(name, ThreatLevel::names()).map_or_else(
            || format!("the levels are {}", ThreatLevel::names().collect::<alloc::vec::Vec<_>>().join(", ")),
            did_you_mean,
        );
        self.complain(part, format!("there is no threat level `{name}`"), Some(help))
    }

    fn literal_text(&mut self, part: &IdedExpr, function: &str) -> Option<String> {
        match &part.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_string()),
            _ => self.complain(part, "this is fixed when the rule is read: a literal text".into(), usage_of(function)),
        }
    }

    pub(super) fn text(&mut self, part: &IdedExpr) -> Option<TextTerm> {
        match self.checked(part)? {
            Checked::Text(text) => Some(text),
            other => self.complain(part, format!("this is {}, where a text is needed", other.described()), None),
        }
    }

    fn size(&mut self, part: &IdedExpr) -> Option<Checked> {
        match self.checked(part)? {
            Checked::Text(TextTerm::Fact(fact)) | Checked::TextList(fact) => {
                Some(Checked::Number(NumberTerm::SizeOf(fact)))
            }
            other => {
                let message = format!("`size` takes a fact that is a text or a list; this is {}", other.described());
                self.complain(part, message, None)
            }
        }
    }

    fn refuse_call(&mut self, part: &IdedExpr, call: &CallExpr) -> Option<Checked> {
        let name = call.func_name.as_str();
        match name {
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE => self.complain(part, "conditions do not calculate".into(), None),
            operators::CONDITIONAL => {
                let help = "write `(a && b) || (!a && c)`";
                self.complain(part, "`a ? b : c` is not available".into(), Some(help.into()))
            }
            _ if usage_of(name).is_some() => {
                let message = format!("`{name}` is used like this: {}", usage_of(name).unwrap_or_default());
                self.complain(part, message, None)
            }
            _ => {
                let names = || FUNCTIONS.iter().map(|row| row.0);
                let help = closest_name(name, names()).map_or_else(
                    || format!("the functions are {}", names().collect::<alloc::vec::Vec<_>>().join(", ")),
                    did_you_mean,
                );
                self.complain(part, format!("there is no function `{name}`"), Some(help))
            }
        }
    }
}

fn usage_of(function: &str) -> Option<String> {
    FUNCTIONS.iter().find(|row| row.0 == function).map(|row| format!("`{}`", row.1))
}

fn text_relation_of(function: &str) -> Option<TextRelation> {
    Some(match function {
        "startsWith" => TextRelation::StartsWith,
        "endsWith" => TextRelation::EndsWith,
        "contains" => TextRelation::Contains,
        _ => return None,
    })
}
