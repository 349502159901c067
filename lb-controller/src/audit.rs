//! The audit trail: who proved what, who was refused, and what came of it. Events go to the tracing target `audit` with
//! one field per fact, and, where a file is configured, into a chain in it. Codes, passwords, tokens, cookies and bodies
//! never do.

mod event;
mod trail;
mod verify;

use std::fmt::Display;
use std::sync::OnceLock;

pub(crate) use event::{Circumstances, Event, Fact, FactorHad, Had, Required, Vouched};
pub use trail::{Lag, Trail, TrailConfig};
pub use verify::Verifier;

/// Where the events of this process are kept, like the subscriber of `tracing`: whoever has something to tell should not
/// have to be handed the file.
static TRAIL: OnceLock<Trail> = OnceLock::new();

/// Keeps all events from now on in `trail`. Only the first call of a process has an effect.
pub fn keep_in(trail: Trail) {
    let _ = TRAIL.set(trail);
}

/// Events that found no room, or no disk, so far.
pub fn lost_events() -> u64 {
    TRAIL.get().map_or(0, Trail::lost)
}

/// How far the trail's file is behind.
pub fn lag() -> Lag {
    TRAIL.get().map(Trail::lag).unwrap_or_default()
}

/// Writes what is still in memory: the last events before the process ends.
pub fn flush() {
    if let Some(trail) = TRAIL.get() {
        trail.flush();
    }
}

impl Event<'_> {
    pub(crate) fn record(&self) {
        if let Some(trail) = TRAIL.get() {
            trail.append(self);
        }
        let required = (!self.required.is_empty())
            .then(|| self.required.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        tracing::info!(
            target: "audit",
            event = self.event,
            result = self.result,
            request_id = self.request_id.as_deref(),
            user = self.user.as_deref(),
            session = self.session.as_deref(),
            source = self.source.as_ref().map(|source| tracing::field::display(source as &dyn Display)),
            host = self.host,
            request_method = self.request_method,
            path = self.path,
            factor = self.factor,
            rule = self.rule,
            reason = self.reason,
            required = required.as_deref(),
            had = self.had.as_ref().map(tracing::field::display),
            shown = self.shown,
            transaction = self.transaction,
            detail = self.detail,
            upstream_status = self.upstream_status,
        );
    }
}
