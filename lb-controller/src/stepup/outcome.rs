//! What rules do beside denying and asking for proof: they end sessions, make API keys stale, and limit.

use std::sync::Arc;

use http::StatusCode;

use super::StepUp;
use super::login::store_unavailable;
use super::pages::{Rejection, with_retry_after};
use super::session::Session;
use crate::audit::Event;
use crate::config::Config;
use crate::identity::ApiKeys;
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::signals::RetryAfter;
use crate::texts::say;

impl StepUp {
    /// A rule ends all sessions of the user, here and in every other browser. `Err`: it cannot be recorded, and nothing
    /// may be let through for it.
    pub async fn end_user(
        &self,
        config: &Config,
        request: &Inbound,
        session: &Session,
        rule: &str,
    ) -> Result<(), OwnResponse> {
        let (revocations, ended, now) = (self.revocations.clone(), session.clone(), self.clock.now());
        let lifetime_seconds = config.step_up.session_lifetime.as_secs();
        let done = self.disk.run(move || revocations.end_user(&ended, now, lifetime_seconds)).await;
        let is_done = matches!(done, Ok(Ok(())));
        let result = if is_done { "ended" } else { "unavailable" };
        Event { rule: Some(rule), ..self.event_of("revoke", result, request, Some(session)) }.record();
        if is_done { Ok(()) } else { Err(store_unavailable(request)) }
    }

    /// The API key that came is of no use any more until it was made anew.
    pub(crate) async fn api_key_is_stale(
        &self,
        keys: &Arc<ApiKeys>,
        request: &Inbound,
        session: Option<&Session>,
        rule: &str,
    ) -> OwnResponse {
        let is_recorded = match session.and_then(Session::api_key) {
            Some(key) => {
                let (keys, id) = (keys.clone(), key.id.to_owned());
                matches!(self.disk.run(move || keys.require_regeneration(&id)).await, Ok(Ok(())))
            }
            None => true,
        };
        let result = if is_recorded { "stale" } else { "unavailable" };
        Event { rule: Some(rule), ..self.event_of("api-key", result, request, session) }.record();
        if !is_recorded {
            return store_unavailable(request);
        }
        Rejection {
            status: StatusCode::UNAUTHORIZED,
            problem: "api-key-regenerate",
            title: say::api_key_stale(),
            detail: say::api_key_stale_about(),
        }
        .answer(request)
    }

    /// A limit of a rule has no room now (429, RFC 6585 §4).
    pub fn limited(&self, request: &Inbound, retry_after: &RetryAfter) -> OwnResponse {
        self.counters.rate_limited("rule", &retry_after.rule);
        let rejection = Rejection {
            status: StatusCode::TOO_MANY_REQUESTS,
            problem: "rate-limited",
            title: say::limited(),
            detail: say::limited_about(retry_after.seconds),
        };
        with_retry_after(rejection.answer(request), retry_after.seconds)
    }
}
