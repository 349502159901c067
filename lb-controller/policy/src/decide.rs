//! What a decision is made of, and how the rules' judgements add up to one.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::facts::Facts;
use crate::level::{Level, Method};
use crate::requirement::Proofs;
use crate::rule::{Judgement, Rule, RuleSet};

/// Leave to forward one request. Only [`crate::RuleSet::decide`] makes one, and forwarding consumes it, so forwarding
/// without a decision does not compile.
#[derive(Debug)]
pub struct Permit {
    _made_by_decide: (),
}

impl Permit {
    pub(crate) fn new() -> Permit {
        Permit { _made_by_decide: () }
    }
}

/// The answer to one request.
#[derive(Debug)]
pub enum Decision {
    /// Forward it.
    Allow(Permit),
    /// Nobody is logged in, and the route needs somebody.
    LogIn,
    /// Somebody is logged in; stronger or fresher proof is needed.
    Challenge(Challenge),
    /// No proof would help.
    Deny(Denial),
}

/// What must be proved before the request may go on: all requirements at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The unmet requirements, each with the rule that made it, in order of rule id.
    pub unmet: Vec<(Arc<str>, Requirement)>,
    /// The smallest sets of methods that this user has whose proof now would meet all of them, the fewest methods first.
    /// Empty: nothing the user has would.
    pub ways: Vec<Vec<Method>>,
}

impl Challenge {
    /// The first of the ways; empty when there is none.
    pub fn methods(&self) -> &[Method] {
        self.ways.first().map_or(&[], Vec::as_slice)
    }
}

/// What one rule requires; all that is set must hold. With only an age set, any one factor of that age will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Reached by the proofs that count: see `max_age_seconds` and `per_action`.
    pub level: Option<Level>,
    /// Any one of these; empty: any method.
    pub methods: Vec<Method>,
    /// Proofs older than this many seconds do not count.
    pub max_age_seconds: Option<u64>,
    /// Only proofs made for exactly this request count.
    pub per_action: bool,
}

/// Why no proof would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that denied it.
    pub rule: Arc<str>,
    /// For the audit log and the CLI; the client is told less.
    pub reason: String,
}

impl RuleSet {
    /// Judges one request. The order of the rules never matters: a denial outweighs everything, then somebody must be
    /// logged in where that is needed, then all requirements of all rules that apply must be met.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut tally = Tally::new(Proofs::of(facts));
        self.for_each_candidate(&facts.request, &mut |rule| tally.add(rule, rule.judge(facts)));
        tally.decide(facts)
    }
}

/// The judgements so far. Allocates only for what is unmet.
struct Tally<'r, 'f> {
    proofs: Proofs<'f>,
    denied: Option<(&'r Rule, &'r str)>,
    needs_session: bool,
    unmet: Vec<(&'r Rule, &'r Requirement)>,
}

impl<'r, 'f> Tally<'r, 'f> {
    fn new(proofs: Proofs<'f>) -> Tally<'r, 'f> {
        Tally { proofs, denied: None, needs_session: false, unmet: Vec::new() }
    }

    fn add(&mut self, rule: &'r Rule, judgement: Judgement<'r>) {
        match judgement {
            Judgement::Silent => {}
            Judgement::NeedsSession => self.needs_session = true,
            Judgement::Denies { reason } => {
                // The least id speaks for all, whatever order they came in.
                if self.denied.is_none_or(|(earlier, _)| rule.id < earlier.id) {
                    self.denied = Some((rule, reason));
                }
            }
            Judgement::Requires(requirement) => {
                self.needs_session = true;
                let is_new = self.unmet.iter().all(|(known, _)| known.id != rule.id);
                if is_new && !self.proofs.meet(requirement) {
                    self.unmet.push((rule, requirement));
                }
            }
        }
    }

    fn decide(mut self, facts: &Facts<'_>) -> Decision {
        if let Some((rule, reason)) = self.denied {
            return Decision::Deny(Denial { rule: rule.id.clone(), reason: reason.into() });
        }
        if facts.session.is_none() && (self.needs_session || !facts.route_is_public) {
            return Decision::LogIn;
        }
        if self.unmet.is_empty() {
            return Decision::Allow(Permit::new());
        }
        self.unmet.sort_by(|(left, _), (right, _)| left.id.cmp(&right.id));
        let requirements: Vec<&Requirement> = self.unmet.iter().map(|(_, requirement)| *requirement).collect();
        Decision::Challenge(Challenge {
            ways: self.proofs.ways_to_meet(&requirements, &facts.provable.provable()),
            unmet: self.unmet.iter().map(|(rule, requirement)| (rule.id.clone(), (*requirement).clone())).collect(),
        })
    }
}

/// The challenge that a requirement makes which no rule made, under the name `rule`. `None`: it is met.
pub fn challenge_for(facts: &Facts<'_>, rule: &str, requirement: Requirement) -> Option<Challenge> {
    let proofs = Proofs::of(facts);
    (!proofs.meet(&requirement)).then(|| Challenge {
        ways: proofs.ways_to_meet(&[&requirement], &facts.provable.provable()),
        unmet: alloc::vec![(rule.into(), requirement)],
    })
}

#[cfg(test)]
mod tests;
