//! Rules as written to rules as judged, with every mistake reported.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::pattern::{HostPattern, METHODS, Matcher, MethodSet, PathPattern, PatternError};
use super::{About, BodyRead, BodySource, Field, MatchSource, OnMissing, Outcome, OutcomeSource, RequireSource};
use super::{Rule, RuleError, RuleSource, Span};
use crate::body::{BodyFact, BodyFactKind, BodySlot, DEFAULT_MAX_BYTES, Pointer};
use crate::condition::{Condition, ConditionSource, Conditions, Layout, NamedBodyFact, Names};
use crate::decide::Requirement;
use crate::level::{Level, Levels, Method};
use crate::shown::Shown;
use crate::suggest::closest_name;
use crate::vocabulary::Vocabulary;

/// Bodies that rules look into are held in memory whole.
const MOST_BODY_BYTES: u64 = 1024 * 1024;
/// What a person takes in before they approve it.
const MOST_SHOWN: usize = 16;

pub(super) fn compile(
    sources: &[RuleSource],
    levels: &Levels,
    vocabulary: &Vocabulary,
) -> Result<(Vec<Rule>, Conditions), Vec<RuleError>> {
    let mut compiler = Compiler { highest_level: levels.highest(), ..Compiler::new(vocabulary) };
    let mut rules = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        compiler.index = index;
        compiler.rule.clone_from(&source.id);
        compiler.check_id(&source.id);
        rules.extend(compiler.rule(source));
    }
    if compiler.errors.is_empty() { Ok((rules, compiler.conditions.finish())) } else { Err(compiler.errors) }
}

/// Compiles what says which requests something is about.
pub(super) fn matcher(source: &MatchSource) -> Result<Matcher, Vec<RuleError>> {
    let vocabulary = Vocabulary::default();
    let mut compiler = Compiler::new(&vocabulary);
    compiler.matcher(source).ok_or(compiler.errors)
}

struct Compiler<'v> {
    vocabulary: &'v Vocabulary,
    highest_level: Level,
    /// The rule at hand.
    index: usize,
    rule: String,
    ids: BTreeSet<String>,
    errors: Vec<RuleError>,
    /// All facts that rules read from bodies; those that agree on place and kind are one.
    body_facts: Vec<Arc<BodyFact>>,
    conditions: Layout,
    /// Rules that require the same share it: see [`super::Outcome`].
    requirements: BTreeSet<Arc<Requirement>>,
}

impl<'v> Compiler<'v> {
    fn new(vocabulary: &'v Vocabulary) -> Compiler<'v> {
        Compiler {
            vocabulary,
            highest_level: Level::default(),
            index: 0,
            rule: String::new(),
            ids: BTreeSet::new(),
            errors: Vec::new(),
            body_facts: Vec::new(),
            conditions: Layout::default(),
            requirements: BTreeSet::new(),
        }
    }

    fn rule(&mut self, source: &RuleSource) -> Option<Rule> {
        // Every part is compiled before any is asked for, so that all mistakes come to light at once.
        let matcher = self.matcher(&source.matches);
        let (body, named_facts) = source.body.as_ref().map(|body| self.body(body)).unzip();
        let named_facts = named_facts.unwrap_or_default();
        let condition = source.when.as_ref().map(|text| self.condition(text, &named_facts));
        let outcome = self.outcome(source);
        let shown = match &source.outcome {
            OutcomeSource::Require(require) => self.shown(require, &named_facts),
            _ => Vec::new(),
        };
        let on_missing = self.on_missing(source.on_missing, &source.outcome);
        let (condition, source_of_condition) = match condition {
            None => (None, None),
            Some(compiled) => compiled.map(|(condition, source)| (Some(condition), Some(source)))?,
        };
        let body = body_read(body, source_of_condition.as_deref());
        let about =
            About { id: source.id.as_str().into(), matcher: matcher?, condition: source_of_condition, body, shown };
        Some(Rule { condition, outcome: outcome?, on_missing, about: Box::new(about) })
    }

    fn check_id(&mut self, id: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            self.complain(Field::Id, "an id has 1 to 64 letters, digits, `-`, `_` or `.`".into(), None);
        } else if !self.ids.insert(id.into()) {
            self.complain(Field::Id, "another rule has this id".into(), None);
        }
    }

    fn matcher(&mut self, source: &MatchSource) -> Option<Matcher> {
        let errors_before = self.errors.len();
        let hosts = self.patterns(&source.hosts, Field::Host, HostPattern::parse);
        let paths = self.patterns(&source.paths, Field::Path, PathPattern::parse);
        for (index, name) in source.methods.iter().enumerate() {
            if !METHODS.contains(&name.as_str()) {
                self.unknown_name(Field::Method(index), "method", name, METHODS.iter().copied());
            }
        }
        let names: Vec<&str> = source.methods.iter().map(String::as_str).collect();
        let methods = if names.is_empty() { Some(MethodSet::default()) } else { MethodSet::of_rule(&names) };
        (self.errors.len() == errors_before).then_some(Matcher { hosts, methods: methods?, paths })
    }

