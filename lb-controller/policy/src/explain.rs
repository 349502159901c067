//! Why a request was decided as it was, in plain values that a CLI or an API can print.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::condition::{Condition, ConditionSource, Conditions, Truth};
use crate::decide::{Challenge, Decision, Denial, Requirement, Revocation};
use crate::facts::Facts;
use crate::level::{Level, Method, ProvedFactor};
use crate::limit::Limit;
use crate::requirement::Proofs;
use crate::rule::{Judgement, Matcher, Rule, RuleSet};
use crate::shown::{ShownFact, shown_by};

/// Everything that went into one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Every rule, in the order they were given.
    pub rules: Vec<RuleExplanation>,
    pub decision: Summary,
}

/// What one rule made of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleExplanation {
    pub rule: Arc<str>,
    pub matched: MatchExplanation,
    /// `None`: the rule has no condition, or is not about this request.
    pub condition: Option<ConditionExplanation>,
    pub outcome: OutcomeExplanation,
}

/// Whether a rule is about the request; if not, the first thing that told them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchExplanation {
    Matched,
    OtherHost,
    OtherMethod,
    OtherPath,
}

/// What a condition came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionExplanation {
    pub text: Arc<str>,
    pub truth: Truth,
    /// Every fact that it names.
    pub facts: Vec<FactExplanation>,
}

/// One fact, as a condition would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactExplanation {
    /// Such as `body.amount`.
    pub name: String,
    /// Such as `750` or `"EUR"`; `None`: missing.
    pub value: Option<String>,
}

/// What followed from a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeExplanation {
    /// It is not about this request, or its condition does not hold.
    NotApplied,
    /// Only a session can tell whether it applies.
    NeedsSession,
    Denied {
        reason: String,
    },
    Required(RequirementExplanation),
    /// No session is needed.
    Allowed,
    /// The user's sessions end.
    Revoked,
    /// The API key must be made anew.
    ApiKeyRevoked,
    Limited(Limit),
}

/// What was required, what was had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementExplanation {
    pub requirement: Requirement,
    pub met: bool,
    /// Reached by the factors that count.
    pub level_had: Level,
    /// What people are shown of the request before they approve it.
    pub shown: Vec<ShownFact>,
    pub factors_had: Vec<FactorExplanation>,
}

/// One proof at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactorExplanation {
    pub method: Method,
    /// `None`: from the future, and so never counted.
    pub age_seconds: Option<u64>,
    /// Proved in the transaction that resumes this request.
    pub for_this_request: bool,
    /// Whether it counts for this requirement.
    pub counts: bool,
}

/// A [`Decision`] without its permit: explaining a request must not be a way to forward it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    Allow,
    LogIn,
    Challenge(Challenge),
    /// Allowed if these have room.
    AllowWithin(Vec<Limit>),
    Deny(Denial),
    Revoke(Revocation),
    RegenerateApiKey(Revocation),
}

impl RuleSet {
    /// Decides as [`RuleSet::decide`] does, and tells how every rule took part.
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation {
        Explanation {
            rules: self.rules().map(|rule| explain_rule(self.conditions(), rule, facts)).collect(),
            decision: Summary::from(self.decide(facts)),
        }
    }
}

impl RuleSet {
    /// Every fact that the conditions of these rules name, each once; of rules that are about this request alone. It costs
    /// what deciding does, however many rules there are.
    pub fn facts_of(&self, rules: &[Arc<str>], facts: &Facts<'_>) -> Vec<FactExplanation> {
        let mut named: Vec<FactExplanation> = Vec::new();
        self.for_each_candidate(&facts.request, &mut |rule| {
            let condition = rule.about.condition.as_ref().filter(|_| rules.contains(&rule.about.id));
            for fact in condition.into_iter().flat_map(|source| explain_facts(source, facts)) {
                if named.iter().all(|known| known.name != fact.name) {
                    named.push(fact);
                }
            }
        });
        named.sort_by(|left, right| left.name.cmp(&right.name));
        named
    }
}

