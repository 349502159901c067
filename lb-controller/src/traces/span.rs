//! What a trace is made of, as it goes to the exporter.

use super::context::{SpanId, TraceId};

/// One thing that was done, from then till then.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    /// Somebody else's trace that this one did not go on with.
    pub(super) link: Option<(TraceId, SpanId)>,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Since the epoch.
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) attributes: Vec<Attribute>,
    pub(super) has_failed: bool,
}

/// By the numbers of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// By the names of OpenTelemetry's semantic conventions, where they have one.
pub(super) type Attribute = (&'static str, Value);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Value {
        Value::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
