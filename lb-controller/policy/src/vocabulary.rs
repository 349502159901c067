//! The names that rules may use because the rest of the configuration defines them.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::prefix_set::PrefixSet;

/// What there is to name beside the facts that every request has. A condition that names anything else is refused.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// `sets.office`.
    pub prefix_sets: Vec<(String, Arc<PrefixSet>)>,
    /// `route.labels.env`: the labels of all routes.
    pub route_labels: Vec<String>,
    /// `rate.exports`: what is counted, in the order of `ObservedFacts::rates`.
    pub rates: Vec<RateName>,
}

/// A rate that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateName {
    pub name: String,
    /// Counted for a user or a session: without one there is none, and logging in is the remedy.
    pub needs_session: bool,
}