impl From<Decision> for Summary {
    fn from(decision: Decision) -> Summary {
        match decision {
            Decision::Allow(_) => Summary::Allow,
            Decision::LogIn => Summary::LogIn,
            Decision::Challenge(challenge) => Summary::Challenge(challenge),
            Decision::AllowWithin(within) => Summary::AllowWithin(within.limits().to_vec()),
            Decision::Deny(denial) => Summary::Deny(denial),
            Decision::Revoke(revocation) => Summary::Revoke(revocation),
            Decision::RegenerateApiKey(revocation) => Summary::RegenerateApiKey(revocation),
        }
    }
}

fn explain_rule(conditions: &Conditions, rule: &Rule, facts: &Facts<'_>) -> RuleExplanation {
    let matched = explain_match(&rule.about.matcher, facts);
    let is_candidate = matched == MatchExplanation::Matched;
    RuleExplanation {
        rule: rule.about.id.clone(),
        matched,
        condition: rule
            .condition
            .zip(rule.about.condition.as_ref())
            .filter(|_| is_candidate)
            .map(|(condition, source)| explain_condition(conditions, condition, source, facts)),
        outcome: if is_candidate { explain_outcome(conditions, rule, facts) } else { OutcomeExplanation::NotApplied },
    }
}

/// Tries the patterns one by one, apart from the index that decisions use; a property test holds the two together.
fn explain_match(matcher: &Matcher, facts: &Facts<'_>) -> MatchExplanation {
    let request = &facts.request;
    if !matcher.matches_host(request.host) {
        MatchExplanation::OtherHost
    } else if !matcher.matches_path(request.path) {
        MatchExplanation::OtherPath
    } else if !matcher.matches_method(request.method) {
        MatchExplanation::OtherMethod
    } else {
        MatchExplanation::Matched
    }
}

fn explain_condition(
    conditions: &Conditions,
    condition: Condition,
    source: &ConditionSource,
    facts: &Facts<'_>,
) -> ConditionExplanation {
    ConditionExplanation {
        text: source.text.clone(),
        truth: condition.evaluate(conditions, facts),
        facts: explain_facts(source, facts),
    }
}

fn explain_facts(source: &ConditionSource, facts: &Facts<'_>) -> Vec<FactExplanation> {
    let explain_fact = |fact: &crate::signal::FactRef| FactExplanation {
        name: fact.to_string(),
        value: fact.read(facts).map(|value| value.to_string()),
    };
    source.facts.iter().map(explain_fact).collect()
}

fn explain_outcome(conditions: &Conditions, rule: &Rule, facts: &Facts<'_>) -> OutcomeExplanation {
    match rule.judge(conditions, facts) {
        Judgement::Silent => OutcomeExplanation::NotApplied,
        Judgement::NeedsSession => OutcomeExplanation::NeedsSession,
        Judgement::Denies { reason } => OutcomeExplanation::Denied { reason: reason.into() },
        Judgement::Requires(requirement) => OutcomeExplanation::Required(explain_requirement(rule, requirement, facts)),
        Judgement::Allows => OutcomeExplanation::Allowed,
        Judgement::Revokes => OutcomeExplanation::Revoked,
        Judgement::WantsNewApiKey => OutcomeExplanation::ApiKeyRevoked,
        Judgement::Limits(limit) => OutcomeExplanation::Limited(limit.clone()),
    }
}

fn explain_requirement(rule: &Rule, requirement: &Requirement, facts: &Facts<'_>) -> RequirementExplanation {
    let proofs = Proofs::of(facts).for_rule(&rule.about.id, facts);
    let explain_factor = |factor: ProvedFactor, for_this_request| FactorExplanation {
        method: factor.method,
        age_seconds: factor.age_seconds(facts.now),
        for_this_request,
        counts: proofs.counts(requirement, factor, for_this_request),
    };
    let in_session = facts.session.map_or(&[][..], |session| session.factors);
    let factors_had = in_session.iter().map(|factor| explain_factor(*factor, false));
    let proved_now = facts.proved_for_this_request.iter().map(|factor| explain_factor(*factor, true));
    RequirementExplanation {
        requirement: requirement.clone(),
        met: proofs.meet(requirement),
        level_had: proofs.level(requirement),
        shown: shown_by(&[rule], facts),
        factors_had: factors_had.chain(proved_now).collect(),
    }
}

#[cfg(test)]
mod tests;
