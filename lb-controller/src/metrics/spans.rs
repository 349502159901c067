//! Spans of sampled requests on their way to a collector.

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanFate {
    /// The collector took it.
    Sent,
    /// As many waited as may.
    NoRoom,
    /// The collector did not answer, or asked to come again too often.
    Failed,
    /// The collector did not want it.
    Refused,
}

impl SpanFate {
    pub(super) const ALL: [SpanFate; 4] = [SpanFate::Sent, SpanFate::NoRoom, SpanFate::Failed, SpanFate::Refused];

    pub(super) fn name(self) -> &'static str {
        match self {
            SpanFate::Sent => "sent",
            SpanFate::NoRoom => "no_room",
            SpanFate::Failed => "failed",
            SpanFate::Refused => "refused",
        }
    }
}
