//! Limits that rules set. What was taken of them is for the caller to remember; here is what they are.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decide::Permit;

/// At most so many requests in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rule: Arc<str>,
    /// At least 1.
    pub requests: u32,
    pub per_seconds: u64,
    pub counted_by: CountedBy,
}

/// Whose requests count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountedBy {
    User,
    Session,
    Device,
    /// An IPv4 address or an IPv6 /64.
    Source,
    /// All that a rule or a rate is about, whoever sends it.
    Action,
}

const NAMES: &[(CountedBy, &str)] = &[
    (CountedBy::User, "user"),
    (CountedBy::Session, "session"),
    (CountedBy::Device, "device"),
    (CountedBy::Source, "source"),
    (CountedBy::Action, "action"),
];

/// A limit as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSource {
    pub requests: u64,
    pub per_seconds: u64,
    pub counted_by: CountedBy,
}

/// A permit that limits stand before. The only way to it is through [`WithinLimits::take`].
#[derive(Debug)]
pub struct WithinLimits {
    pub(crate) limits: Vec<Limit>,
    pub(crate) permit: Permit,
}

impl WithinLimits {
    /// In order of their rules.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The permit, once `take` has taken one request from all limits. `Err` is what `take` says of a limit without room.
    pub fn take<E>(self, take: impl FnOnce(&[Limit]) -> Result<(), E>) -> Result<Permit, E> {
        take(&self.limits)?;
        Ok(self.permit)
    }
}

impl CountedBy {
    /// The choice that rules call `name`.
    pub fn from_name(name: &str) -> Option<CountedBy> {
        NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The names of all choices.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|row| row.1)
    }

    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// Whether there is nobody to count for without a session.
    pub fn needs_session(self) -> bool {
        matches!(self, CountedBy::User | CountedBy::Session)
    }
}

impl LimitSource {
    /// `Err` holds what is wrong.
    pub(crate) fn compile(&self, rule: Arc<str>) -> Result<Limit, String> {
        let requests = u32::try_from(self.requests).ok().filter(|requests| (1..=1_000_000).contains(requests));
        let requests = requests.ok_or("from 1 to 1000000 requests may be let in")?;
        if !(1..=86_400).contains(&self.per_seconds) {
            return Err("a limit is for a time from a second to a day".into());
        }
        Ok(Limit { rule, requests, per_seconds: self.per_seconds, counted_by: self.counted_by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_stands_at_its_own_row() {
        for (choice, name) in NAMES {
            assert_eq!((choice.name(), CountedBy::from_name(name)), (*name, Some(*choice)));
        }
    }

    #[test]
    fn a_permit_is_had_only_where_there_is_room() {
        let limits = || {
            let limit = LimitSource { requests: 5, per_seconds: 60, counted_by: CountedBy::User };
            WithinLimits { limits: alloc::vec![limit.compile("five".into()).unwrap()], permit: Permit::new() }
        };
        assert!(limits().take(|limits| if limits.len() == 1 { Ok(()) } else { Err(0) }).is_ok());
        assert_eq!(limits().take(|_| Err(12)).err(), Some(12));
    }
}
