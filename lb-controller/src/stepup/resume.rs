//! The original request going on after the proof: exactly the bytes that were judged, once.
//!
//! A browser's parked request comes back as a small form posted to its original URL; the parked body takes the form's
//! place. A client that kept its own bytes sends them again; they must be the same. Either way the request is judged
//! anew after this, with the proofs of its own transaction beside those of the session.

use std::cell::Cell;

use http::{HeaderValue, StatusCode, header};
use lb_policy::{Facts, ProvedFactor, RuleSet, ShownFact};

use super::ask::path_of;
use super::body::{self, BodyError};
use super::challenge::{body_cut_short, too_many_wait};
use super::pages::{DonePage, Forms, Frame, MessagePage, ResumePage, html, see_other};
use super::parking::NoRoom;
use super::prove::refused_answer;
use super::random_id::RandomId;
use super::session::Session;
use super::shown;
use super::transaction::{BoundRequest, Claim, Onward, OnwardKind, Refused, Transaction, sha256};
use super::{StepUp, Visit, cookies};
use crate::audit::Event;
use crate::config::Config;
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::respond::OwnResponse;
use crate::texts::english;

/// The one field of the resume form.
const FIELD: &str = "lb-tx";
const FORM_BYTES: usize = FIELD.len() + 1 + RandomId::HEX_LENGTH;

/// What was proved in the transaction that resumes a request; of any other request nothing.
#[derive(Default)]
pub struct Resumed {
    pub proved: Vec<ProvedFactor>,
    /// The proofs are for exactly this request.
    pub approved: Option<ApprovedAction>,
    /// What was used up for it; kept until it is known whether the request goes on.
    used: Cell<Option<Box<Used>>>,
}

struct Used {
    id: RandomId,
    transaction: Transaction,
}

/// What a user approved: one request, and what they were shown of it.
#[derive(Clone, Debug)]
pub struct ApprovedAction {
    pub(super) transaction: RandomId,
    pub(super) facts: Vec<ShownFact>,
}

impl Resumed {
    /// Whether what was proved is for this request as it is judged now. Rules may have changed since, and so may what
    /// they go by: the user must have seen what is shown now, and must have approved if that is wanted now.
    pub fn covers(&self, rules: &RuleSet, facts: &Facts<'_>) -> bool {
        match &self.approved {
            Some(action) => action.facts == rules.shown(facts),
            None => self.proved.is_empty() || !rules.wants_approval(facts),
        }
    }
}

impl StepUp {
    /// Lets a proved transaction's request go on: puts the parked body in place if there is one, and gives back the factors
    /// proved for exactly this request. Other requests pass unchanged, with no factors.
    pub async fn resume(
        &self,
        visit: &Visit<'_>,
        request: &mut Inbound,
        session: Option<&Session>,
    ) -> Result<Resumed, OwnResponse> {
        // Nearly every request: no step-up is under way in this browser.
        if cookies::transactions(&request.headers).next().is_none() && !may_be_resume_form(request) {
            return Ok(Resumed::default());
        }
        Box::pin(self.resume_begun(visit, request, session)).await
    }

    async fn resume_begun(
        &self,
        visit: &Visit<'_>,
        request: &mut Inbound,
        session: Option<&Session>,
    ) -> Result<Resumed, OwnResponse> {
        match (read_resume_form(request).await?, session) {
            (Some(_), None) => Err(self.log_in(request)),
            (Some(id), Some(session)) => self.resume_parked(visit.config, request, session, &id),
            (None, Some(session)) => self.resume_repeated(visit, request, session).await,
            (None, None) => Ok(Resumed::default()),
        }
    }

    fn resume_parked(
        &self,
        config: &Config,
        request: &mut Inbound,
        session: &Session,
        id: &RandomId,
    ) -> Result<Resumed, OwnResponse> {
        self.csrf_check(config, request, Some(session))?;
        let claim = self.claim(request, session, id);
        let is_same = |transaction: &Transaction| {
            let Onward::Parked(parked) = &transaction.onward else { return false };
            transaction.request.is_at(request) && parked.came_as(request)
        };
        let outcome = self.transactions.consume(id, claim, is_same);
        self.audit_resume(request, session, id, outcome.as_ref());
        let transaction = outcome.map_err(|refused| refused_answer(request, refused))?;
        let secret = claim.secret.unwrap_or_default().to_owned();
        let Onward::Parked(parked) = &transaction.onward else {
            return Err(refused_answer(request, Refused::OtherRequest));
        };
        if !parked.restore_into(request, &secret) {
            return Err(refused_answer(request, Refused::Gone));
        }
        Ok(self.resumed(id, transaction))
    }

    /// A request sent again by a client that keeps its own bytes. Only proofs that count for one action need it: others
    /// are in the session.
    async fn resume_repeated(
        &self,
        visit: &Visit<'_>,
        request: &mut Inbound,
        session: &Session,
    ) -> Result<Resumed, OwnResponse> {
        let ids = self.repeatable(request, session);
        if ids.is_empty() {
            return Ok(Resumed::default());
        }
        let mut bound = BoundRequest::of(request);
        let room = match self.room_for(visit, request, session) {
            Ok(room) => room,
            Err(NoRoom::Full) => return Err(too_many_wait(request)),
            // Nothing of this size was ever approved.
            Err(NoRoom::TooLarge) => return Ok(Resumed::default()),
        };
        let body = request.take_body();
        let body = match body::read(body, room.bytes()).await {
            Ok(body) => body,
            Err(BodyError::TooLarge) => return Err(refused_answer(request, Refused::OtherRequest)),
            Err(BodyError::TooSlow | BodyError::BrokenOff) => return Err(body_cut_short(request)),
        };
        bound.body_sha256 = Some(sha256(&body));
        request.body = InboundBody::Whole(body);
        for id in ids {
            let claim = self.claim(request, session, &id);
            let outcome = self.transactions.consume(&id, claim, |transaction| transaction.request == bound);
            if outcome.is_ok() {
                self.audit_resume(request, session, &id, outcome.as_ref());
            }
            if let Ok(transaction) = outcome {
                return Ok(self.resumed(&id, transaction));
            }
        }
        // Not a request that was approved; it is judged like any other.
        Ok(Resumed::default())
    }

