//! Rules: YAML to [`RuleSource`], and the policy crate's errors back to places in the file.

use std::ops::Range;
use std::time::Duration;

use lb_policy::{
    BodyFactKind, BodyFactSource, BodySource, CountedBy, Field, Levels, LimitSource, MatchSource, OnMissing,
    OutcomeSource, RequireSource, RuleError, RuleSet, RuleSource, Vocabulary,
};

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::{Node, Value, place_of_part};
use super::super::values;

/// More would be a mistake of whatever wrote the file.
const MOST_RULES: usize = 100_000;

/// Compiles all rules; complaints about one never hide those about another.
pub(super) fn compile(config: &Section<'_>, source: &str, levels: &Levels, vocabulary: &Vocabulary) -> Option<RuleSet> {
    let problems = config.problems;
    let nodes = config.list("rules");
    if let Some(extra) = nodes.get(MOST_RULES) {
        problems.report(&extra.place, format!("at most {MOST_RULES} rules"));
        return None;
    }
    let (sources, nodes): (Vec<RuleSource>, Vec<&Node>) =
        nodes.iter().filter_map(|node| Some((rule(node, problems)?, node))).unzip();
    match RuleSet::compile_with(&sources, levels, vocabulary) {
        Ok(rules) => Some(rules),
        Err(errors) => {
            for error in errors {
                let place = nodes.get(error.index).map_or(0..0, |node| place_of(&error, node, source));
                problems.report(&place, Complaint { message: error.message, help: error.help });
            }
            None
        }
    }
}

/// One rule. What is wrong with its YAML is reported here; the policy crate then checks the rest.
fn rule(node: &Node, problems: &Problems) -> Option<RuleSource> {
    let section = Section::open("a rule", node, problems)?;
    let id = section.required_value("id", |text| Ok(text.to_owned()));
    let matches = section.get("match").and_then(|node| matches(node, problems)).unwrap_or_default();
    let problems_before_body = problems.count();
    let body = section.get("body").and_then(|node| body(node, problems));
    let body_is_sound = problems.count() == problems_before_body;
    let when = section.value("when", |text| Ok(text.to_owned()));
    let outcome = outcome(&section, node);
    let on_missing = section.value("on_missing", |text| {
        OnMissing::from_name(text).ok_or_else(|| Complaint::unknown("choice", text, OnMissing::names()))
    });
    section.finish();
    // Facts that were left out would be reported once more where the condition uses them.
    let when = when.filter(|_| body_is_sound);
    let outcome = match outcome {
        Some(OutcomeSource::Require(require)) if !body_is_sound => {
            Some(OutcomeSource::Require(RequireSource { show: Vec::new(), ..require }))
        }
        outcome => outcome,
    };
    let on_missing = on_missing.filter(|_| outcome.is_some());
    // Where something is wrong already, harmless stand-ins let the rest of the rule be checked.
    let id = id.unwrap_or_else(|| format!("unnamed-{}", node.place.start));
    let outcome = outcome.unwrap_or(OutcomeSource::Deny { reason: String::new() });
    Some(RuleSource { id, matches, body, when, outcome, on_missing })
}

pub(super) fn matches(node: &Node, problems: &Problems) -> Option<MatchSource> {
    let section = Section::open("`match`", node, problems)?;
    let texts = |name| section.values(name, |text| Ok(text.to_owned()));
    let matches = MatchSource { hosts: texts("hosts"), methods: texts("methods"), paths: texts("paths") };
    section.finish();
    Some(matches)
}

fn body(node: &Node, problems: &Problems) -> Option<BodySource> {
    let section = Section::open("`body`", node, problems)?;
    let max_bytes = section.value("max", values::size_bytes);
    let mut facts = Vec::new();
    if let Some(facts_section) = section.require("facts").and_then(|node| Section::open("`facts`", node, problems)) {
        for (key, node) in facts_section.entries() {
            facts.extend(body_fact(&key.name, node, problems));
        }
    }
    section.finish();
    Some(BodySource { max_bytes, facts })
}

