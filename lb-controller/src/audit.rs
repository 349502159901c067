//! The audit trail: who proved what, who was refused, and what came of it. Events go to the tracing target `audit` with
//! one field per fact, and, where a file is configured, into a chain in it. Codes, passwords, tokens, cookies and bodies
//! never do.

mod trail;
mod verify;

use std::fmt::Display;
use std::sync::OnceLock;

use lb_common::Source;
use serde::{Serialize, Serializer};

pub use trail::{Trail, TrailConfig};
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

/// Writes what is still in memory: the last events before the process ends.
pub fn flush() {
    if let Some(trail) = TRAIL.get() {
        trail.flush();
    }
}

/// One event. Facts that do not apply stay empty and are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Event<'a> {
    /// `login`, `logout`, `challenge`, `verify`, `resume`, `deny`, `csrf`, `block` …
    pub(crate) event: &'static str,
    /// `ok`, or why not.
    pub(crate) result: &'a str,
    /// As in the access log and the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    /// Keyed hash of the user's name: events of one user belong together without the log naming them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<&'a str>,
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<&'a str>,
    /// The factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) factor: Option<&'a str>,
    /// The rules that asked, joined by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) required: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) had: Option<&'a str>,
    /// What rules show of the request to whoever approves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transaction: Option<&'a str>,
}

fn as_text<S: Serializer>(source: &Option<Source>, serializer: S) -> Result<S::Ok, S::Error> {
    match source {
        Some(source) => serializer.collect_str(source),
        None => serializer.serialize_none(),
    }
}

impl Event<'_> {
    pub(crate) fn record(&self) {
        if let Some(trail) = TRAIL.get() {
            trail.append(self);
        }
        tracing::info!(
            target: "audit",
            event = self.event,
            result = self.result,
            request_id = self.request_id.as_deref(),
            user = self.user,
            source = self.source.as_ref().map(|source| tracing::field::display(source as &dyn Display)),
            host = self.host,
            request_method = self.request_method,
            path = self.path,
            factor = self.factor,
            rule = self.rule,
            required = self.required,
            had = self.had,
            facts = self.facts,
            transaction = self.transaction,
        );
    }
}
