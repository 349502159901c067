//! What the client asks for.

use super::read::Read;
use super::{Signal, plain};

pub(super) const SIGNALS: &[Signal] = &[
    plain("request.method", Read::Text(|facts| Some(facts.request.method))),
    plain("request.host", Read::Text(|facts| Some(facts.request.host))),
    plain("request.path", Read::Text(|facts| Some(without_trailing_slash(facts.request.path)))),
    plain("request.query", Read::Text(|facts| Some(facts.request.query))),
    plain("graphql.operation_type", Read::Text(|facts| Some(facts.body.graphql()?.operation_type))),
    plain("graphql.operation_name", Read::Text(|facts| facts.body.graphql()?.name.as_deref())),
    plain("graphql.fields", Read::TextList(|facts| Some(&facts.body.graphql()?.fields))),
];

/// `request.path == "/admin"` must hold for `/admin/` too, whichever form of the path the facts were made with.
fn without_trailing_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(trimmed) => trimmed,
    }
}
