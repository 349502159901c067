//! Whether a requirement is met, and what would meet it with the least asking.

use alloc::vec;
use alloc::vec::Vec;

use crate::decide::{Challenge, Requirement};
use crate::facts::Facts;
use crate::level::{Level, Levels, Method, ProvableFactor, ProvedFactor, UnixSeconds};

/// The proofs at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proofs<'a> {
    levels: &'a Levels,
    now: UnixSeconds,
    session: &'a [ProvedFactor],
    for_this_request: &'a [ProvedFactor],
    /// Of the client, whoever it is, for the rule at hand.
    work: Option<ProvedFactor>,
    /// Taken as proved now.
    assumed: Choice<'a>,
}

/// Some of a list: those whose bit is set.
#[derive(Clone, Copy, Debug, Default)]
struct Choice<'a> {
    from: &'a [ProvableFactor],
    bits: u32,
}

/// How long a proof of work counts.
const WORK_COUNTS_SECONDS: u64 = 600;

/// More than this many are not worth a page, and looking for them is not worth the time.
const MOST_WAYS: usize = 16;

impl<'a> Proofs<'a> {
    pub(crate) fn of(facts: &Facts<'a>) -> Proofs<'a> {
        Proofs {
            levels: facts.levels,
            now: facts.now,
            session: facts.session.map_or(&[], |session| session.factors),
            for_this_request: facts.proved_for_this_request,
            work: None,
            assumed: Choice::default(),
        }
    }

    /// With the work that was done for the rule of this id.
    pub(crate) fn for_rule(self, id: &str, facts: &Facts<'_>) -> Proofs<'a> {
        let done = facts.client.worked.iter().find(|(rule, _)| rule == id);
        Proofs { work: done.map(|(_, at)| ProvedFactor::ordinary(Method::ProofOfWork, *at)), ..self }
    }

    /// Whether a proof counts for a requirement.
    ///
    /// A proof made for this very request counts whatever its age: it is bounded by its transaction, and a `max_age`
    /// shorter than the way through the challenge page would otherwise challenge without end.
    pub(crate) fn counts(&self, requirement: &Requirement, factor: ProvedFactor, for_this_request: bool) -> bool {
        match (factor.age_seconds(self.now), requirement.max_age_seconds) {
            (None, _) => false,
            // Work proves a machine for the moment: whoever solved one puzzle must not pass for a day.
            (Some(age), _) if factor.method == Method::ProofOfWork && age > WORK_COUNTS_SECONDS => false,
            (Some(_), _) if for_this_request => true,
            (Some(_), _) if requirement.per_action => false,
            (Some(age), Some(max_age)) => age <= max_age && max_age > 0,
            (Some(_), None) => true,
        }
    }

    /// All that count for the requirement.
    fn counted(&self, requirement: &Requirement) -> impl Iterator<Item = ProvableFactor> {
        let in_session = self.session.iter().filter(|factor| self.counts(requirement, **factor, false));
        let proved_now = self.for_this_request.iter().filter(|factor| self.counts(requirement, **factor, true));
        let worked = self.work.iter().filter(|factor| self.counts(requirement, **factor, false));
        let proved = in_session.chain(proved_now).chain(worked);
        proved
            .map(|factor| ProvableFactor { method: factor.method, strength: factor.strength })
            .chain(self.assumed.iter())
    }

    /// The level that the proofs reach which count for the requirement.
    pub(crate) fn level(&self, requirement: &Requirement) -> Level {
        self.levels.reached(self.counted(requirement).map(|factor| (factor.method, factor.strength)))
    }

    pub(crate) fn meet(&self, requirement: &Requirement) -> bool {
        let named = |factor: ProvableFactor| requirement.methods.contains(&factor.method);
        let method_found = match (requirement.methods.is_empty(), requirement.level) {
            (false, _) => self.counted(requirement).any(named),
            // With only an age set, any one factor will do.
            (true, None) => self.counted(requirement).any(|factor| factor.method.class().is_some()),
            (true, Some(_)) => true,
        };
        method_found && requirement.level.is_none_or(|level| self.level(requirement) >= level)
    }

    /// The smallest sets of `provable` whose proof now would meet all of `requirements`: those of the fewest methods
    /// first, among them those whose methods come first in `provable`. None is part of another.
    pub(crate) fn ways_to_meet(&self, requirements: &[&Requirement], provable: &[ProvableFactor]) -> Vec<Vec<Method>> {
        let provable = &provable[..provable.len().min(16)];
        let mut choices: Vec<u32> = (0..1 << provable.len()).collect();
        // Low bits are the first of the list: reversed, the numbers order as the lists do.
        choices.sort_by_key(|bits| (bits.count_ones(), core::cmp::Reverse(bits.reverse_bits())));
        let mut ways: Vec<u32> = Vec::new();
        for bits in choices {
            let is_more = ways.iter().any(|way| bits & way == *way);
            let proofs = Proofs { assumed: Choice { from: provable, bits }, ..*self };
            if !is_more && requirements.iter().all(|requirement| proofs.meet(requirement)) {
                ways.push(bits);
                if ways.len() == MOST_WAYS {
                    break;
                }
            }
        }
        ways.iter()
            .map(|bits| Choice { from: provable, bits: *bits }.iter().map(|factor| factor.method).collect())
            .collect()
    }
}

/// The challenge that a requirement comes to which no rule makes, but the gateway itself, under `name`; `None`: the
/// session meets it.
pub fn challenge_unless_met(
    name: &str,
    requirement: Requirement,
    levels: &Levels,
    now: UnixSeconds,
    session: &[ProvedFactor],
    provable: &[ProvableFactor],
) -> Option<Challenge> {
    let proofs = Proofs { levels, now, session, for_this_request: &[], work: None, assumed: Choice::default() };
    if proofs.meet(&requirement) {
        return None;
    }
    let ways = proofs.ways_to_meet(&[&requirement], provable);
    Some(Challenge { unmet: vec![(name.into(), requirement)], ways, shown: Vec::new() })
}

impl<'a> Choice<'a> {
    fn iter(self) -> impl Iterator<Item = ProvableFactor> + use<'a> {
        self.from.iter().enumerate().filter(move |(index, _)| self.bits & (1 << index) != 0).map(|(_, factor)| *factor)
    }
}