    fn patterns<P>(
        &mut self,
        texts: &[String],
        field: fn(usize) -> Field,
        parse: fn(&str) -> Result<P, PatternError>,
    ) -> Vec<P> {
        let mut patterns = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.complain(field(index), error.message.into(), error.help),
            }
        }
        patterns
    }

    fn body(&mut self, source: &BodySource) -> (BodyRead, Vec<NamedBodyFact>) {
        let max_bytes = source.max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
        if max_bytes == 0 || max_bytes > MOST_BODY_BYTES {
            let help = "larger bodies can only be streamed, without rules that look into them";
            self.complain(Field::BodyMaxBytes, "from 1 byte to 1 MiB is held in memory".into(), Some(help.into()));
        }
        let (mut facts, mut named) = (Vec::new(), Vec::<NamedBodyFact>::new());
        for (index, fact) in source.facts.iter().enumerate() {
            if !is_identifier(&fact.name) {
                let help = "letters, digits and `_`, as in `body.amount`";
                self.complain(Field::BodyFactName(index), "not a name a condition can write".into(), Some(help.into()));
            } else if named.iter().any(|known| *known.name == *fact.name) {
                self.complain(Field::BodyFactName(index), "this rule has another fact of this name".into(), None);
            }
            match Pointer::parse(&fact.pointer) {
                Ok(pointer) => {
                    let interned = self.intern(pointer, fact.kind);
                    let name: Arc<str> = fact.name.as_str().into();
                    named.push(NamedBodyFact { name, slot: interned.slot, kind: interned.kind });
                    facts.push(interned);
                }
                Err(message) => self.complain(Field::BodyFactPointer(index), message.into(), None),
            }
        }
        (BodyRead { max_bytes, facts, graphql: false }, named)
    }

    fn intern(&mut self, pointer: Pointer, kind: BodyFactKind) -> Arc<BodyFact> {
        if let Some(known) = self.body_facts.iter().find(|fact| fact.pointer == pointer && fact.kind == kind) {
            return known.clone();
        }
        let slot = BodySlot(u32::try_from(self.body_facts.len()).unwrap_or(u32::MAX));
        let fact = Arc::new(BodyFact { slot, pointer, kind });
        self.body_facts.push(fact.clone());
        fact
    }

    fn condition(&mut self, text: &str, body_facts: &[NamedBodyFact]) -> Option<(Condition, Arc<ConditionSource>)> {
        let names = Names { vocabulary: self.vocabulary, body: body_facts };
        match self.conditions.add(text, names) {
            Ok(condition) => Some(condition),
            Err(errors) => {
                for error in errors {
                    self.complain_at(Field::When, Some(error.span), error.message, error.help);
                }
                None
            }
        }
    }

    fn outcome(&mut self, source: &RuleSource) -> Option<Outcome> {
        match &source.outcome {
            OutcomeSource::Allow => Some(Outcome::Allow),
            OutcomeSource::Deny { reason } => Some(Outcome::Deny { reason: reason.as_str().into() }),
            OutcomeSource::Require(require) => self.requirement(require).map(|all| Outcome::Require(self.shared(all))),
            OutcomeSource::Revoke => Some(Outcome::Revoke),
            OutcomeSource::RegenerateApiKey => Some(Outcome::RegenerateApiKey),
            OutcomeSource::Limit(limit) => match limit.compile(source.id.as_str().into()) {
                Ok(limit) => Some(Outcome::Limit(Box::new(limit))),
                Err(message) => {
                    self.complain(Field::Limit, message, None);
                    None
                }
            },
        }
    }

    fn requirement(&mut self, source: &RequireSource) -> Option<Requirement> {
        let errors_before = self.errors.len();
        let mut methods = Vec::new();
        for (index, name) in source.methods.iter().enumerate() {
            match Method::from_name(name) {
                Some(method) if methods.contains(&method) => {}
                Some(method) => methods.push(method),
                None => self.unknown_name(Field::RequireMethod(index), "method", name, Method::all().map(Method::name)),
            }
        }
        let level = source.level.map(|level| u8::try_from(level).unwrap_or(u8::MAX));
        if level.is_some_and(|level| level == 0 || level > self.highest_level.0) {
            let help = format!("levels are 1 to {}, see `step_up.levels`", self.highest_level.0);
            self.complain(Field::RequireLevel, "there is no such level".into(), Some(help));
        }
        if level.is_none() && source.methods.is_empty() && source.max_age_seconds.is_none() && !source.per_action {
            let help = "name a `level`, `methods`, `max_age` or `per_action`";
            self.complain(Field::Require, "nothing is required".into(), Some(help.into()));
        }
        let per_action = source.per_action || source.max_age_seconds == Some(0);
        if source.per_action && source.max_age_seconds.is_some_and(|seconds| seconds > 0) {
            let help = "`per_action` counts only proofs made for the request itself; they have no age";
            self.complain(
                Field::RequireMaxAge,
                "`max_age` means nothing beside `per_action`".into(),
                Some(help.into()),
            );
        }
        (self.errors.len() == errors_before).then(|| Requirement {
            level: level.map(Level),
            methods,
            max_age_seconds: source.max_age_seconds.filter(|_| !per_action),
            per_action,
        })
    }

    /// The facts of the rule's own body that it shows, each once.
    fn shown(&mut self, source: &RequireSource, body_facts: &[NamedBodyFact]) -> Vec<Shown> {
        let is_per_action = source.per_action || source.max_age_seconds == Some(0);
        if !source.show.is_empty() && !is_per_action {
            let help = "add `per_action: true`: other proofs count for other requests too, which nobody has seen then";
            let message = "what is shown is approved for this one request";
            self.complain(Field::RequireShow(0), message.into(), Some(help.into()));
        }
        if source.show.len() > MOST_SHOWN {
            self.complain(Field::RequireShow(MOST_SHOWN), "nobody reads more than 16 facts".into(), None);
        }
        let mut shown = Vec::<Shown>::new();
        for (index, name) in source.show.iter().enumerate() {
            let field = Field::RequireShow(index);
            match body_facts.iter().find(|known| *known.name == **name) {
                Some(known) => {
                    let fact = Shown { name: known.name.clone(), slot: known.slot, kind: known.kind };
                    if shown.contains(&fact) {
                        self.complain(field, "it is shown already".into(), None);
                    }
                    shown.push(fact);
                }
                None if body_facts.is_empty() => {
                    let help = "what is shown is read from the body: add `body: {facts: …}` to the rule";
                    self.complain(field, format!("this rule reads no `{name}`"), Some(help.into()));
                }
                None => {
                    let known = || body_facts.iter().map(|fact| &*fact.name);
                    let help = match closest_name(name, known()) {
                        Some(close) => format!("did you mean `{close}`?"),
                        None => format!("it reads: {}", known().collect::<Vec<_>>().join(", ")),
                    };
                    self.complain(field, format!("there is no `{name}` in this rule's `body.facts`"), Some(help));
                }
            }
        }
        shown
    }

    fn shared(&mut self, requirement: Requirement) -> Arc<Requirement> {
        if let Some(known) = self.requirements.get(&requirement) {
            return known.clone();
        }
        let requirement = Arc::new(requirement);
        self.requirements.insert(requirement.clone());
        requirement
    }

    fn on_missing(&mut self, source: Option<OnMissing>, outcome: &OutcomeSource) -> OnMissing {
        let default = match outcome {
            OutcomeSource::Require(_) | OutcomeSource::Limit(_) => OnMissing::Challenge,
            OutcomeSource::Allow => OnMissing::Skip,
            OutcomeSource::Deny { .. } | OutcomeSource::Revoke | OutcomeSource::RegenerateApiKey => OnMissing::Deny,
        };
        match source {
            Some(OnMissing::Challenge) if default != OnMissing::Challenge => {
                let message = match outcome {
                    OutcomeSource::Allow => "a rule that allows must know that it applies",
                    OutcomeSource::Deny { .. } => "a rule that denies has no challenge to make",
                    _ => "nothing is taken away for what is not known",
                };
                self.complain(Field::OnMissing, message.into(), Some("write `deny` or `skip`".into()));
                default
            }
            chosen => chosen.unwrap_or(default),
        }
    }

    fn unknown_name(
        &mut self,
        field: Field,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'static str> + Clone,
    ) {
        let help = match closest_name(name, known.clone()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("known: {}", known.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")),
        };
        self.complain(field, format!("there is no {what} `{name}`"), Some(help));
    }

    fn complain(&mut self, field: Field, message: String, help: Option<String>) {
        self.complain_at(field, None, message, help);
    }

    fn complain_at(&mut self, field: Field, span: Option<Span>, message: String, help: Option<String>) {
        self.errors.push(RuleError { index: self.index, rule: self.rule.clone(), field, span, message, help });
    }
}

/// What the rule reads from bodies, which a condition may widen: one that names a GraphQL fact has them read as such.
fn body_read(declared: Option<BodyRead>, condition: Option<&ConditionSource>) -> Option<BodyRead> {
    if !condition.is_some_and(ConditionSource::reads_graphql) {
        return declared;
    }
    let declared = declared.unwrap_or(BodyRead { max_bytes: DEFAULT_MAX_BYTES, facts: Vec::new(), graphql: true });
    Some(BodyRead { graphql: true, ..declared })
}

fn is_identifier(name: &str) -> bool {
    let starts_well = name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_');
    starts_well && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
