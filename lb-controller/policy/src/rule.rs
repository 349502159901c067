//! Rules: how they are written, and the compiled set that decides.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::body::{BodyFact, BodyFactKind, BodyNeeds};
use crate::condition::{Condition, ConditionSource, Conditions, Truth};
use crate::decide::Requirement;
use crate::facts::{Facts, RequestFacts};
use crate::level::Levels;
use crate::limit::{Limit, LimitSource};
use crate::shown::Shown;
use crate::vocabulary::Vocabulary;

mod compile;
mod error;
mod index;
pub(crate) mod pattern;

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
    /// `None`: what is safe for the outcome. [`OnMissing::Challenge`] for a requirement or a limit, [`OnMissing::Skip`] for
    /// a rule that allows, [`OnMissing::Deny`] for all others.
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

/// Which requests something other than a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatcher(Matcher);

impl RequestMatcher {
    /// As rules are matched; all mistakes are told.
    pub fn compile(source: &MatchSource) -> Result<RequestMatcher, Vec<RuleError>> {
        compile::matcher(source).map(RequestMatcher)
    }

    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        let RequestMatcher(matcher) = self;
        matcher.matches_method(request.method)
            && matcher.matches_host(request.host)
            && matcher.matches_path(request.path)
    }
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

/// How many rules are looked up before the first of them is judged.
const AHEAD: usize = 32;

/// What follows when a rule applies.
#[derive(Clone, Debug)]
pub enum OutcomeSource {
    /// No session is needed; whatever other rules say still holds.
    Allow,
    Require(RequireSource),
    /// The reason goes to the audit log, not to the client.
    Deny {
        reason: String,
    },
    /// Ends all sessions of the session's user; the request is not forwarded.
    Revoke,
    /// Makes the request's API key useless until it was made anew; the request is not forwarded.
    RegenerateApiKey,
    Limit(LimitSource),
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
    /// Names of facts of the rule's [`BodySource`] that people are shown before they approve. Only with `per_action`.
    pub show: Vec<String>,
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
    /// Those that one request is likely to be about stand side by side.
    rules: Vec<Rule>,
    /// Where each stands among them, in the order they were given.
    as_given: Vec<u32>,
    index: RuleIndex,
    conditions: Conditions,
    reads_bodies: bool,
    reads_query_parameters: bool,
    asks_for_work: bool,
    /// Names of facts that some condition goes by.
    facts_read: BTreeSet<String>,
}

/// One compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) condition: Option<Condition>,
    pub(crate) outcome: Outcome,
    pub(crate) on_missing: OnMissing,
    pub(crate) about: Box<About>,
}

/// What a rule is about. Judging needs none of it, and so it is kept apart: of ten thousand rules a request touches a few,
/// and what they take up in the caches is what a decision costs.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: Arc<str>,
    pub(crate) matcher: Matcher,
    pub(crate) condition: Option<Arc<ConditionSource>>,
    pub(crate) body: Option<BodyRead>,
    /// What of the body people are shown before they approve.
    pub(crate) shown: Vec<Shown>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Allow,
    Require(Arc<Requirement>),
    Deny { reason: Box<str> },
    Revoke,
    RegenerateApiKey,
    Limit(Box<Limit>),
}

/// The facts one rule reads from bodies, and up to what size.
#[derive(Debug)]
pub(crate) struct BodyRead {
    pub(crate) max_bytes: u64,
    pub(crate) facts: Vec<Arc<BodyFact>>,
    pub(crate) graphql: bool,
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
    /// No session is needed for its sake.
    Allows,
    Revokes,
    WantsNewApiKey,
    Limits(&'r Limit),
}

impl RuleSet {
    /// Checks and compiles all rules, whose levels mean `levels`. On failure all errors of all rules are returned.
    pub fn compile(sources: &[RuleSource], levels: &Levels) -> Result<RuleSet, Vec<RuleError>> {
        RuleSet::compile_with(sources, levels, &Vocabulary::default())
    }

    /// As [`RuleSet::compile`], with conditions that may name what `vocabulary` defines.
    pub fn compile_with(
        sources: &[RuleSource],
        levels: &Levels,
        vocabulary: &Vocabulary,
    ) -> Result<RuleSet, Vec<RuleError>> {
        let (mut rules, conditions) = compile::compile(sources, levels, vocabulary)?;
        let mut index = RuleIndex::of(&rules);
        let as_given = index.order(&mut rules);
        let reads_bodies = rules.iter().any(|rule| rule.about.body.is_some());
        let written = || rules.iter().filter_map(|rule| rule.about.condition.as_deref());
        let reads_query_parameters = written().any(ConditionSource::reads_query_parameters);
        let facts_read = written().flat_map(|condition| &condition.facts).map(ToString::to_string).collect();
        let wants_work = |rule: &Rule| matches!(&rule.outcome, Outcome::Require(required) if required.is_for_anybody());
        let asks_for_work = rules.iter().any(wants_work);
        Ok(RuleSet {
            index,
            conditions,
            as_given,
            reads_bodies,
            reads_query_parameters,
            asks_for_work,
            facts_read,
            rules,
        })
    }

