//! What a decision is made of, and how the rules' judgements add up to one.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::facts::Facts;
use crate::level::{Level, Method};
use crate::limit::{Limit, WithinLimits};
use crate::requirement::Proofs;
use crate::rule::{Judgement, Rule, RuleSet};
use crate::shown::{ShownFact, shown_by};

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
    /// Forward it if limits have room for it.
    AllowWithin(WithinLimits),
    /// No proof would help.
    Deny(Denial),
    /// All sessions of the user end, and the request goes nowhere.
    Revoke(Revocation),
    /// The API key that came is of no use until it was made anew (401).
    RegenerateApiKey(Revocation),
}

impl Decision {
    /// Nothing but a limit stands between the request and its backend.
    pub fn lets_through(&self) -> bool {
        matches!(self, Decision::Allow(_) | Decision::AllowWithin(_))
    }
}

/// What is taken away, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub rule: Arc<str>,
}

/// What must be proved before the request may go on: all requirements at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The unmet requirements, each with the rule that made it, in order of rule id.
    pub unmet: Vec<(Arc<str>, Requirement)>,
    /// The smallest sets of methods that this user has whose proof now would meet all of them, the fewest methods first.
    /// Empty: nothing the user has would.
    pub ways: Vec<Vec<Method>>,
    /// What those rules show of the request, in order of name.
    pub shown: Vec<ShownFact>,
}

impl Challenge {
    /// The first of the ways; empty when there is none.
    pub fn methods(&self) -> &[Method] {
        self.ways.first().map_or(&[], Vec::as_slice)
    }
}

/// What one rule requires; all that is set must hold. With only an age set, any one factor of that age will do.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The rule that ends all sessions of the user as well: a denial answers the request, and cancels nothing.
    pub revoked_by: Option<Arc<str>>,
}

impl Requirement {
    /// Work will do, and that takes nobody in particular: it is asked of visitors who are not logged in, too.
    pub fn is_for_anybody(&self) -> bool {
        self.level.is_none() && !self.per_action && self.methods.contains(&Method::ProofOfWork)
    }
}

impl RuleSet {
    /// What whoever sends this request must do before even a login: the puzzles that rules ask for. Everything else that
    /// they say is left aside. `None`: nothing, or it is done.
    pub fn work_due(&self, facts: &Facts<'_>) -> Option<Challenge> {
        if !self.asks_for_work() {
            return None;
        }
        let mut tally = Tally::new(facts);
        self.for_each_candidate(&facts.request, &mut |rule| {
            if let judgement @ Judgement::Requires(requirement) = rule.judge(self.conditions(), facts)
                && requirement.is_for_anybody()
            {
                tally.add(rule, judgement);
            }
        });
        (!tally.unmet.is_empty()).then(|| tally.challenge())
    }

    /// Judges one request. The order of the rules never matters: a denial outweighs everything, then what a rule takes
    /// away is taken, then somebody must be logged in where that is needed, then all requirements of all rules that apply
    /// must be met, and at last all limits must have room.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut tally = Tally::new(facts);
        self.for_each_candidate(&facts.request, &mut |rule| tally.add(rule, rule.judge(self.conditions(), facts)));
        tally.decide()
    }
}

/// The judgements so far. Allocates only for what is unmet or limited.
struct Tally<'r, 'f> {
    facts: &'f Facts<'f>,
    proofs: Proofs<'f>,
    denied: Option<(&'r Rule, &'r str)>,
    revoked: Option<&'r Rule>,
    api_key_revoked: Option<&'r Rule>,
    needs_session: bool,
    needs_no_session: bool,
    unmet: Vec<(&'r Rule, &'r Requirement)>,
    last_met: Option<&'r Requirement>,
    limits: Vec<&'r Limit>,
}

impl<'r, 'f> Tally<'r, 'f> {
    fn new(facts: &'f Facts<'f>) -> Tally<'r, 'f> {
        Tally {
            facts,
            proofs: Proofs::of(facts),
            denied: None,
            revoked: None,
            api_key_revoked: None,
            needs_session: false,
            needs_no_session: false,
            unmet: Vec::new(),
            last_met: None,
            limits: Vec::new(),
        }
    }

