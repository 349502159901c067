//! Names of facts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Checked, Checker, FactRef, Networks, Test, TextTerm, did_you_mean};
use crate::condition::NamedBodyFact;
use crate::level::Method;
use crate::signal::{
    BODY_PREFIX, FACTOR_AGE_PREFIX, HEADERS, LABEL_PREFIX, QUERY, RATE_PREFIX, signal_named, signal_names,
};
use crate::suggest::closest_name;

/// The prefix of named sets of networks: `client.address in sets.office`.
const SET_PREFIX: &str = "sets.";

impl Checker<'_> {
    /// A dotted name, or `has(…)` of one.
    pub(super) fn name(&mut self, part: &IdedExpr) -> Option<Checked> {
        let Some((name, is_presence_test)) = dotted(part) else {
            return self.complain(part, "only facts have parts, such as `session.user`".into(), None);
        };
        if self.entry.as_deref() == Some(&name) && !is_presence_test {
            return Some(Checked::Text(TextTerm::Entry));
        }
        if name == HEADERS && !is_presence_test {
            return Some(Checked::Headers);
        }
        if let Some(set) = name.strip_prefix(SET_PREFIX).filter(|_| !is_presence_test) {
            return self.prefix_set(part, set);
        }
        let Some(fact) = self.fact_named(&name) else {
            return self.refuse_name(part, &name);
        };
        self.remember(&fact);
        Some(if is_presence_test { Checked::Test(Test::Present(fact)) } else { Checked::of_fact(fact) })
    }

    /// `request.headers["x-name"]` or `request.query["name"]`.
    pub(super) fn indexed(&mut self, part: &IdedExpr, indexed: &IdedExpr, name: &IdedExpr) -> Option<Checked> {
        let is_query = match dotted(indexed) {
            Some((indexed, false)) if indexed == HEADERS => false,
            Some((indexed, false)) if indexed == QUERY => true,
            _ => {
                let message = format!("only `{HEADERS}[\"x-name\"]` and `{QUERY}[\"name\"]` are looked up this way");
                return self.complain(part, message, None);
            }
        };
        let Expr::Literal(LiteralValue::String(name_text)) = &name.expr else {
            return self.complain(name, "a name is a literal text here, such as `\"user-agent\"`".into(), None);
        };
        let name_text = name_text.inner();
        if is_query {
            return Some(Checked::of_fact(self.query_parameter(name_text)));
        }
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name_text.is_empty() || !name_text.bytes().all(is_token) {
            return self.complain(name, "no header has such a name".into(), None);
        }
        Some(Checked::of_fact(self.header_fact(name_text)))
    }

    pub(super) fn query_parameter(&mut self, name: &str) -> FactRef {
        let fact = FactRef::QueryParameter(name.into());
        self.remember(&fact);
        fact
    }

    fn prefix_set(&mut self, part: &IdedExpr, name: &str) -> Option<Checked> {
        let sets = &self.names.vocabulary.prefix_sets;
        if let Some((_, set)) = sets.iter().find(|(known, _)| known == name) {
            let networks = Networks { sets: alloc::vec![set.clone()], ..Networks::default() };
            return Some(Checked::Networks(networks));
        }
        let help = match closest_name(name, sets.iter().map(|(name, _)| name.as_str())) {
            Some(close) => did_you_mean(&format!("{SET_PREFIX}{close}")),
            None => format!("define it: `sets: {{{name}: [192.0.2.0/24]}}`, beside `rules`"),
        };
        self.complain(part, format!("there is no set `{name}`"), Some(help))
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
        if let Some(method) = name.strip_prefix(FACTOR_AGE_PREFIX) {
            return Method::from_name(method).map(FactRef::FactorAge);
        }
        let vocabulary = self.names.vocabulary;
        if let Some(label) = name.strip_prefix(LABEL_PREFIX) {
            let label = vocabulary.route_labels.iter().find(|known| *known == label)?;
            return Some(FactRef::Label(label.as_str().into()));
        }
        if let Some(rate) = name.strip_prefix(RATE_PREFIX) {
            let (slot, rate) = (0..).zip(&vocabulary.rates).find(|(_, known)| known.name == rate)?;
            return Some(FactRef::Rate { name: rate.name.as_str().into(), slot, needs_session: rate.needs_session });
        }
        let body_name = name.strip_prefix(BODY_PREFIX)?;
        self.names.body.iter().find(|fact| *fact.name == *body_name).map(NamedBodyFact::fact)
    }

    fn refuse_name<T>(&mut self, part: &IdedExpr, name: &str) -> Option<T> {
        let known = self.known_names();
        // Of names that share a prefix only what follows tells which was meant.
        let prefixes = [BODY_PREFIX, LABEL_PREFIX, RATE_PREFIX, FACTOR_AGE_PREFIX];
        let prefix = prefixes.into_iter().find(|prefix| name.starts_with(prefix)).unwrap_or_default();
        let known = || known.iter().map(String::as_str);
        let alike = known().filter_map(|name| name.strip_prefix(prefix));
        let close = closest_name(&name[prefix.len()..], alike).map(|close| format!("{prefix}{close}"));
        let help = match (close, name.rsplit_once('.')) {
            (Some(close), _) => did_you_mean(&close),
            (None, Some(("body", fact))) => format!("declare it: `body: {{facts: {{{fact}: {{pointer: /{fact}}}}}}}`"),
            (None, Some(("route.labels", label))) => {
                format!("no route has this label; give it to one: `labels: {{{label}: …}}`")
            }
            (None, Some(("rate", rate))) => {
                format!("define it: `rates: {{{rate}: {{by: user, within: 10m}}}}`, beside `rules`")
            }
            (None, prefix) => {
                let prefix = prefix.map_or("", |(prefix, _)| prefix.split('.').next().unwrap_or_default());
                let alike: Vec<&str> = known().filter(|name| name.split('.').next() == Some(prefix)).collect();
                if alike.is_empty() {
                    "facts begin with `request.`, `client.`, `session.`, `route.labels.`, `rate.`, `signals.`, \
                     `graphql.` or `body.`, or are `threat`"
                        .into()
                } else {
                    format!("the facts are {}", alike.join(", "))
                }
            }
        };
        self.complain(part, format!("there is no fact `{name}`"), Some(help))
    }

    /// Every name that would have been right, in the order of its kind.
    fn known_names(&self) -> Vec<String> {
        let vocabulary = self.names.vocabulary;
        let labels = vocabulary.route_labels.iter().map(|label| format!("{LABEL_PREFIX}{label}"));
        let rates = vocabulary.rates.iter().map(|rate| format!("{RATE_PREFIX}{}", rate.name));
        let ages = Method::all().map(|method| format!("{FACTOR_AGE_PREFIX}{method}"));
        let body = self.names.body.iter().map(|fact| format!("{BODY_PREFIX}{}", fact.name));
        let plain = signal_names().chain([HEADERS]).map(String::from);
        plain.chain(ages).chain(labels).chain(rates).chain(body).collect()
    }
}

/// `a.b.c` as text, and whether it stood in `has(…)`.
pub(super) fn dotted(part: &IdedExpr) -> Option<(String, bool)> {
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