fn body_fact(name: &str, node: &Node, problems: &Problems) -> Option<BodyFactSource> {
    let section = Section::open("a fact", node, problems)?;
    let pointer = section.required_value("pointer", |text| Ok(text.to_owned()));
    let kind_given = section.has("kind");
    let kind = section.value("kind", |text| {
        BodyFactKind::from_name(text).ok_or_else(|| Complaint::unknown("kind", text, BodyFactKind::names()))
    });
    section.finish();
    let kind = if kind_given { kind? } else { BodyFactKind::Text };
    Some(BodyFactSource { name: name.to_owned(), pointer: pointer?, kind })
}

/// What a rule may do; it does one of these.
const OUTCOMES: [&str; 6] = ["allow", "require", "deny", "revoke", "limit", "regenerate_api_key"];

fn outcome(section: &Section<'_>, node: &Node) -> Option<OutcomeSource> {
    let problems = section.problems;
    let given: Vec<(&str, &Node)> = OUTCOMES.into_iter().filter_map(|name| Some((name, section.get(name)?))).collect();
    match given.as_slice() {
        [(name, node)] => match *name {
            "require" => self::require(node, problems).map(OutcomeSource::Require),
            "limit" => limit(node, problems).map(OutcomeSource::Limit),
            "deny" => deny(node, problems),
            "allow" => flag(node, problems, OutcomeSource::Allow),
            "revoke" => flag(node, problems, OutcomeSource::Revoke),
            _ => flag(node, problems, OutcomeSource::RegenerateApiKey),
        },
        [_, (_, second), ..] => {
            problems.report(
                &second.place,
                Complaint::new("a rule does one thing", "make two rules of it: both will count"),
            );
            None
        }
        [] => {
            if !OUTCOMES.into_iter().any(|name| section.has(name)) {
                let message = format!("a rule needs one of {}", OUTCOMES.map(|name| format!("`{name}`")).join(", "));
                problems
                    .report(&start_of(node), Complaint::new(message, "as in `require: {level: 2}` or `deny: true`"));
            }
            None
        }
    }
}

fn deny(node: &Node, problems: &Problems) -> Option<OutcomeSource> {
    node.read(problems, |text| match text {
        "false" => Err("a rule that does nothing; leave it out".into()),
        "true" => Ok(OutcomeSource::Deny { reason: "denied by rule".into() }),
        reason => Ok(OutcomeSource::Deny { reason: reason.to_owned() }),
    })
}

/// `true`, as in `revoke: true`.
fn flag(node: &Node, problems: &Problems, outcome: OutcomeSource) -> Option<OutcomeSource> {
    node.read(problems, |text| match values::boolean(text)? {
        true => Ok(outcome),
        false => Err("a rule that does nothing; leave it out".into()),
    })
}

fn limit(node: &Node, problems: &Problems) -> Option<LimitSource> {
    let section = Section::open("`limit`", node, problems)?;
    let rate = section.required_value("rate", rate);
    let counted_by = section.required_value("by", counted_by);
    section.finish();
    let (requests, per_seconds) = rate?;
    Some(LimitSource { requests, per_seconds, counted_by: counted_by? })
}

pub(super) fn counted_by(text: &str) -> Result<CountedBy, Complaint> {
    CountedBy::from_name(text).ok_or_else(|| Complaint::unknown("choice", text, CountedBy::names()))
}

/// `5/m`, `100/10m`: requests, and the seconds that they are for.
fn rate(text: &str) -> Result<(u64, u64), Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no rate"), "write requests and a time: 5/m, 100/h, 20/10m");
    let (requests, time) = text.split_once('/').ok_or_else(complaint)?;
    let requests = requests.trim().parse().map_err(|_| complaint())?;
    let time = time.trim();
    // `5/m` is five in one minute.
    let time =
        if time.starts_with(|first: char| first.is_ascii_digit()) { time.to_owned() } else { format!("1{time}") };
    let time =
        values::duration(Duration::from_secs(1)..=Duration::from_secs(86_400))(&time).map_err(|_| complaint())?;
    Ok((requests, time.as_secs()))
}

