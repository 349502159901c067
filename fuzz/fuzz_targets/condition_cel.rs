//! Conditions mean what the interpreter of CEL says: bytes choose a condition out of a grammar, and both judge it.
#![no_main]

use std::collections::HashMap;

use cel::{Context, Program, Value};
use lb_policy::*;
use libfuzzer_sys::fuzz_target;

/// Values that both know, and a fact that neither has.
const TEXTS: [&str; 8] =
    ["session.user", "client.country", "request.method", "body.note", "\"alice\"", "\"DE\"", "\"\"", "'POST'"];
/// Such that binary fractions hold them exactly: the interpreter compares those.
const NUMBERS: [&str; 6] = ["client.asn", "size(session.user)", "session.groups.size()", "2", "3320.0", "-0.5"];
const DURATIONS: [&str; 4] = ["duration('10s')", "duration('1m')", "duration('1h30m')", "duration('0s')"];
const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
const RELATIONS: [&str; 3] = ["startsWith", "endsWith", "contains"];
const REGEXES: [&str; 6] = ["\"^a\"", "'[A-Z]+$'", "r'^.{2,5}$'", "\"(?i)post\"", "r'\\w+'", "\"\""];
const LISTS: [&str; 2] = ["session.groups", "session.usual_countries"];
const MOST_DEPTH: usize = 6;

/// Bytes that run out are zeros.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[usize::from(self.0.next().copied().unwrap_or(0)) % texts.len()]
    }

    fn text(&mut self, entry: Option<&'static str>) -> &'static str {
        match entry {
            Some(entry) if self.0.next().is_some_and(|byte| byte % 2 == 0) => entry,
            _ => self.one_of(&TEXTS),
        }
    }

    fn condition(&mut self, depth: usize, entry: Option<&'static str>) -> String {
        let kinds = if depth == 0 { 6 } else { 10 };
        match self.0.next().copied().unwrap_or(0) % kinds {
            0 => format!("{} {} {}", self.text(entry), self.one_of(&["==", "!="]), self.text(entry)),
            1 => format!("{} {} {}", self.one_of(&NUMBERS), self.one_of(&COMPARISONS), self.one_of(&NUMBERS)),
            2 => format!("{} {} {}", self.one_of(&DURATIONS), self.one_of(&COMPARISONS), self.one_of(&DURATIONS)),
            3 => format!("{}.{}({})", self.text(entry), self.one_of(&RELATIONS), self.text(entry)),
            4 => format!("{}.matches({})", self.text(entry), self.one_of(&REGEXES)),
            5 => format!("{} in {}", self.text(entry), self.one_of(&LISTS)),
            6 => format!("!({})", self.condition(depth - 1, entry)),
            7 if entry.is_none() => {
                format!("{}.exists(e, {})", self.one_of(&LISTS), self.condition(depth.min(3) - 1, Some("e")))
            }
            _ => {
                let (left, right) = (self.condition(depth - 1, entry), self.condition(depth - 1, entry));
                format!("({left}) {} ({right})", self.one_of(&["&&", "||", "==", "!="]))
            }
        }
    }
}

fn interpreted(text: &str) -> Truth {
    let object = |fields: Vec<(&str, Value)>| {
        Value::from(
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<String, Value>>(),
        )
    };
    let list = |texts: [&str; 2]| Value::from(texts.map(Value::from).to_vec());
    let mut context = Context::default();
    let session =
        vec![("user", "alice".into()), ("groups", list(["staff", "admins"])), ("usual_countries", list(["DE", "FR"]))];
    context.add_variable_from_value("session", object(session));
    context.add_variable_from_value("client", object(vec![("country", "DE".into()), ("asn", 3320.into())]));
    context.add_variable_from_value("request", object(vec![("method", "POST".into())]));
    context.add_variable_from_value("body", object(Vec::new()));
    match Program::compile(text).expect("the grammar is CEL's").execute(&context) {
        Ok(Value::Bool(true)) => Truth::True,
        Ok(Value::Bool(false)) => Truth::False,
        // The only error that a condition of this grammar meets is a fact that is not there.
        _ => Truth::Missing,
    }
}

fn judged(rules: &RuleSet) -> Truth {
    let groups = ["staff".to_owned(), "admins".to_owned()];
    let countries = ["DE".to_owned(), "FR".to_owned()];
    let explanation = rules.explain(&Facts {
        now: 1_060,
        levels: &Levels::default(),
        request: RequestFacts {
            method: "POST",
            host: "h",
            path: "/",
            query: "",
            parameters: &NO_PARAMETERS,
            headers: &NoHeaders,
        },
        client: ClientFacts { country: Some("DE"), asn: Some(3320), ..ClientFacts::at([192, 0, 2, 7].into()) },
        session: Some(SessionFacts { issuer: None, user: "alice", groups: &groups, factors: &[], begun_at: 0 }),
        proved_for_this_request: &[],
        provable: &Everything,
        body: &BodyFacts::default(),
        route: RouteFacts::default(),
        api_key: None,
        observed: ObservedFacts { usual_countries: Some(&countries), ..ObservedFacts::default() },
    });
    explanation.rules[0].condition.as_ref().expect("the rule has one").truth
}

fuzz_target!(|bytes: &[u8]| {
    let text = Bytes(bytes.iter()).condition(MOST_DEPTH, None);
    let note = BodyFactSource { name: "note".into(), pointer: "/note".into(), kind: BodyFactKind::Text };
    let rules = RuleSet::compile(
        &[RuleSource {
            id: "fuzzed".into(),
            matches: MatchSource::default(),
            body: Some(BodySource { max_bytes: None, facts: vec![note] }),
            when: Some(text.clone()),
            outcome: OutcomeSource::Deny { reason: "it holds".into() },
            on_missing: Some(OnMissing::Skip),
        }],
        &Levels::default(),
    );
    // Long ones, and brackets too deep, are refused.
    let Ok(rules) = rules else { return };
    assert_eq!(judged(&rules), interpreted(&text), "{text}");
});