    fn resumed(&self, id: &RandomId, transaction: Transaction) -> Resumed {
        let action = || ApprovedAction { transaction: *id, facts: transaction.shown.clone() };
        Resumed {
            proved: self.as_of_now(&transaction.proved),
            approved: transaction.is_per_action().then(action),
            used: Cell::new(Some(Box::new(Used { id: *id, transaction }))),
        }
    }

    /// The request was told to come again later, so what was proved for it is good for that.
    pub fn give_back(&self, request: &Inbound, session: Option<&Session>, resumed: &Resumed) {
        let Some(used) = resumed.used.take() else { return };
        let id = used.id.to_string();
        Event { transaction: Some(&id), ..self.event_of("resume", "given-back", request, session) }.record();
        self.counters.resumed("given-back");
        self.transactions.put_back(used.id, used.transaction);
    }

    /// A proof counts as made now for the request it was made for: a rule that wants it ten seconds old would otherwise
    /// ask whoever types slowly without end.
    fn as_of_now(&self, proved: &[ProvedFactor]) -> Vec<ProvedFactor> {
        let at = self.clock.now();
        proved.iter().map(|factor| ProvedFactor { at, ..*factor }).collect()
    }

    /// The proved transactions of this client, bound to this method and URL, that are resumed by repeating the request. It
    /// may have sent several that differ in their bodies.
    fn repeatable(&self, request: &Inbound, session: &Session) -> Vec<RandomId> {
        let ours = cookies::transactions(&request.headers).take(cookies::MOST_TRANSACTIONS);
        let fitting = ours.filter_map(|(_, secret)| {
            let id = cookies::transaction_of(secret)?;
            let claim = Claim { login: session.login, secret: Some(secret), now: self.clock.now() };
            let view = self.transactions.view(&id, claim).ok()?;
            let fits = view.onward != OnwardKind::Parked
                && view.missing.is_empty()
                && view.request.is_at(request)
                && view.is_per_action();
            fits.then_some(id)
        });
        fitting.collect()
    }

    /// The page that sends the browser's request on.
    pub(super) fn resume_page(&self, request: &Inbound, session: &Session, id: &RandomId) -> OwnResponse {
        let view = match self.transactions.view(id, self.claim(request, session, id)) {
            Ok(view) => view,
            Err(refused) => return refused_answer(request, refused),
        };
        if !view.missing.is_empty() {
            return see_other(&format!("/.lb/challenge/{id}"));
        }
        let (frame, method, path) = (Frame::of(request), view.request.method.as_str(), path_of(&view.request.target));
        match view.onward {
            OnwardKind::Redirect => see_other(&view.request.target),
            OnwardKind::Parked => {
                let page = ResumePage {
                    frame: &frame,
                    method,
                    path,
                    target: &view.request.target,
                    field: FIELD,
                    transaction: &id.to_string(),
                };
                html(StatusCode::OK, &frame, Forms::Backend, &page)
            }
            OnwardKind::Elsewhere => {
                let page = DonePage { frame: &frame, method, path };
                html(StatusCode::OK, &frame, Forms::OwnWithScript, &page)
            }
            OnwardKind::Retry => {
                let page = MessagePage {
                    frame: &frame,
                    heading: frame.texts.confirmed().to_string(),
                    text: frame.texts.retry_about().to_string(),
                    request: Some((method, path)),
                };
                html(StatusCode::OK, &frame, Forms::Own, &page)
            }
        }
    }

    fn audit_resume(
        &self,
        request: &Inbound,
        session: &Session,
        id: &RandomId,
        outcome: Result<&Transaction, &Refused>,
    ) {
        let result = outcome.map_or_else(|refused| refused.name(), |_| "ok");
        self.counters.resumed(result);
        let transaction = id.to_string();
        let shown = outcome.ok().and_then(|transaction| shown::in_words(english(), &transaction.shown));
        Event {
            transaction: Some(&transaction),
            shown: shown.as_deref(),
            ..self.event_of("resume", result, request, Some(session))
        }
        .record();
    }
}

/// It has the exact size and type of the resume form; only then is its body looked at.
fn may_be_resume_form(request: &Inbound) -> bool {
    let length = request.headers.get(header::CONTENT_LENGTH);
    // A form's, as what it may be taken for; see [`crate::config::MethodOverride`].
    !request.method.is_safe()
        && length == Some(&HeaderValue::from(FORM_BYTES))
        && request.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded")
}

async fn read_resume_form(request: &mut Inbound) -> Result<Option<RandomId>, OwnResponse> {
    if !may_be_resume_form(request) {
        return Ok(None);
    }
    let body = request.take_body();
    let Ok(body) = body::read(body, FORM_BYTES).await else { return Err(body_cut_short(request)) };
    let id = str::from_utf8(&body)
        .ok()
        .and_then(|text| text.strip_prefix(FIELD)?.strip_prefix('='))
        .and_then(RandomId::parse);
    request.body = InboundBody::Whole(body);
    Ok(id)
}
