//! What the client asks for.

use super::{Kind, Signal, Value, plain};

pub(super) const SIGNALS: &[Signal] = &[
    plain("request.method", Kind::Text, |facts| Some(Value::Text(facts.request.method))),
    plain("request.host", Kind::Text, |facts| Some(Value::Text(facts.request.host))),
    plain("request.path", Kind::Text, |facts| Some(Value::Text(without_trailing_slash(facts.request.path)))),
    plain("request.query", Kind::Text, |facts| Some(Value::Text(facts.request.query))),
    plain("graphql.operation_type", Kind::Text, |facts| Some(Value::Text(facts.body.graphql()?.operation_type))),
    plain("graphql.operation_name", Kind::Text, |facts| facts.body.graphql()?.name.as_deref().map(Value::Text)),
    plain("graphql.fields", Kind::TextList, |facts| Some(Value::TextList(&facts.body.graphql()?.fields))),
];

/// `request.path == "/admin"` must hold for `/admin/` too, whichever form of the path the facts were made with.
fn without_trailing_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(trimmed) => trimmed,
    }
}
