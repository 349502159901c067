//! Names of facts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Checked, Checker, FactRef, Test, did_you_mean};
use crate::signal::{BODY_PREFIX, HEADERS, signal_named, signal_names};
use crate::suggest::closest_name;

impl Checker<'_> {
    /// A dotted name, or `has(…)` of one.
    pub(super) fn name(&mut self, part: &IdedExpr) -> Option<Checked> {
        let Some((name, is_presence_test)) = dotted(part) else {
            return self.complain(part, "only facts have parts, such as `session.user`".into(), None);
        };
        if name == HEADERS && !is_presence_test {
            return Some(Checked::Headers);
        }
        let Some(fact) = self.fact_named(&name) else {
            return self.refuse_name(part, &name);
        };
        self.remember(&fact);
        Some(if is_presence_test { Checked::Test(Test::Present(fact)) } else { Checked::of_fact(fact) })
    }

    /// `request.headers["x-name"]`.
    pub(super) fn header(&mut self, part: &IdedExpr, headers: &IdedExpr, name: &IdedExpr) -> Option<Checked> {
        let is_headers = matches!(dotted(headers), Some((dotted_name, false)) if dotted_name == HEADERS);
        if !is_headers {
            return self.complain(part, format!("only `{HEADERS}[\"x-name\"]` is looked up this way"), None);
        }
        let Expr::Literal(LiteralValue::String(name_text)) = &name.expr else {
            return self.complain(name, "a header's name is a literal text, such as `\"user-agent\"`".into(), None);
        };
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name_text.inner().is_empty() || !name_text.inner().bytes().all(is_token) {
            return self.complain(name, "no header has such a name".into(), None);
        }
        let fact = self.header_fact(name_text.inner());
        Some(Checked::of_fact(fact))
    }

    pub(super) fn header_fact(&mut self, name: &str) -> FactRef {
        let fact = FactRef::Header(name.to_ascii_lowercase().into());
        self.remember(&fact);
        fact
    }

    fn fact_named(&self, name: &str) -> Option<FactRef> {
        if let Some(signal) = signal_named(name) {
            return Some(FactRef::Signal(signal));
        }
        if let Some(header) = name.strip_prefix(HEADERS).and_then(|rest| rest.strip_prefix('.')) {
            return (!header.contains('.')).then(|| FactRef::Header(header.to_ascii_lowercase().into()));
        }
        let body_name = name.strip_prefix(BODY_PREFIX)?;
        self.body_facts.iter().find(|fact| *fact.name == *body_name).map(|fact| fact.fact.clone())
    }

    fn refuse_name<T>(&mut self, part: &IdedExpr, name: &str) -> Option<T> {
        let body_names: Vec<String> =
            self.body_facts.iter().map(|fact| format!("{BODY_PREFIX}{}", fact.name)).collect();
        let mut known: Vec<&str> = signal_names().chain([HEADERS]).collect();
        known.extend(body_names.iter().map(String::as_str));
        let help = if let Some(body_name) = name.strip_prefix(BODY_PREFIX) {
            match closest_name(body_name, self.body_facts.iter().map(|fact| &*fact.name)) {
                Some(close) => did_you_mean(&format!("{BODY_PREFIX}{close}")),
                None => format!("declare it: `body: {{facts: {{{body_name}: {{pointer: /{body_name}}}}}}}`"),
            }
        } else {
            closest_name(name, known.iter().copied())
                .map_or_else(|| format!("the facts are {}", known.join(", ")), did_you_mean)
        };
        self.complain(part, format!("there is no fact `{name}`"), Some(help))
    }
}

/// `a.b.c` as text, and whether it stood in `has(…)`.
fn dotted(part: &IdedExpr) -> Option<(String, bool)> {
    match &part.expr {
        Expr::Ident(name) => Some((name.clone(), false)),
        Expr::Select(select) => match dotted(&select.operand)? {
            (mut name, false) => {
                name.push('.');
                name.push_str(&select.field);
                Some((name, select.test))
            }
            (_, true) => None,
        },
        _ => None,
    }
}