    fn add(&mut self, rule: &'r Rule, judgement: Judgement<'r>) {
        // Of several rules that say the same the least id speaks for all, whatever order they came in.
        let least = |earlier: Option<&'r Rule>| {
            Some(earlier.filter(|earlier| earlier.about.id < rule.about.id).unwrap_or(rule))
        };
        match judgement {
            Judgement::Silent => {}
            Judgement::NeedsSession => self.needs_session = true,
            Judgement::Allows => self.needs_no_session = true,
            Judgement::Denies { reason } => {
                if self.denied.is_none_or(|(earlier, _)| rule.about.id < earlier.about.id) {
                    self.denied = Some((rule, reason));
                }
            }
            Judgement::Revokes => self.revoked = least(self.revoked),
            Judgement::WantsNewApiKey => self.api_key_revoked = least(self.api_key_revoked),
            Judgement::Limits(limit) => self.limits.push(limit),
            Judgement::Requires(requirement) => {
                self.needs_session |= !requirement.is_for_anybody();
                if !self.is_met(rule, requirement) {
                    self.unmet.push((rule, requirement));
                }
            }
        }
    }

    /// Many rules share one requirement, and what they share is one object: it is weighed once.
    fn is_met(&mut self, rule: &Rule, requirement: &'r Requirement) -> bool {
        // Work counts for the rule that asked, whoever else shares its requirement.
        if !self.facts.client.worked.is_empty() {
            return self.proofs.for_rule(&rule.about.id, self.facts).meet(requirement);
        }
        match self.last_met {
            Some(last) if core::ptr::eq(last, requirement) => true,
            _ => {
                let is_met = self.proofs.meet(requirement);
                if is_met {
                    self.last_met = Some(requirement);
                }
                is_met
            }
        }
    }

    fn decide(self) -> Decision {
        let facts = self.facts;
        let revocation = |rule: &Rule| Revocation { rule: rule.about.id.clone() };
        if let Some((rule, reason)) = self.denied {
            let revoked_by = self.revoked.map(|rule| rule.about.id.clone());
            return Decision::Deny(Denial { rule: rule.about.id.clone(), reason: reason.into(), revoked_by });
        }
        if let Some(rule) = self.revoked {
            return Decision::Revoke(revocation(rule));
        }
        if let Some(rule) = self.api_key_revoked {
            return Decision::RegenerateApiKey(revocation(rule));
        }
        let is_open = facts.route.is_public || self.needs_no_session;
        if facts.session.is_none() && (self.needs_session || !is_open) {
            return Decision::LogIn;
        }
        if !self.unmet.is_empty() {
            return Decision::Challenge(self.challenge());
        }
        if self.limits.is_empty() {
            return Decision::Allow(Permit::new());
        }
        let mut limits: Vec<Limit> = self.limits.into_iter().cloned().collect();
        limits.sort_by(|left, right| left.rule.cmp(&right.rule));
        Decision::AllowWithin(WithinLimits { limits, permit: Permit::new() })
    }

    fn challenge(mut self) -> Challenge {
        let facts = self.facts;
        self.unmet.sort_by(|(left, _), (right, _)| left.about.id.cmp(&right.about.id));
        let requirements: Vec<&Requirement> = self.unmet.iter().map(|(_, requirement)| *requirement).collect();
        Challenge {
            ways: self.proofs.ways_to_meet(&requirements, &facts.provable.provable()),
            unmet: self
                .unmet
                .iter()
                .map(|(rule, requirement)| (rule.about.id.clone(), (*requirement).clone()))
                .collect(),
            shown: shown_by(&self.unmet.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), facts),
        }
    }
}

/// The challenge that a requirement makes which no rule made, under the name `rule`. `None`: it is met.
pub fn challenge_for(facts: &Facts<'_>, rule: &str, requirement: Requirement) -> Option<Challenge> {
    let proofs = Proofs::of(facts);
    (!proofs.meet(&requirement)).then(|| Challenge {
        ways: proofs.ways_to_meet(&[&requirement], &facts.provable.provable()),
        unmet: alloc::vec![(rule.into(), requirement)],
        shown: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
