//! Our evaluation of a condition against the interpreter of the parser's own crate, on generated conditions.

use std::collections::HashMap;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use cel::{Context, Program, Value};
use proptest::prelude::*;

use super::Condition;
use super::Truth;
use super::tests::{body_facts, evaluate};

/// A condition over the facts that [`evaluate`] knows. Numbers are such that binary fractions hold them exactly, since
/// the interpreter compares those. `body.note` is missing in both.
fn any_condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        one_of(&["true", "false", "body.express", "has(body.note)", "has(body.amount)", "has(session.user)"]),
        (number(), one_of(&["==", "!=", "<", "<=", ">", ">="]), number())
            .prop_map(|(left, comparison, right)| format!("{left} {comparison} {right}")),
        (text(), one_of(&["==", "!="]), text()).prop_map(|(left, equal, right)| format!("{left} {equal} {right}")),
        (text(), one_of(&["startsWith", "endsWith", "contains"]), text())
            .prop_map(|(target, function, argument)| format!("{target}.{function}({argument})")),
        (text(), proptest::collection::vec(one_of(LITERAL_TEXTS), 1..3))
            .prop_map(|(item, list)| format!("{item} in [{}]", list.join(", "))),
        text().prop_map(|item| format!("{item} in session.groups")),
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
const NUMBERS: &[&str] =
    &["body.amount", "session.groups.size()", "size(session.user)", "750.25", "750", "-1", "2", "5.0", "0.5"];

fn number() -> impl Strategy<Value = String> {
    one_of(NUMBERS)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![one_of(LITERAL_TEXTS), one_of(&["session.user", "body.currency", "body.note", "request.method"])]
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
    context.add_variable_from_value(
        "body",
        object(&[("amount", 750.25.into()), ("currency", "EUR".into()), ("express", true.into())]),
    );
    context.add_variable_from_value("session", object(&[("user", "alice".into()), ("groups", groups.into())]));
    context.add_variable_from_value("request", object(&[("method", "POST".into())]));
    match Program::compile(text).unwrap().execute(&context) {
        Ok(Value::Bool(value)) => Truth::of(Some(value)),
        // The only error that a checked condition can meet there is an absent fact.
        _ => Truth::Missing,
    }
}

proptest! {
    #[test]
    fn a_condition_means_what_the_interpreter_of_cel_says(text in any_condition()) {
        let condition = Condition::compile(&text, &body_facts());
        prop_assert!(condition.is_ok(), "{}: {:?}", text, condition);
        let condition = condition.unwrap();
        prop_assert_eq!(evaluate(&condition, true), interpret(&text), "{}", text);
    }
}
