//! A browser coming back from a provider.

use http::StatusCode;
use lb_policy::Method;

use super::{Errand, Trip, clear_trips, idp_unavailable, no_such_provider, transaction_of};
use crate::audit::{Event, Vouched};
use crate::identity::{AuthorizationResponse, LoginError, VerifiedClaims};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::stepup::account::Account;
use crate::stepup::device::Device;
use crate::stepup::factor::idp;
use crate::stepup::pages::{Rejection, see_other, with_cookie};
use crate::stepup::random_id::RandomId;
use crate::stepup::session::Session;
use crate::stepup::{StepUp, Visit};
use crate::texts::{Message, say};

impl StepUp {
    /// GET `/.lb/callback/<provider>`.
    pub(in crate::stepup) async fn callback(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: Option<&Session>,
        name: &str,
    ) -> OwnResponse {
        let Some(provider) = visit.identities.provider(name) else { return no_such_provider(request) };
        let response = AuthorizationResponse::read(request.raw_query());
        let found = response.and_then(|response| {
            let trip = Trip::of(&self.sealer, request, &response.state)?;
            // Each provider has an address of its own, so one cannot answer for another.
            (trip.flow.provider == name).then_some((trip, response))
        });
        let Some((trip, response)) = found else {
            self.event("callback", "not-begun-here", request, None).record();
            return not_begun_here(request);
        };
        let state = trip.flow.state.clone();
        let lifetime_seconds = visit.config.step_up.transaction_lifetime.as_secs();
        if self.clock.now() >= trip.flow.started_at.saturating_add(lifetime_seconds) {
            return clear_trips(not_begun_here(request), request, Some(&state));
        }
        let outcome = provider.finish(&trip.flow, response).await;
        let answer = match (outcome, trip.errand) {
            (Ok(claims), Errand::LogIn { to }) => self.logged_in(visit, request, session, claims, &to).await,
            (Ok(claims), errand @ Errand::StepUp { .. }) => {
                self.stepped_up(visit, request, session, claims, &errand).await
            }
            (Err(error), errand) => self.came_back_without(request, session, &error, &errand),
        };
        clear_trips(answer, request, Some(&state))
    }

    async fn logged_in(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        old: Option<&Session>,
        claims: VerifiedClaims,
        to: &str,
    ) -> OwnResponse {
        let account = Account { id: idp::account(&claims), built_in: None };
        if let Some(old) = old {
            // Whoever planted the old session must not go on in it beside the user.
            if let Err(unavailable) = self.end_login(request, old).await {
                return unavailable;
            }
        }
        let now = self.clock.now();
        let session = Session::begin(idp::proved(&claims), &account, &visit.config.step_up, now).federated(&claims);
        self.audit_provider("login", request, &session, &claims, None);
        self.keep_for_logout(&session, &claims).await;
        let device = Device::of_user(&self.sealer, &request.headers, &request.host, session.user())
            .unwrap_or_else(|| Device::new(session.user()));
        let answer = with_cookie(see_other(to), device.cookie(&self.sealer, &request.host));
        with_cookie(answer, self.session_cookie(&request.host, &session))
    }

    async fn stepped_up(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: Option<&Session>,
        claims: VerifiedClaims,
        errand: &Errand,
    ) -> OwnResponse {
        let (Some(session), Some(id)) = (session, transaction_of(errand)) else { return not_begun_here(request) };
        // WebSEAL's rule: levels of one session belong to one user.
        if idp::account(&claims) != *session.account() {
            return self.came_back_without(request, Some(session), &LoginError::OtherUser, errand);
        }
        self.audit_provider("verify", request, session, &claims, Some(&id));
        self.accept(visit, request, session, &id, idp::proved(&claims)).await
    }

    /// What is told, and written down, when the trip came to nothing. The session is what it was.
    fn came_back_without(
        &self,
        request: &Inbound,
        session: Option<&Session>,
        error: &LoginError,
        errand: &Errand,
    ) -> OwnResponse {
        let steps_up = matches!(errand, Errand::StepUp { .. });
        let result = match error {
            LoginError::Bad(_) => "bad-answer",
            LoginError::Unmet(_) => "unmet",
            LoginError::OtherUser => "other-user",
            LoginError::Declined(_) => "declined",
            LoginError::Unavailable(_) => "unavailable",
        };
        tracing::warn!(%error, "a login at an identity provider came to nothing");
        self.counters.verified(Method::IdentityProvider, "refused", result.to_owned());
        let name = if steps_up { "verify" } else { "login" };
        let transaction = transaction_of(errand).map(|id| id.to_string());
        Event {
            factor: Some(Method::IdentityProvider.name()),
            transaction: transaction.as_deref(),
            ..self.event_of(name, result, request, session)
        }
        .record();
        match error {
            LoginError::Unavailable(unavailable) => idp_unavailable(request, unavailable),
            LoginError::Unmet(_) if steps_up => {
                refused(request, "step_up_unmet", say::idp_unmet(), say::idp_unmet_about())
            }
            LoginError::OtherUser => refused(request, "other_user", say::other_user(), say::other_user_about()),
            LoginError::Unmet(_) | LoginError::Bad(_) | LoginError::Declined(_) => {
                refused(request, "login_refused", say::login_refused(), say::login_refused_about())
            }
        }
    }

    /// A login there that is good.
    fn audit_provider(
        &self,
        event: &'static str,
        request: &Inbound,
        session: &Session,
        claims: &VerifiedClaims,
        transaction: Option<&RandomId>,
    ) {
        self.counters.verified(Method::IdentityProvider, "ok", String::new());
        let transaction = transaction.map(RandomId::to_string);
        Event {
            factor: Some(Method::IdentityProvider.name()),
            provider: Some(Vouched { name: &claims.provider, acr: claims.acr.as_deref(), auth_time: claims.proved_at }),
            transaction: transaction.as_deref(),
            ..self.event_of(event, "ok", request, Some(session))
        }
        .record();
    }
}

/// A cookie is missing: the trip began in another browser, or too long ago, or never.
fn not_begun_here(request: &Inbound) -> OwnResponse {
    refused(request, "login_not_begun_here", say::not_begun_here(), say::not_begun_here_about())
}

fn refused(request: &Inbound, problem: &str, title: Message, detail: Message) -> OwnResponse {
    Rejection { status: StatusCode::FORBIDDEN, problem, title, detail }.answer(request)
}
