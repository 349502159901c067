//! The facts that conditions can name, in one table; and how each is read from a request.
//!
//! A new signal is one line in a file of `signal/` (and a field in `facts.rs` when the fact itself is new).

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::net::IpAddr;

use crate::body::{BodyFactKind, BodySlot};
use crate::decimal::Decimal;
use crate::facts::Facts;
use crate::level::Method;
use crate::schedule::Schedule;
use crate::threat::ThreatLevel;

mod client;
mod observed;
mod read;
mod request;
mod session;

use read::Read;

/// Every signal, by the part of the request that it looks at.
const SIGNALS: &[&[Signal]] = &[request::SIGNALS, client::SIGNALS, session::SIGNALS, observed::SIGNALS];

/// The name under which headers are read: `request.headers["x-name"]`.
pub(crate) const HEADERS: &str = "request.headers";

/// The name under which parameters are read: `request.query["page"]`; alone it is the whole query.
pub(crate) const QUERY: &str = "request.query";

/// The prefix under which a rule reads how long ago a factor was proved: `session.factor_age.totp`.
pub(crate) const FACTOR_AGE_PREFIX: &str = "session.factor_age.";

/// The prefix of what the configuration calls a route: `route.labels.env`.
pub(crate) const LABEL_PREFIX: &str = "route.labels.";

/// The prefix of what the configuration counts: `rate.exports`.
pub(crate) const RATE_PREFIX: &str = "rate.";

/// The prefix of facts that need the body to be read as a GraphQL request.
pub(crate) const GRAPHQL_PREFIX: &str = "graphql.";

/// The prefix under which a rule reads what it asked for from the body: `body.amount`.
pub(crate) const BODY_PREFIX: &str = "body.";

/// One named fact.
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    /// Missing without a session, and then logging in is the remedy.
    pub(crate) needs_session: bool,
    pub(crate) read: Read,
}

/// A fact that no login would supply.
const fn plain(name: &'static str, read: Read) -> Signal {
    Signal { name, needs_session: false, read }
}

/// What kind of value an expression or fact has. Checked at load; nothing is converted silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Text,
    Number,
    Duration,
    Threat,
    Address,
    TextList,
}

/// A fact's value in one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Boolean(bool),
    Text(&'a str),
    Number(Decimal),
    /// In seconds.
    Duration(Decimal),
    Threat(ThreatLevel),
    Address(IpAddr),
    TextList(&'a [String]),
}

/// A fact that a condition names, resolved at load.
#[derive(Clone, Debug)]
pub(crate) enum FactRef {
    Signal(&'static Signal),
    /// By lower-case name.
    Header(Arc<str>),
    QueryParameter(Arc<str>),
    FactorAge(Method),
    Label(Arc<str>),
    Rate {
        name: Arc<str>,
        /// Among all rates.
        slot: u32,
        needs_session: bool,
    },
    /// Whether it is a certain time.
    Within(Arc<Schedule>),
    Body {
        name: Arc<str>,
        slot: BodySlot,
        kind: BodyFactKind,
    },
}

/// The signal of that name.
pub(crate) fn signal_named(name: &str) -> Option<&'static Signal> {
    SIGNALS.iter().copied().flatten().find(|signal| signal.name == name)
}

/// The names of all signals.
pub(crate) fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().copied().flatten().map(|signal| signal.name)
}

impl FactRef {
    /// Whether it is there, in whatever form; see [`crate::HeaderLookup::has`]. `None`: that cannot be told.
    pub(crate) fn is_present(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            FactRef::Header(name) => Some(facts.request.headers.has(name)),
            FactRef::QueryParameter(name) => facts.request.parameters.is_present(name),
            FactRef::Label(name) => Some(facts.route.labels.iter().any(|(label, _)| **label == **name)),
            _ => Some(self.read(facts).is_some()),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            FactRef::Signal(signal) => signal.read.kind(),
            FactRef::Header(_) | FactRef::QueryParameter(_) | FactRef::Label(_) => Kind::Text,
            FactRef::FactorAge(_) => Kind::Duration,
            FactRef::Rate { .. } => Kind::Number,
            FactRef::Within(_) => Kind::Boolean,
            FactRef::Body { kind, .. } => kind.value_kind(),
        }
    }

    pub(crate) fn needs_session(&self) -> bool {
        match self {
            FactRef::Signal(signal) => signal.needs_session,
            FactRef::FactorAge(_) => true,
            FactRef::Rate { needs_session, .. } => *needs_session,
            _ => false,
        }
    }
}

/// As a condition would write it.
impl fmt::Display for FactRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactRef::Signal(signal) => f.write_str(signal.name),
            FactRef::Header(name) => write!(f, "{HEADERS}[\"{name}\"]"),
            FactRef::QueryParameter(name) => write!(f, "{QUERY}[{name:?}]"),
            FactRef::FactorAge(method) => write!(f, "{FACTOR_AGE_PREFIX}{method}"),
            FactRef::Label(name) => write!(f, "{LABEL_PREFIX}{name}"),
            FactRef::Rate { name, .. } => write!(f, "{RATE_PREFIX}{name}"),
            FactRef::Within(schedule) => write!(f, "{schedule}"),
            FactRef::Body { name, .. } => write!(f, "{BODY_PREFIX}{name}"),
        }
    }
}

/// As a condition would write it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Number(number) => f.write_str(&number.to_string()),
            Value::Duration(seconds) => write!(f, "duration(\"{seconds}s\")"),
            Value::Threat(level) => write!(f, "\"{level}\""),
            Value::Address(address) => write!(f, "{address}"),
            Value::TextList(texts) => write!(f, "{texts:?}"),
        }
    }
}

/// With its article, as in "`session.user` is a text".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Boolean => "a boolean",
            Kind::Text => "a text",
            Kind::Number => "a number",
            Kind::Duration => "a duration",
            Kind::Threat => "a threat level",
            Kind::Address => "an address",
            Kind::TextList => "a list of texts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_names_are_unique_and_leave_alone_what_is_named_elsewhere() {
        let names: alloc::vec::Vec<_> = signal_names().collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} twice");
            let elsewhere = [BODY_PREFIX, LABEL_PREFIX, RATE_PREFIX, FACTOR_AGE_PREFIX, HEADERS];
            assert!(!elsewhere.iter().any(|prefix| name.starts_with(prefix)), "{name}");
        }
    }
}
