//! Logouts that begin at a provider, and what is kept to tell a provider of ours.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{idp_unavailable, leave_for, no_such_provider};
use crate::identity::{EndedThere, NotVerified, VerifiedClaims};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::stepup::form::Form;
use crate::stepup::login::store_unavailable;
use crate::stepup::pages;
use crate::stepup::revocation::{provider_session_id, provider_subject_id};
use crate::stepup::seal::Purpose;
use crate::stepup::session::Session;
use crate::stepup::{StepUp, Visit};

impl StepUp {
    /// POST `/.lb/backchannel-logout/<provider>`, by the provider itself (Back-Channel Logout 1.0 §2.5). It needs no
    /// cookie: the token says whose sessions end.
    pub(in crate::stepup) async fn backchannel_logout(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        form: &Form,
        name: &str,
    ) -> OwnResponse {
        let Some(provider) = visit.identities.provider(name) else { return no_such_provider(request) };
        let Some(token) = form.get("logout_token") else { return refused("logout_token is missing") };
        let ended = match provider.logout_token(token, &self.seen_tokens).await {
            Ok(ended) => ended,
            Err(NotVerified::Unavailable(unavailable)) => return idp_unavailable(request, &unavailable),
            Err(NotVerified::Bad(bad)) => {
                tracing::warn!(provider = name, %bad, "a logout token is refused");
                self.event("logout", "bad-token", request, None).record();
                return refused(&bad.to_string());
            }
        };
        match self.end_of_provider(visit, name, ended).await {
            Ok(()) => {
                self.event("logout", "by-provider", request, None).record();
                pages::own(StatusCode::OK, "text/plain", String::new())
            }
            Err(()) => store_unavailable(request),
        }
    }

    /// Sends a browser that has logged out here on to its provider, to log out there too (RP-Initiated Logout 1.0).
    pub(in crate::stepup) async fn provider_logout(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
    ) -> Option<OwnResponse> {
        let provider = visit.identities.provider(session.account().issuer.as_deref()?)?;
        let id_token = self.take_for_logout(session).await;
        let back = format!("https://{}/.lb/login", request.authority);
        provider.logout_url(id_token.as_deref(), &back).await.map(|url| leave_for(&url))
    }

    async fn end_of_provider(&self, visit: &Visit<'_>, name: &str, ended: EndedThere) -> Result<(), ()> {
        let (revocations, now) = (self.revocations.clone(), self.clock.now());
        let until = now + visit.config.step_up.session_lifetime.as_secs();
        // One session, when the provider says which; otherwise all of the user.
        let id = match (ended.provider_session, ended.subject) {
            (Some(session), _) => provider_session_id(name, &session),
            (None, Some(subject)) => provider_subject_id(name, &subject),
            (None, None) => return Ok(()),
        };
        // Further tokens that were verified lately may be of the same user.
        visit.identities.bearers().forget();
        match self.disk.run(move || revocations.end_all(id, now, until)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "sessions that ended at a provider cannot be recorded");
                Err(())
            }
            Err(_) => Err(()),
        }
    }

    /// Keeps the ID token until the logout. Without it that works as well, with one more question to the user.
    pub(super) async fn keep_for_logout(&self, session: &Session, claims: &VerifiedClaims) {
        let sealed = self.sealer.seal(Purpose::IdToken, &session.login.to_string(), claims.id_token.as_bytes());
        let (store, login, until) = (self.store.clone(), *session.login.bytes(), session.ends_at);
        match self.disk.run(move || store.keep_id_token(login, &sealed, until)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "an ID token cannot be kept for the logout"),
            Err(_) => tracing::warn!("an ID token is not kept for the logout: the disk is busy"),
        }
    }

    async fn take_for_logout(&self, session: &Session) -> Option<String> {
        let (store, login) = (self.store.clone(), *session.login.bytes());
        let sealed = self.disk.run(move || store.take_id_token(login)).await.ok()?.ok()??;
        let plain = self.sealer.open_sealed(Purpose::IdToken, &session.login.to_string(), &sealed)?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

/// §2.8 of the same: 400 and why, for the provider's operator to read.
fn refused(why: &str) -> OwnResponse {
    let body = json!({"error": "invalid_request", "error_description": why});
    let mut answer = pages::json(StatusCode::BAD_REQUEST, &body);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
