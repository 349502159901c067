//! The challenge page: shows what is asked and why, takes the answer, raises the session.

use http::StatusCode;
use lb_policy::Method;
use serde_json::json;

use super::account::Account;
use super::ask::{Asked, approve_at_provider};
use super::check::{Answer, NotProved};
use super::client_kind::ClientKind;
use super::device::Device;
use super::factor::proof_of_work::Difficulty;
use super::factor::{self, Aim, FactorVerified};
use super::form::Form;
use super::login::store_unavailable;
use super::pages::{self, Rejection, see_other, with_cookie};
use super::random_id::RandomId;
use super::self_service::{self, Change};
use super::session::Session;
use super::transaction::{Claim, OnwardKind, Refused, View};
use super::{StepUp, Visit, cookies};
use crate::audit::Event;
use crate::config::Config;
use crate::serve::request::Inbound;
use crate::serve::respond::OwnResponse;
use crate::texts::say;

impl StepUp {
    /// GET: the page that asks for the next proof.
    pub(super) fn challenge_page(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
    ) -> OwnResponse {
        let view = match self.transactions.view(id, self.claim(request, session, id)) {
            Ok(view) => view,
            Err(refused) => return refused_answer(request, refused),
        };
        let asked = Asked { visit, request, session, id, view: &view };
        let is_browser = ClientKind::of(request) == ClientKind::Browser;
        let wanted = request.raw_query().split('&').find_map(|pair| pair.strip_prefix("method="));
        let chosen = view.askable().find(|method| Some(method.name()) == wanted);
        match chosen.or(view.missing.first().copied()) {
            // Who approves something must have been shown it, and not there.
            Some(Method::IdentityProvider) if !view.shown.is_empty() && is_browser => approve_at_provider(asked),
            Some(Method::IdentityProvider) => see_other(&format!("/.lb/challenge/{id}/idp")),
            Some(method) => self.ask(asked, method, None),
            None => self.onward(visit.config, request, session, id, &view),
        }
    }

    /// GET: how far it is, for a script that waits while its user proves what is asked in another window.
    pub(super) fn challenge_status(&self, request: &Inbound, session: &Session, id: &RandomId) -> OwnResponse {
        let claim = self.claim(request, session, id);
        let view = match self.transactions.view(id, claim) {
            Ok(view) => view,
            Err(refused) => return refused_answer(request, refused),
        };
        let missing: Vec<_> = view.missing.iter().map(|method| method.name()).collect();
        let state = if missing.is_empty() { "proved" } else { "open" };
        let expires_in = view.expires_at.saturating_sub(claim.now);
        pages::json(StatusCode::OK, &json!({ "state": state, "missing": missing, "expires_in": expires_in }))
    }

    /// POST: one answer.
    pub(super) async fn submit_proof(
        &self,
        visit: &Visit<'_>,
        request: Inbound,
        form: Form,
        session: &Session,
        id: &RandomId,
    ) -> OwnResponse {
        let claim = self.claim(&request, session, id);
        let view = match self.transactions.view(id, claim) {
            Ok(view) => view,
            Err(refused) => return refused_answer(&request, refused),
        };
        if view.missing.is_empty() {
            return self.already_proved(visit.config, &request, session, id, &view);
        }
        if let Some(name) = form.get("send") {
            let asked = Asked { visit, request: &request, session, id, view: &view };
            return self.send_code(asked, name).await;
        }
        let Some((method, answer)) = next_answer(&view, &form) else { return no_answer(&request) };
        let view = match self.transactions.take_try(id, claim) {
            Ok(view) => view,
            Err(refused) => return refused_answer(&request, refused),
        };
        let aim = self.aim(visit, &request, session, id, &view);
        let outcome = self.check_proof(visit.config, &request, session, (method, answer), aim).await;
        self.audit_proof(&request, session, id, method, outcome.as_ref().err());
        match outcome {
            Ok(proof) => self.accept(visit, &request, session, id, proof).await,
            Err(not_proved) => {
                if let Some(unchecked) = not_proved.unchecked_answer(&request) {
                    self.transactions.return_try(id);
                    return unchecked;
                }
                visit.joint.failed(visit.config, &request.client);
                self.ask_again(visit, &request, session, id, method)
            }
        }
    }

