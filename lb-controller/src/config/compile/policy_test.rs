//! `tests`: requests with what the rules are to make of them.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::Node;
use super::super::{PolicyTest, values};

const DECISIONS: [&str; 7] =
    ["allow", "allow_within_limits", "log_in", "challenge", "deny", "revoke", "regenerate_api_key"];

pub(super) fn compile(config: &Section<'_>, source: &str) -> Vec<PolicyTest> {
    config.list("tests").iter().filter_map(|node| test(node, source, config.problems)).collect()
}

fn test(node: &Node, source: &str, problems: &Problems) -> Option<PolicyTest> {
    let section = Section::open("a test", node, problems)?;
    let text = |text: &str| Ok::<_, Complaint>(text.to_owned());
    let name = section.required_value("name", text);
    let request = section.required_value("request", text);
    let year = Duration::from_secs(366 * 86_400);
    let age = |text: &str| values::duration(Duration::ZERO..=year)(text).map(|age| age.as_secs());
    let factors = named(&section, "factors", age);
    let facts: BTreeMap<String, String> = named(&section, "facts", text).into_iter().collect();
    let user = section.value("user", text);
    let from =
        section.value("from", |text| text.parse().map_err(|_| Complaint::from(format!("`{text}` is no IP address"))));
    let at = section.value("at", time_of);
    let expect = section.require("expect").and_then(|node| Section::open("`expect`", node, problems));
    section.finish();
    let expect = expect?;
    let decision = expect.required_value("decision", |text| {
        let known = DECISIONS.contains(&text);
        if known { Ok(text.to_owned()) } else { Err(Complaint::unknown("decision", text, DECISIONS)) }
    });
    let rule = expect.value("rule", text);
    let methods = expect.has("methods").then(|| expect.values("methods", text));
    expect.finish();
    let line = source[..node.place.start.min(source.len())].matches('\n').count() + 1;
    let (name, request, decision) = (name?, request?, decision?);
    Some(PolicyTest { name, line, request, user, factors, from, at, facts, decision, rule, methods })
}

/// A section whose keys are names of factors or facts.
fn named<T>(
    section: &Section<'_>,
    name: &'static str,
    read: impl Fn(&str) -> Result<T, Complaint>,
) -> Vec<(String, T)> {
    let problems = section.problems;
    let inner = section.get(name).and_then(|node| Section::open(name, node, problems));
    let entries = inner.map_or(&[][..], |inner| inner.entries());
    entries.iter().filter_map(|(key, node)| Some((key.name.clone(), node.read(problems, &read)?))).collect()
}

/// RFC 3339, in seconds since 1970.
fn time_of(text: &str) -> Result<u64, Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no time"), "as in `2026-11-28T14:30:00+01:00`");
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| complaint())?;
    u64::try_from(time.unix_timestamp()).map_err(|_| complaint())
}
