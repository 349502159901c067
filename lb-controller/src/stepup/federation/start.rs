//! Sending a browser to a provider.

use std::sync::Arc;

use lb_policy::{Method, Requirement};

use super::{Errand, Trip, clear_trips, idp_unavailable, leave_for, no_such_provider, redirect_uri};
use crate::identity::{Ask, Provider, Unavailable};
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::stepup::client_kind::ClientKind;
use crate::stepup::pages::with_cookie;
use crate::stepup::prove::refused_answer;
use crate::stepup::random_id::RandomId;
use crate::stepup::session::Session;
use crate::stepup::terms::is_per_action;
use crate::stepup::transaction::{Refused, View};
use crate::stepup::{StepUp, Visit};

impl StepUp {
    /// A login at the provider of this name, asked for by its link on the login page.
    pub(in crate::stepup) async fn log_in_at(&self, visit: &Visit<'_>, request: &Inbound, name: &str) -> OwnResponse {
        match visit.identities.provider(name) {
            Some(provider) => match self.begin_login(visit, request, provider).await {
                Ok(answer) => answer,
                Err(unavailable) => idp_unavailable(request, &unavailable),
            },
            None => no_such_provider(request),
        }
    }

    /// A login where there are no passwords: at the first provider that answers, in the order of the configuration.
    pub(in crate::stepup) async fn log_in_anywhere(&self, visit: &Visit<'_>, request: &Inbound) -> OwnResponse {
        let mut last = None;
        for provider in visit.identities.providers() {
            match self.begin_login(visit, request, provider).await {
                Ok(answer) => return answer,
                Err(unavailable) => {
                    tracing::warn!(provider = provider.config().name, %unavailable, "trying the next identity provider");
                    last = Some(unavailable);
                }
            }
        }
        match last {
            Some(unavailable) => idp_unavailable(request, &unavailable),
            None => no_such_provider(request),
        }
    }

    async fn begin_login(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        provider: &Arc<Provider>,
    ) -> Result<OwnResponse, Unavailable> {
        let ask = Ask {
            redirect_uri: redirect_uri(request, &provider.config().name),
            // Asking for it makes `auth_time` due (OpenID Connect Core §2), and no session lives longer anyway.
            max_age: Some(visit.config.step_up.session_lifetime.as_secs()),
            ..Ask::default()
        };
        let errand = Errand::LogIn { to: self.return_path(request) };
        self.depart(visit, request, provider, ask, errand).await
    }

    /// A proof at the provider that the session's user comes from.
    pub(in crate::stepup) async fn step_up_at_provider(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
    ) -> OwnResponse {
        let claim = self.claim(request, session, id);
        let view = match self.transactions.view(id, claim) {
            Ok(view) => view,
            Err(refused) => return refused_answer(request, refused),
        };
        let provider = session.account().issuer.as_deref().and_then(|issuer| visit.identities.provider(issuer));
        let (true, Some(provider)) = (view.askable().any(|method| method == Method::IdentityProvider), provider) else {
            return refused_answer(request, Refused::Gone);
        };
        // Whoever cannot follow to a provider's page cannot prove anything there.
        if ClientKind::of(request) != ClientKind::Browser {
            return refused_answer(request, Refused::NeedsBrowser);
        }
        if let Err(refused) = self.transactions.take_trip(id, claim) {
            return refused_answer(request, refused);
        }
        let ask = ask_for(&view, redirect_uri(request, &provider.config().name), subject_of(provider, session));
        let errand = Errand::StepUp { transaction: id.to_string() };
        match self.depart(visit, request, provider, ask, errand).await {
            Ok(answer) => answer,
            Err(unavailable) => {
                self.transactions.return_trip(id);
                idp_unavailable(request, &unavailable)
            }
        }
    }

    async fn depart(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        provider: &Arc<Provider>,
        ask: Ask,
        errand: Errand,
    ) -> Result<OwnResponse, Unavailable> {
        let (url, flow) = provider.begin(ask).await?;
        let trip = Trip { flow, errand };
        let lifetime_seconds = visit.config.step_up.transaction_lifetime.as_secs();
        let answer = clear_trips(leave_for(&url), request, None);
        match trip.cookie(&self.sealer, &request.host, lifetime_seconds) {
            Some(cookie) => Ok(with_cookie(answer, cookie)),
            None => Err(Unavailable::Unusable { url, reason: "the way back does not fit a cookie".to_owned() }),
        }
    }
}

/// What the rules want, as the provider is asked for it.
fn ask_for(view: &View, redirect_uri: String, subject: Option<String>) -> Ask {
    let requirements = || view.unmet.iter().map(|(_, requirement)| requirement);
    Ask {
        redirect_uri,
        level: requirements().filter_map(level).max(),
        max_age: requirements().filter_map(|requirement| requirement.max_age_seconds).min(),
        per_action: requirements().any(is_per_action),
        subject,
    }
}

fn level(requirement: &Requirement) -> Option<u8> {
    requirement.level.map(|level| level.0)
}

/// The subject that must come back, where sessions go by it. Whoever comes back is compared with the session in any case.
fn subject_of(provider: &Provider, session: &Session) -> Option<String> {
    (provider.config().claims.user == "sub").then(|| session.user().to_owned())
}