    async fn check_proof(
        &self,
        config: &Config,
        request: &Inbound,
        session: &Session,
        (method, text): (Method, &str),
        aim: Aim,
    ) -> Result<FactorVerified, NotProved> {
        let user_name = session.user();
        let account = Account::of(config, session.account());
        let device = Device::of_user(&self.sealer, &request.headers, &request.host, user_name)
            .filter(|device| device.stepped_up);
        self.check(
            config,
            request,
            Answer { method, user_name, account, text, aim: Some(aim), device: device.as_ref() },
        )
        .await
    }

    /// What a proof for this transaction is for.
    pub(super) fn aim(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
        view: &View,
    ) -> Aim {
        Aim {
            transaction: *id,
            browser: view.secret_hash,
            approval: view.approval(session.user()).both_forms(),
            client: request.client.address,
            host: request.host.clone(),
            rules: view.rules().collect::<Vec<_>>().join(","),
            difficulty: Difficulty::of(visit.config.factors.work, visit.threat),
        }
    }

    /// The answer was wrong: the same question, with what changes at each try.
    fn ask_again(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
        method: Method,
    ) -> OwnResponse {
        match self.transactions.view(id, self.claim(request, session, id)) {
            Ok(view) => {
                let asked = Asked { visit, request, session, id, view: &view };
                self.ask(asked, method, factor::of(method).map(|factor| (factor.input.refused)()))
            }
            Err(refused) => refused_answer(request, refused),
        }
    }

    /// Raises the session under a new id, ends the old one, and sends the client on.
    pub(super) async fn accept(
        &self,
        visit: &Visit<'_>,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
        proof: FactorVerified,
    ) -> OwnResponse {
        let Some(raised) = session.raised(&proof, self.clock.now()) else {
            return refused_answer(request, Refused::NotYours);
        };
        if let Err(refused) = self.end_superseded(request, session, id).await {
            return refused;
        }
        let raised_cookie = self.session_cookie(&request.host, &raised);
        let mut outcome = Err(Refused::Unproved);
        for proved in proof.all() {
            outcome = self.transactions.prove(id, self.claim(request, session, id), proved);
        }
        let view = match outcome {
            Ok(view) => view,
            // Its time ran out meanwhile. The proof stands.
            Err(refused) => return with_cookie(refused_answer(request, refused), raised_cookie),
        };
        let finished = view.missing.is_empty();
        let recovered = proof.proved().method == Method::RecoveryCode;
        if let (true, Some(account)) = (recovered, Account::of(visit.config, session.account())) {
            let texts = request.texts();
            self.notify(visit.config, &account, Change::RecoveryCodeUsed, "", (&request.host, texts));
        }
        let mut answer = match ClientKind::of(request) {
            // Whoever had to use one has lost the rest; the request waits until then.
            ClientKind::Browser if recovered => see_other(self_service::LIST_PATH),
            ClientKind::Browser if finished => self.onward(visit.config, request, session, id, &view),
            ClientKind::Browser => see_other(&format!("/.lb/challenge/{id}")),
            _ => self.api_proved(visit.config, &raised, &view),
        };
        if finished {
            self.counters.completed(proof.proved().method, self.clock.now().saturating_sub(view.opened_at));
            visit.joint.finished(visit.config, &request.client);
            answer = with_cookie(answer, self.stepped_up_device(request, session));
        }
        if proof.proved().method == Method::ProofOfWork {
            answer = with_cookie(answer, self.done_cookie(request, view.rules()));
        }
        with_cookie(answer, raised_cookie)
    }

    fn stepped_up_device(&self, request: &Inbound, session: &Session) -> http::HeaderValue {
        let known = Device::of_user(&self.sealer, &request.headers, &request.host, session.user());
        let device = known.unwrap_or_else(|| Device::new(session.user()));
        device.after_step_up().cookie(&self.sealer, &request.host)
    }