    /// The ids of all rules, as they were given.
    pub fn rule_ids(&self) -> impl Iterator<Item = &str> {
        self.rules().map(|rule| &*rule.about.id)
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules for this request want from its body; `None`: stream it uninspected.
    pub fn body_needs(&self, request: &RequestFacts<'_>) -> Option<BodyNeeds> {
        if !self.reads_bodies {
            return None;
        }
        let mut needs: Option<BodyNeeds> = None;
        self.for_each_candidate(request, &mut |rule| {
            let Some(read) = &rule.about.body else { return };
            let needs = needs.get_or_insert_with(|| BodyNeeds { max_bytes: 0, facts: Vec::new(), graphql: false });
            needs.graphql |= read.graphql;
            needs.max_bytes = needs.max_bytes.max(read.max_bytes);
            for fact in &read.facts {
                if needs.facts.iter().all(|known| known.slot != fact.slot) {
                    needs.facts.push(fact.clone());
                }
            }
        });
        needs
    }

    /// Whether any rule goes by this fact, such as `client.country`: if not, it need not be looked up.
    pub fn reads(&self, fact: &str) -> bool {
        self.facts_read.contains(fact)
    }

    /// Whether any rule goes by a fact whose name begins so.
    pub fn reads_any_of(&self, prefix: &str) -> bool {
        self.facts_read.iter().any(|fact| fact.starts_with(prefix))
    }

    /// Whether any rule goes by a parameter of the query: if not, they need not be read.
    pub fn reads_query_parameters(&self) -> bool {
        self.reads_query_parameters
    }

    /// Whether any rule asks visitors for work, logged in or not: if not, what they have done need not be looked up.
    pub fn asks_for_work(&self) -> bool {
        self.asks_for_work
    }

    /// How many rules are about this request, and so are tried to decide about it.
    pub fn rules_tried(&self, request: &RequestFacts<'_>) -> usize {
        let mut tried = 0;
        self.for_each_candidate(request, &mut |_| tried += 1);
        tried
    }

    /// Visits the rules that are about this request, each once, in no particular order.
    pub(crate) fn for_each_candidate<'r>(&'r self, request: &RequestFacts<'_>, visit: &mut impl FnMut(&'r Rule)) {
        let mut ahead = [0_u32; AHEAD];
        let mut length = 0;
        self.index.for_each_match(&self.rules, request, &mut |rule| {
            if length == AHEAD {
                self.visit_all(&ahead, visit);
                length = 0;
            }
            ahead[length] = rule;
            length += 1;
        });
        self.visit_all(&ahead[..length], visit);
    }

    /// Visits rules whose memory was asked for all at once: one after the other, each would wait for its own.
    fn visit_all<'r>(&'r self, places: &[u32], visit: &mut impl FnMut(&'r Rule)) {
        let touched = places.iter().fold(0, |touched, place| {
            let condition = self.rules[*place as usize].condition;
            touched ^ condition.map_or(0, |condition| self.conditions.touch(condition))
        });
        core::hint::black_box(touched);
        places.iter().for_each(|place| visit(&self.rules[*place as usize]));
    }

    pub(crate) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// In the order they were given.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.as_given.iter().map(|place| &self.rules[*place as usize])
    }
}

impl Rule {
    /// What it says to a request that it is about.
    pub(crate) fn judge(&self, conditions: &Conditions, facts: &Facts<'_>) -> Judgement<'_> {
        let truth = self.condition.map_or(Truth::True, |condition| condition.evaluate(conditions, facts));
        // Of most rules that are about a request the condition does not hold, and the rest of the rule is not looked at.
        if truth == Truth::False {
            return Judgement::Silent;
        }
        let applied = match &self.outcome {
            Outcome::Allow => Judgement::Allows,
            Outcome::Require(requirement) => Judgement::Requires(requirement),
            Outcome::Deny { reason } => Judgement::Denies { reason },
            // There is nothing to end, or to make anew, where none came.
            Outcome::Revoke if facts.session.is_none() => return Judgement::Silent,
            Outcome::Revoke => Judgement::Revokes,
            Outcome::RegenerateApiKey if facts.api_key.is_none() => return Judgement::Silent,
            Outcome::RegenerateApiKey => Judgement::WantsNewApiKey,
            Outcome::Limit(limit) => Judgement::Limits(limit),
        };
        match (truth, self.on_missing) {
            (Truth::True, _) => applied,
            (Truth::False, _) | (Truth::Missing, OnMissing::Skip) => Judgement::Silent,
            // Denying somebody for facts that logging in would supply would lock everybody out. A limit needs nobody.
            (Truth::Missing, _)
                if facts.session.is_none()
                    && self.condition.is_some_and(Condition::needs_session)
                    && !matches!(self.outcome, Outcome::Limit(_)) =>
            {
                Judgement::NeedsSession
            }
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
