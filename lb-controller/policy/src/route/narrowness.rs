//! Which of two routes is narrower by what they ask beside host and path.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{RouteMatcher, ValuePattern};

/// How two routes of one host and path stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No request is for both.
    Apart,
    /// Every request for one of them is for the other, and there are some more for that.
    Nested,
    Same,
    /// Some requests are for both, and others for each alone.
    Ambiguous,
}

impl RouteMatcher {
    pub(super) fn stands_to(&self, other: &RouteMatcher) -> Standing {
        if self.is_apart_from(other) {
            return Standing::Apart;
        }
        match (self.is_within(other), other.is_within(self)) {
            (true, true) => Standing::Same,
            (false, false) => Standing::Ambiguous,
            _ => Standing::Nested,
        }
    }

    fn is_apart_from(&self, other: &RouteMatcher) -> bool {
        !self.methods.0.intersects(other.methods.0)
            || are_apart(&self.headers, &other.headers)
            || are_apart(&self.query, &other.query)
    }

    fn is_within(&self, other: &RouteMatcher) -> bool {
        self.methods.0.is_within(other.methods.0)
            && are_within(&self.headers, &other.headers)
            && are_within(&self.query, &other.query)
    }

    /// Puts a route that is within another before it; what is neither may come in any order.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let strictness = |(_, pattern): &(String, ValuePattern)| match pattern {
            ValuePattern::Present => 1,
            // A longer prefix is within a shorter one.
            ValuePattern::Prefix(prefix) => 2 + prefix.len(),
            ValuePattern::Exact(_) => 1 << 20,
        };
        let sum: usize = self.headers.iter().chain(&self.query).map(strictness).sum();
        (Reverse(sum), self.methods.0.len())
    }
}

type Conditions = Vec<(String, ValuePattern)>;

fn are_apart(ones: &Conditions, others: &Conditions) -> bool {
    ones.iter().any(|(name, one)| others.iter().any(|(other_name, other)| name == other_name && !one.meets(other)))
}

fn are_within(ones: &Conditions, others: &Conditions) -> bool {
    let is_met = |(name, other): &(String, ValuePattern)| {
        ones.iter().any(|(one_name, one)| one_name == name && one.is_within(other))
    };
    others.iter().all(is_met)
}