fn require(node: &Node, problems: &Problems) -> Option<RequireSource> {
    let section = Section::open("`require`", node, problems)?;
    let problems_before = problems.count();
    let mut require = RequireSource {
        level: section.value("level", level),
        methods: section.values("methods", |text| Ok(text.to_owned())),
        max_age_seconds: section.value("max_age", max_age_seconds),
        per_action: section.value("per_action", values::boolean).unwrap_or(false),
        show: section.values("show", |text| Ok(text.to_owned())),
    };
    section.finish();
    if problems.count() > problems_before && require.max_age_seconds.is_none() {
        // Or what is left after a mistake would be told to require nothing.
        require.per_action = true;
        require.show.clear();
    }
    Some(require)
}

fn level(text: &str) -> Result<u64, Complaint> {
    text.parse().map_err(|_| Complaint::new(format!("`{text}` is no level"), "write 1 or 2"))
}

fn max_age_seconds(text: &str) -> Result<u64, Complaint> {
    let year = Duration::from_secs(366 * 86_400);
    let max_age = values::duration(Duration::ZERO..=year)(text)?;
    if max_age.subsec_millis() != 0 {
        return Err("ages are counted in whole seconds".into());
    }
    Ok(max_age.as_secs())
}

/// Where in the file the policy crate found a mistake.
fn place_of(error: &RuleError, rule: &Node, source: &str) -> Range<usize> {
    let field = match error.field {
        Field::Id => child(rule, "id"),
        Field::Host(index) => child(rule, "match").and_then(|node| item(node, "hosts", index)),
        Field::Method(index) => child(rule, "match").and_then(|node| item(node, "methods", index)),
        Field::Path(index) => child(rule, "match").and_then(|node| item(node, "paths", index)),
        Field::BodyMaxBytes => child(rule, "body").and_then(|node| child(node, "max")),
        Field::BodyFactName(index) => return fact(rule, index).map_or(start_of(rule), |(key, _)| key.place.clone()),
        Field::BodyFactPointer(index) => fact(rule, index).and_then(|(_, node)| child(node, "pointer")),
        Field::When => child(rule, "when"),
        Field::Require => return child(rule, "require").map_or(start_of(rule), start_of),
        Field::RequireLevel => child(rule, "require").and_then(|node| child(node, "level")),
        Field::RequireMethod(index) => child(rule, "require").and_then(|node| item(node, "methods", index)),
        Field::RequireMaxAge => child(rule, "require").and_then(|node| child(node, "max_age")),
        Field::RequireShow(index) => child(rule, "require").and_then(|node| item(node, "show", index)),
        Field::Limit => child(rule, "limit"),
        Field::OnMissing => child(rule, "on_missing"),
    };
    match (field, error.span) {
        (None, _) => start_of(rule),
        (Some(node), None) => node.place.clone(),
        (Some(node), Some(span)) => place_of_part(node, source, span.offset..span.offset + span.length),
    }
}

fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
}

fn item<'n>(node: &'n Node, list: &str, index: usize) -> Option<&'n Node> {
    let list = child(node, list)?;
    match &list.value {
        Value::List(nodes) => nodes.get(index),
        _ => Some(list),
    }
}

fn fact(rule: &Node, index: usize) -> Option<&(super::super::tree::Key, Node)> {
    match &child(child(rule, "body")?, "facts")?.value {
        Value::Map(entries) => entries.get(index),
        _ => None,
    }
}

/// The first key of a mapping stands for all of it.
fn start_of(node: &Node) -> Range<usize> {
    match &node.value {
        Value::Map(entries) => entries.first().map_or(node.place.clone(), |(key, _)| key.place.clone()),
        _ => node.place.clone(),
    }
}