    /// Ends the session that was raised, or refuses when it had ended already: two answers raced, and one raised it.
    async fn end_superseded(&self, request: &Inbound, session: &Session, id: &RandomId) -> Result<(), OwnResponse> {
        let (revocations, ended, now) = (self.revocations.clone(), session.clone(), self.clock.now());
        match self.disk.run(move || revocations.end_session(&ended, now)).await {
            Ok(Ok(true)) => Ok(()),
            // The browser has, or is about to get, the cookie of the session as the other answer raised it.
            Ok(Ok(false)) => Err(see_other(&format!("/.lb/challenge/{id}"))),
            Ok(Err(error)) => {
                tracing::error!(%error, "a superseded session cannot be recorded");
                Err(store_unavailable(request))
            }
            Err(_) => Err(store_unavailable(request)),
        }
    }

    /// An answer too many: sent twice, or sent again. A browser is shown the way on; a tool learns that nothing was checked.
    fn already_proved(
        &self,
        config: &Config,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
        view: &View,
    ) -> OwnResponse {
        match ClientKind::of(request) {
            ClientKind::Browser => self.onward(config, request, session, id, view),
            _ => refused_answer(request, Refused::Gone),
        }
    }

    /// Where the browser goes once everything is proved.
    fn onward(&self, config: &Config, request: &Inbound, session: &Session, id: &RandomId, view: &View) -> OwnResponse {
        match view.onward {
            OnwardKind::Redirect => see_other(&view.request.target),
            OnwardKind::Parked => see_other(&format!("/.lb/resume/{id}")),
            OnwardKind::Retry | OnwardKind::Elsewhere if ClientKind::of(request) == ClientKind::Browser => {
                see_other(&format!("/.lb/resume/{id}"))
            }
            OnwardKind::Retry | OnwardKind::Elsewhere => self.api_proved(config, session, view),
        }
    }

    fn api_proved(&self, config: &Config, session: &Session, view: &View) -> OwnResponse {
        let missing: Vec<_> = view.missing.iter().map(|method| method.name()).collect();
        let mut body = self.describe(config, session);
        body["missing"] = json!(missing);
        body["resume"] = json!("retry");
        pages::json(StatusCode::OK, &body)
    }

    pub(super) fn claim<'a>(&self, request: &'a Inbound, session: &Session, id: &RandomId) -> Claim<'a> {
        let secret = cookies::transaction_secret(&request.headers, id);
        Claim { login: session.login, secret, now: self.clock.now() }
    }

    fn audit_proof(
        &self,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
        method: Method,
        not_proved: Option<&NotProved>,
    ) {
        let result = not_proved.map_or_else(|| "ok".to_owned(), NotProved::result);
        let transaction = id.to_string();
        Event {
            factor: Some(method.name()),
            transaction: Some(&transaction),
            ..self.event_of("verify", &result, request, Some(session))
        }
        .record();
    }
}

/// The first missing factor that the form answers.
fn next_answer<'f>(view: &View, form: &'f Form) -> Option<(Method, &'f str)> {
    let answered = |method: Method| {
        let input = &factor::of(method)?.input;
        let answer = form.get(input.name)?;
        Some((method, answer)).filter(|_| !answer.is_empty() && answer.len() <= input.shape.longest_answer_bytes())
    };
    view.askable().find_map(answered)
}

fn no_answer(request: &Inbound) -> OwnResponse {
    let (title, detail) = (say::no_answer(), say::no_answer_about());
    Rejection { status: StatusCode::BAD_REQUEST, problem: "form", title, detail }.answer(request)
}

/// Why a transaction cannot be used, without telling strangers anything about it.
pub(super) fn refused_answer(request: &Inbound, refused: Refused) -> OwnResponse {
    let status = if refused == Refused::Gone { StatusCode::GONE } else { StatusCode::FORBIDDEN };
    let (title, detail) = match refused {
        Refused::Gone => (say::over(), say::over_about()),
        Refused::NotYours => (say::not_yours(), say::not_yours_about()),
        Refused::Unproved => (say::unproved(), say::unproved_about()),
        Refused::OtherRequest => (say::other_request(), say::other_request_about()),
        Refused::NoTriesLeft => (say::no_tries_left(), say::no_tries_left_about()),
        Refused::NeedsBrowser => (say::needs_browser(), say::needs_browser_about()),
    };
    Rejection { status, problem: refused.name(), title, detail }.answer(request)
}
