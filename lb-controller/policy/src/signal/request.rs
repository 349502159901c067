//! What the client asks for.

use super::{Kind, Signal, Value};

pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "request.method",
        kind: Kind::Text,
        needs_session: false,
        read: |facts| Some(Value::Text(facts.request.method)),
    },
    Signal {
        name: "request.host",
        kind: Kind::Text,
        needs_session: false,
        read: |facts| Some(Value::Text(facts.request.host)),
    },
    Signal {
        name: "request.path",
        kind: Kind::Text,
        needs_session: false,
        read: |facts| Some(Value::Text(without_trailing_slash(facts.request.path))),
    },
    Signal {
        name: "request.query",
        kind: Kind::Text,
        needs_session: false,
        read: |facts| Some(Value::Text(facts.request.query)),
    },
];

/// `request.path == "/admin"` must hold for `/admin/` too, whichever form of the path the facts were made with.
fn without_trailing_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(trimmed) => trimmed,
    }
}
