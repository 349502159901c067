//! What was counted before, and how threatened the service is.

use super::{Kind, Signal, Value, plain};

pub(super) const SIGNALS: &[Signal] = &[
    plain("threat", Kind::Threat, |facts| Some(Value::Threat(facts.observed.threat))),
    // The worst of all: whoever tries passwords changes addresses, or accounts, or both.
    plain("signals.failed_logins_10m", Kind::Number, |facts| {
        let failed = facts.observed.failed_logins;
        Some(Value::count(failed.source.max(failed.user.unwrap_or(0)).max(failed.device.unwrap_or(0))))
    }),
    plain("signals.failed_logins_10m_source", Kind::Number, |facts| {
        Some(Value::count(facts.observed.failed_logins.source))
    }),
    plain("signals.failed_logins_10m_device", Kind::Number, |facts| {
        facts.observed.failed_logins.device.map(Value::count)
    }),
    Signal {
        name: "signals.failed_logins_10m_user",
        kind: Kind::Number,
        needs_session: true,
        read: |facts| facts.observed.failed_logins.user.map(Value::count),
    },
];
