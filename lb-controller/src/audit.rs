//! The audit trail: who proved what, who was refused, and what came of it. Events go to the tracing target `audit` with
//! one field per fact. Codes, passwords, tokens, cookies and bodies never do.

use std::fmt::Display;

use lb_common::Source;

/// One event. Facts that do not apply stay empty and are left out.
#[derive(Debug, Default)]
pub(crate) struct Event<'a> {
    /// `login`, `logout`, `challenge`, `verify`, `resume`, `deny`, `csrf`, `block` …
    pub(crate) event: &'static str,
    /// `ok`, or why not.
    pub(crate) result: &'a str,
    /// Keyed hash of the user's name: events of one user belong together without the log naming them.
    pub(crate) user: Option<&'a str>,
    pub(crate) source: Option<Source>,
    pub(crate) request_method: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
    /// The factor.
    pub(crate) factor: Option<&'a str>,
    /// The rules that asked, joined by commas.
    pub(crate) rule: Option<&'a str>,
    pub(crate) required: Option<&'a str>,
    pub(crate) had: Option<&'a str>,
    pub(crate) transaction: Option<&'a str>,
}

impl Event<'_> {
    pub(crate) fn record(&self) {
        tracing::info!(
            target: "audit",
            event = self.event,
            result = self.result,
            user = self.user,
            source = self.source.as_ref().map(|source| tracing::field::display(source as &dyn Display)),
            request_method = self.request_method,
            path = self.path,
            factor = self.factor,
            rule = self.rule,
            required = self.required,
            had = self.had,
            transaction = self.transaction,
        );
    }
}
