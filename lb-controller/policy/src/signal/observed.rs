//! What was counted before, and how threatened the service is.

use super::read::Read;
use super::{Signal, plain};

pub(super) const SIGNALS: &[Signal] = &[
    plain("threat", Read::Threat(|facts| Some(facts.observed.threat))),
    // The worst of all: whoever tries passwords changes addresses, or accounts, or both.
    plain(
        "signals.failed_logins_10m",
        Read::Count(|facts| {
            let failed = facts.observed.failed_logins;
            Some(failed.source.max(failed.user.unwrap_or(0)).max(failed.device.unwrap_or(0)))
        }),
    ),
    plain("signals.failed_logins_10m_source", Read::Count(|facts| Some(facts.observed.failed_logins.source))),
    plain("signals.failed_logins_10m_device", Read::Count(|facts| facts.observed.failed_logins.device)),
    Signal {
        name: "signals.failed_logins_10m_user",
        needs_session: true,
        read: Read::Count(|facts| facts.observed.failed_logins.user),
    },
];
