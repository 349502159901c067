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

mod client;
mod request;
mod session;

/// Every signal, by the part of the request that it looks at.
const SIGNALS: &[&[Signal]] = &[request::SIGNALS, client::SIGNALS, session::SIGNALS];

/// The name under which headers are read: `request.headers["x-name"]`.
pub(crate) const HEADERS: &str = "request.headers";

/// The prefix under which a rule reads what it asked for from the body: `body.amount`.
pub(crate) const BODY_PREFIX: &str = "body.";

/// One named fact.
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Missing without a session, and then logging in is the remedy.
    pub(crate) needs_session: bool,
    pub(crate) read: for<'a> fn(&Facts<'a>) -> Option<Value<'a>>,
}

/// What kind of value an expression or fact has. Checked at load; nothing is converted silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Text,
    Number,
    Address,
    TextList,
}

/// A fact's value in one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Boolean(bool),
    Text(&'a str),
    Number(Decimal),
    Address(IpAddr),
    TextList(&'a [String]),
}

/// A fact that a condition names, resolved at load.
#[derive(Clone, Debug)]
pub(crate) enum FactRef {
    Signal(&'static Signal),
    /// By lower-case name.
    Header(Arc<str>),
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
    /// The value in this request; `None` when missing.
    pub(crate) fn read<'a>(&self, facts: &Facts<'a>) -> Option<Value<'a>> {
        match self {
            FactRef::Signal(signal) => (signal.read)(facts),
            FactRef::Header(name) => facts.request.headers.header(name).map(Value::Text),
            FactRef::Body { slot, .. } => facts.body.value(*slot),
        }
    }

    /// Whether it is there, in whatever form; see [`crate::HeaderLookup::has`].
    pub(crate) fn is_present(&self, facts: &Facts<'_>) -> bool {
        match self {
            FactRef::Header(name) => facts.request.headers.has(name),
            FactRef::Signal(_) | FactRef::Body { .. } => self.read(facts).is_some(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            FactRef::Signal(signal) => signal.kind,
            FactRef::Header(_) => Kind::Text,
            FactRef::Body { kind, .. } => kind.value_kind(),
        }
    }

    pub(crate) fn needs_session(&self) -> bool {
        matches!(self, FactRef::Signal(signal) if signal.needs_session)
    }
}

/// As a condition would write it.
impl fmt::Display for FactRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactRef::Signal(signal) => f.write_str(signal.name),
            FactRef::Header(name) => write!(f, "{HEADERS}[\"{name}\"]"),
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
            Kind::Address => "an address",
            Kind::TextList => "a list of texts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_names_are_unique_and_dotted_and_leave_headers_and_body_alone() {
        let names: alloc::vec::Vec<_> = signal_names().collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} twice");
            assert_eq!(name.split('.').count(), 2, "{name}");
            assert!(*name != HEADERS && !name.starts_with(BODY_PREFIX), "{name}");
        }
    }
}
