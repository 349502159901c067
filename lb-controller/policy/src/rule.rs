//! Rules: how they are written, and the compiled set that decides.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::body::{BodyFact, BodyFactKind, BodyNeeds};
use crate::condition::{Condition, Truth};
use crate::decide::Requirement;
use crate::facts::{Facts, RequestFacts};
use crate::level::Levels;

mod compile;
mod error;
mod index;
mod pattern;

pub use error::{Field, RuleError, Span};
use index::RuleIndex;
pub(crate) use pattern::Matcher;

/// A rule as its author wrote it, before any check.
#[derive(Clone, Debug)]
pub struct RuleSource {
    /// Unique; named in logs, explanations and challenges.
    pub id: String,
    pub matches: MatchSource,
    /// What to read from the body of a matching request.
    pub body: Option<BodySource>,
    /// A condition in CEL syntax; `None`: always.
    pub when: Option<String>,
    pub outcome: OutcomeSource,
    /// `None`: [`OnMissing::Challenge`], or [`OnMissing::Deny`] for a rule that denies.
    pub on_missing: Option<OnMissing>,
}

/// Which requests a rule is about. An empty list matches everything.
#[derive(Clone, Debug, Default)]
pub struct MatchSource {
    /// `shop.example`, or `*.shop.example` for everything below it.
    pub hosts: Vec<String>,
    /// Upper-case; `GET` covers `HEAD` too.
    pub methods: Vec<String>,
    /// `/account/email`; `*` stands for one segment, a last `**` for any number of them, none included.
    pub paths: Vec<String>,
}

/// What a rule reads from bodies.
#[derive(Clone, Debug, Default)]
pub struct BodySource {
    /// Larger bodies are refused (413); `None`: 64 KiB.
    pub max_bytes: Option<u64>,
    pub facts: Vec<BodyFactSource>,
}

/// One fact in a body.
#[derive(Clone, Debug)]
pub struct BodyFactSource {
    /// `amount`, for `body.amount`.
    pub name: String,
    /// A JSON pointer (RFC 6901); in an HTML form a pointer of one name is that field.
    pub pointer: String,
    pub kind: BodyFactKind,
}

/// What follows when a rule applies.
#[derive(Clone, Debug)]
pub enum OutcomeSource {
    Require(RequireSource),
    /// The reason goes to the audit log, not to the client.
    Deny {
        reason: String,
    },
}

/// What a rule requires; at least one field must be set.
#[derive(Clone, Debug, Default)]
pub struct RequireSource {
    pub level: Option<u64>,
    /// Any one of these.
    pub methods: Vec<String>,
    /// 0 means `per_action`.
    pub max_age_seconds: Option<u64>,
    pub per_action: bool,
}

/// What becomes of a rule whose condition hangs on a fact that the request lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// As if the condition held.
    Challenge,
    Deny,
    /// As if it did not.
    Skip,
}

/// Compiled rules. Their order means nothing: every rule that applies counts, and a denial outweighs all else.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    index: RuleIndex,
}

/// One compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: Arc<str>,
    pub(crate) matcher: Matcher,
    pub(crate) body: Option<BodyRead>,
    pub(crate) condition: Option<Condition>,
    pub(crate) outcome: Outcome,
    pub(crate) on_missing: OnMissing,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Require(Requirement),
    Deny { reason: String },
}

/// The facts one rule reads from bodies, and up to what size.
#[derive(Debug)]
pub(crate) struct BodyRead {
    pub(crate) max_bytes: u64,
    pub(crate) facts: Vec<Arc<BodyFact>>,
}

/// What one rule says to one request that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement<'r> {
    /// Its condition does not hold.
    Silent,
    /// Only a session can tell whether it applies.
    NeedsSession,
    Denies {
        reason: &'r str,
    },
    Requires(&'r Requirement),
}

impl RuleSet {
    /// Checks and compiles all rules, whose levels mean `levels`. On failure all errors of all rules are returned.
    pub fn compile(sources: &[RuleSource], levels: &Levels) -> Result<RuleSet, Vec<RuleError>> {
        let rules = compile::compile(sources, levels)?;
        let index = RuleIndex::of(&rules);
        Ok(RuleSet { rules, index })
    }

    /// The ids of all rules, as they were given.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.id)
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules for this request want from its body; `None`: stream it uninspected.
    pub fn body_needs(&self, request: &RequestFacts<'_>) -> Option<BodyNeeds> {
        let mut needs: Option<BodyNeeds> = None;
        self.for_each_candidate(request, &mut |rule| {
            let Some(read) = &rule.body else { return };
            let needs = needs.get_or_insert_with(|| BodyNeeds { max_bytes: 0, facts: Vec::new() });
            needs.max_bytes = needs.max_bytes.max(read.max_bytes);
            for fact in &read.facts {
                if needs.facts.iter().all(|known| known.slot != fact.slot) {
                    needs.facts.push(fact.clone());
                }
            }
        });
        needs
    }

    /// Visits the rules that are about this request, in no particular order; a rule may come more than once.
    pub(crate) fn for_each_candidate<'r>(&'r self, request: &RequestFacts<'_>, visit: &mut dyn FnMut(&'r Rule)) {
        self.index.for_each_match(request, &mut |rule| {
            if let Some(rule) = self.rules.get(rule) {
                visit(rule);
            }
        });
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Rule {
    /// What it says to a request that it is about.
    pub(crate) fn judge(&self, facts: &Facts<'_>) -> Judgement<'_> {
        let applied = match &self.outcome {
            Outcome::Require(requirement) => Judgement::Requires(requirement),
            Outcome::Deny { reason } => Judgement::Denies { reason },
        };
        let Some(condition) = &self.condition else {
            return applied;
        };
        match (condition.evaluate(facts), self.on_missing) {
            (Truth::True, _) => applied,
            (Truth::False, _) | (Truth::Missing, OnMissing::Skip) => Judgement::Silent,
            // Denying somebody for facts that logging in would supply would lock everybody out.
            (Truth::Missing, _) if facts.session.is_none() && condition.needs_session() => Judgement::NeedsSession,
            (Truth::Missing, OnMissing::Challenge) => applied,
            (Truth::Missing, OnMissing::Deny) => Judgement::Denies { reason: "a fact that it judges by is missing" },
        }
    }
}

impl OnMissing {
    const NAMES: &[(&str, OnMissing)] =
        &[("challenge", OnMissing::Challenge), ("deny", OnMissing::Deny), ("skip", OnMissing::Skip)];

    /// The choice that rules call `name`.
    pub fn from_name(name: &str) -> Option<OnMissing> {
        OnMissing::NAMES.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// The names of all choices.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OnMissing::NAMES.iter().map(|row| row.0)
    }
}

#[cfg(test)]
mod tests;
