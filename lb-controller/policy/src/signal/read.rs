//! How facts are read from a request.
//!
//! Every kind of fact has a way of its own, so that what comes back fits into registers: a decision reads dozens of facts,
//! and one type for all of them would go through memory each time.

use alloc::string::String;
use core::net::IpAddr;

use super::{FactRef, Kind, Value};
use crate::decimal::Decimal;
use crate::facts::Facts;
use crate::threat::ThreatLevel;

/// Reads a signal of its kind from a request; `None` when missing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Read {
    Boolean(fn(&Facts<'_>) -> Option<bool>),
    Text(for<'a> fn(&Facts<'a>) -> Option<&'a str>),
    /// A number that counts something.
    Count(fn(&Facts<'_>) -> Option<u64>),
    /// A duration.
    Seconds(fn(&Facts<'_>) -> Option<u64>),
    Threat(fn(&Facts<'_>) -> Option<ThreatLevel>),
    Address(fn(&Facts<'_>) -> Option<IpAddr>),
    TextList(for<'a> fn(&Facts<'a>) -> Option<&'a [String]>),
}

impl Read {
    pub(super) fn kind(self) -> Kind {
        match self {
            Read::Boolean(_) => Kind::Boolean,
            Read::Text(_) => Kind::Text,
            Read::Count(_) => Kind::Number,
            Read::Seconds(_) => Kind::Duration,
            Read::Threat(_) => Kind::Threat,
            Read::Address(_) => Kind::Address,
            Read::TextList(_) => Kind::TextList,
        }
    }

    fn value<'a>(self, facts: &Facts<'a>) -> Option<Value<'a>> {
        match self {
            Read::Boolean(read) => read(facts).map(Value::Boolean),
            Read::Text(read) => read(facts).map(Value::Text),
            Read::Count(read) => read(facts).map(Decimal::count).map(Value::Number),
            Read::Seconds(read) => read(facts).map(Decimal::count).map(Value::Duration),
            Read::Threat(read) => read(facts).map(Value::Threat),
            Read::Address(read) => read(facts).map(Value::Address),
            Read::TextList(read) => read(facts).map(Value::TextList),
        }
    }
}

impl FactRef {
    /// The value in this request; `None` when missing.
    pub(crate) fn read<'a>(&self, facts: &Facts<'a>) -> Option<Value<'a>> {
        match self {
            FactRef::Signal(signal) => signal.read.value(facts),
            FactRef::Header(_) | FactRef::QueryParameter(_) | FactRef::Label(_) => self.text(facts).map(Value::Text),
            FactRef::FactorAge(_) => self.number(facts).map(Value::Duration),
            FactRef::Rate { .. } => self.number(facts).map(Value::Number),
            FactRef::Within(_) => self.boolean(facts).map(Value::Boolean),
            FactRef::Body { slot, .. } => facts.body.value(*slot),
        }
    }

    /// The value of a fact that is true or false.
    pub(crate) fn boolean(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            FactRef::Signal(signal) => match signal.read {
                Read::Boolean(read) => read(facts),
                _ => None,
            },
            FactRef::Within(schedule) => Some(schedule.contains(facts.now)),
            FactRef::Body { slot, .. } => match facts.body.value(*slot)? {
                Value::Boolean(value) => Some(value),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a fact that is a text.
    pub(crate) fn text<'a>(&self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            FactRef::Signal(signal) => match signal.read {
                Read::Text(read) => read(facts),
                _ => None,
            },
            FactRef::Header(name) => facts.request.headers.header(name),
            FactRef::QueryParameter(name) => facts.request.parameters.value(name),
            FactRef::Label(name) => {
                // What the configuration does not say is not unknown: this route has no such label.
                let label = facts.route.labels.iter().find(|(label, _)| **label == **name);
                Some(label.map_or("", |(_, value)| value))
            }
            FactRef::Body { slot, .. } => match facts.body.value(*slot)? {
                Value::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it is a number that counts something, unlike one that a client writes.
    pub(crate) fn is_count(&self) -> bool {
        !matches!(self, FactRef::Body { .. })
    }

    /// The value of a fact that is compared as a number: durations are seconds, threat levels their rank.
    pub(crate) fn number(&self, facts: &Facts<'_>) -> Option<Decimal> {
        match self {
            FactRef::Body { slot, .. } => match facts.body.value(*slot)? {
                Value::Number(number) => Some(number),
                _ => None,
            },
            _ => self.count(facts).map(Decimal::count),
        }
    }

    /// The same of one that counts something.
    #[inline(always)]
    pub(crate) fn count(&self, facts: &Facts<'_>) -> Option<u64> {
        match self {
            FactRef::Signal(signal) => match signal.read {
                Read::Count(read) | Read::Seconds(read) => read(facts),
                Read::Threat(read) => read(facts).map(|level| level as u64),
                _ => None,
            },
            FactRef::FactorAge(method) => {
                let ages = facts.session?.factors.iter().filter(|factor| factor.method == *method);
                ages.filter_map(|factor| factor.age_seconds(facts.now)).min()
            }
            FactRef::Rate { slot, .. } => facts.observed.rates.get(*slot as usize).copied().flatten(),
            _ => None,
        }
    }

    /// The value of a fact that is an address.
    pub(crate) fn address(&self, facts: &Facts<'_>) -> Option<IpAddr> {
        match self {
            FactRef::Signal(signal) => match signal.read {
                Read::Address(read) => read(facts),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a fact that is a list of texts.
    pub(crate) fn text_list<'a>(&self, facts: &Facts<'a>) -> Option<&'a [String]> {
        match self {
            FactRef::Signal(signal) => match signal.read {
                Read::TextList(read) => read(facts),
                _ => None,
            },
            _ => None,
        }
    }
}
