//! Whether a requirement is met, and what would meet it with the least asking.

use alloc::vec::Vec;

use crate::decide::Requirement;
use crate::facts::Facts;
use crate::level::{Level, Method, ProvedFactor, UnixSeconds, level_of_methods};

/// The proofs at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Proofs<'a> {
    now: UnixSeconds,
    session: &'a [ProvedFactor],
    for_this_request: &'a [ProvedFactor],
    /// Methods taken as proved now, one bit each in the order of the table.
    assumed: u32,
}

impl<'a> Proofs<'a> {
    pub(crate) fn of(facts: &Facts<'a>) -> Proofs<'a> {
        Proofs {
            now: facts.now,
            session: facts.session.map_or(&[], |session| session.factors),
            for_this_request: facts.proved_for_this_request,
            assumed: 0,
        }
    }

    /// Whether a proof counts for a requirement.
    ///
    /// A proof made for this very request counts whatever its age: it is bounded by its transaction, and a `max_age`
    /// shorter than the way through the challenge page would otherwise challenge without end.
    pub(crate) fn counts(&self, requirement: &Requirement, factor: ProvedFactor, for_this_request: bool) -> bool {
        match (factor.age_seconds(self.now), requirement.max_age_seconds) {
            (None, _) => false,
            (Some(_), _) if for_this_request => true,
            (Some(_), _) if requirement.per_action => false,
            (Some(age), Some(max_age)) => age <= max_age && max_age > 0,
            (Some(_), None) => true,
        }
    }

    fn has(&self, requirement: &Requirement, method: Method) -> bool {
        let proved = |factors: &[ProvedFactor], for_this_request| {
            let counts = |factor: &ProvedFactor| self.counts(requirement, *factor, for_this_request);
            factors.iter().any(|factor| factor.method == method && counts(factor))
        };
        self.assumed & bit(method) != 0 || proved(self.for_this_request, true) || proved(self.session, false)
    }

    /// The level that the proofs reach which count for the requirement.
    pub(crate) fn level(&self, requirement: &Requirement) -> Level {
        level_of_methods(Method::all().filter(|method| self.has(requirement, *method)))
    }

    pub(crate) fn meet(&self, requirement: &Requirement) -> bool {
        let level_needed = requirement.level.unwrap_or(Level(1));
        let mut methods = requirement.methods.iter();
        let method_found = requirement.methods.is_empty() || methods.any(|method| self.has(requirement, *method));
        method_found && self.level(requirement) >= level_needed
    }

    /// The fewest methods whose proof now would meet all of `requirements`; of several such choices the first in the
    /// order of the table of methods.
    pub(crate) fn fewest_to_meet(&self, requirements: &[&Requirement]) -> Vec<Method> {
        let all: u32 = Method::all().map(bit).sum();
        let meets_all = |assumed: u32| {
            let proofs = Proofs { assumed, ..*self };
            requirements.iter().all(|requirement| proofs.meet(requirement))
        };
        // Every subset: the table is short, and this runs only when a challenge is due.
        let fewest = (0..=all).filter(|assumed| meets_all(*assumed)).min_by_key(|assumed| assumed.count_ones());
        let fewest = fewest.unwrap_or(all);
        Method::all().filter(|method| fewest & bit(*method) != 0).collect()
    }
}

fn bit(method: Method) -> u32 {
    1 << (method as u32)
}
