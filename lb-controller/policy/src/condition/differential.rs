//! Our evaluation of a condition against the interpreter of the parser's own crate, on generated conditions.

use std::collections::HashMap;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use cel::{Context, Program, Value};
use proptest::prelude::*;

use super::Truth;
use super::tests::{compile, evaluate};

/// A condition over the facts that [`evaluate`] knows. Numbers are such that binary fractions hold them exactly, since
/// the interpreter compares those. `body.note` is missing in both.
fn any_condition() -> impl Strategy<Value = String> {
    prop_oneof![any_test_of(text().boxed()), exists()]
}

/// `session.groups.exists(g, …)`, in which `g` is one more text.
fn exists() -> impl Strategy<Value = String> {
    let test = any_test_of(prop_oneof![Just(String::from("g")), text()].boxed());
    (one_of(&["session.groups", "session.usual_countries"]), test)
        .prop_map(|(list, test)| format!("{list}.exists(g, {test})"))
}

fn any_test_of(text: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        one_of(&["true", "false", "body.express", "has(body.note)", "has(body.amount)", "has(session.user)"]),
        (number(), any_comparison(), number())
            .prop_map(|(left, comparison, right)| format!("{left} {comparison} {right}")),
        (duration(), any_comparison(), duration())
            .prop_map(|(left, comparison, right)| format!("{left} {comparison} {right}")),
        (text.clone(), one_of(&["==", "!="]), text.clone())
            .prop_map(|(left, equal, right)| format!("{left} {equal} {right}")),
        (text.clone(), one_of(&["startsWith", "endsWith", "contains"]), text.clone())
            .prop_map(|(target, function, argument)| format!("{target}.{function}({argument})")),
        (text.clone(), one_of(REGEXES)).prop_map(|(target, regex)| format!("{target}.matches({regex})")),
        (text.clone(), proptest::collection::vec(one_of(LITERAL_TEXTS), 1..3))
            .prop_map(|(item, list)| format!("{item} in [{}]", list.join(", "))),
        (text, one_of(&["session.groups", "session.usual_countries"]))
            .prop_map(|(item, list)| format!("{item} in {list}")),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|test| format!("!({test})")),
            (inner.clone(), one_of(&["&&", "||", "==", "!="]), inner)
                .prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})")),
        ]
    })
}

const LITERAL_TEXTS: &[&str] = &["\"\"", "\"alice\"", "\"EUR\"", "\"E\"", "'admins'", "\"POST\"", "r'é'"];
const NUMBERS: &[&str] = &[
    "body.amount",
    "session.groups.size()",
    "size(session.user)",
    "client.asn",
    "rate.exports",
    "750.25",
    "750",
    "-1",
    "2",
    "5.0",
    "0.5",
];
/// Those of Rust's `regex` that the interpreter uses mean the same here; `body.note` is still missing.
const REGEXES: &[&str] =
    &["\"\"", "\"^a\"", "'[A-Z]+$'", "r'^.{3,5}$'", "\"(?i)eur|post\"", "r'\\w+'", "\"l*i\"", "r'^[^a-z]*$'", "\"é\""];
const DURATIONS: &[&str] =
    &["session.factor_age.totp", "duration('10s')", "duration('1m')", "duration('1h30m')", "duration('0s')"];

fn any_comparison() -> impl Strategy<Value = String> {
    one_of(&["==", "!=", "<", "<=", ">", ">="])
}

fn duration() -> impl Strategy<Value = String> {
    one_of(DURATIONS)
}

const TEXT_FACTS: &[&str] =
    &["session.user", "body.currency", "body.note", "request.method", "client.country", "route.labels.env"];

fn number() -> impl Strategy<Value = String> {
    one_of(NUMBERS)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![one_of(LITERAL_TEXTS), one_of(TEXT_FACTS)]
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(texts).prop_map(Into::into)
}

fn interpret(text: &str) -> Truth {
    let mut context = Context::default();
    let object = |fields: &[(&str, Value)]| {
        let fields: HashMap<String, Value> =
            fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        Value::from(fields)
    };
    let groups: Vec<Value> = vec!["staff".into(), "admins".into()];
    let countries: Vec<Value> = vec!["DE".into(), "FR".into()];
    let totp_age = Program::compile("duration('10s')").unwrap().execute(&Context::default()).unwrap();
    context.add_variable_from_value(
        "body",
        object(&[("amount", 750.25.into()), ("currency", "EUR".into()), ("express", true.into())]),
    );
    let session = [
        ("user", "alice".into()),
        ("groups", groups.into()),
        ("usual_countries", countries.into()),
        ("factor_age", object(&[("totp", totp_age)])),
    ];
    context.add_variable_from_value("session", object(&session));
    context.add_variable_from_value("client", object(&[("country", "DE".into()), ("asn", 3320.into())]));
    context.add_variable_from_value("route", object(&[("labels", object(&[("env", "production".into())]))]));
    context.add_variable_from_value("rate", object(&[("exports", 21.into())]));
    context.add_variable_from_value("request", object(&[("method", "POST".into())]));
    match Program::compile(text).unwrap().execute(&context) {
        Ok(Value::Bool(true)) => Truth::True,
        Ok(Value::Bool(false)) => Truth::False,
        // The only error that a checked condition can meet there is an absent fact.
        _ => Truth::Missing,
    }
}

proptest! {
    #[test]
    fn a_condition_means_what_the_interpreter_of_cel_says(text in any_condition()) {
        let condition = compile(&text);
        prop_assert!(condition.is_ok(), "{}: {:?}", text, condition);
        let condition = condition.unwrap();
        prop_assert_eq!(evaluate(&condition, true), interpret(&text), "{}", text);
    }
}
