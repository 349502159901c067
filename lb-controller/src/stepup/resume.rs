//! The original request going on after the proof: exactly the bytes that were judged, once.
//!
//! A browser's parked request comes back as a small form posted to its original URL; the parked body takes the form's
//! place. A client that kept its own bytes sends them again; they must be the same. Either way the request is judged
//! anew after this, with the proofs of its own transaction beside those of the session.

use http::{HeaderValue, Method as HttpMethod, StatusCode, header};
use lb_policy::ProvedFactor;

use super::ask::path_of;
use super::body::{self, BodyError};
use super::challenge::body_cut_short;
use super::pages::{DonePage, Forms, Frame, MessagePage, ResumePage, html, see_other};
use super::prove::refused_answer;
use super::random_id::RandomId;
use super::session::Session;
use super::terms::is_per_action;
use super::transaction::{BoundRequest, Claim, Onward, OnwardKind, Refused, Transaction, sha256};
use super::{StepUp, Visit, cookies};
use crate::audit::Event;
use crate::config::Config;
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::respond::OwnResponse;

/// The one field of the resume form.
const FIELD: &str = "lb-tx";
const FORM_BYTES: usize = FIELD.len() + 1 + RandomId::HEX_LENGTH;

impl StepUp {
    /// Lets a proved transaction's request go on: gives back the request, with the parked body in place if there is one,
    /// and the factors proved for exactly this request. Other requests pass unchanged, with no factors.
    pub async fn resume(
        &self,
        visit: &Visit<'_>,
        request: Inbound,
        session: Option<&Session>,
    ) -> Result<(Inbound, Vec<ProvedFactor>), OwnResponse> {
        // Nearly every request: no step-up is under way in this browser.
        if cookies::transactions(&request.headers).next().is_none() && !may_be_resume_form(&request) {
            return Ok((request, Vec::new()));
        }
        let (request, form_id) = read_resume_form(request).await?;
        match (form_id, session) {
            (Some(_), None) => Err(self.log_in(&request)),
            (Some(id), Some(session)) => self.resume_parked(visit.config, request, session, &id),
            (None, Some(session)) => self.resume_repeated(visit, request, session).await,
            (None, None) => Ok((request, Vec::new())),
        }
    }

    fn resume_parked(
        &self,
        config: &Config,
        request: Inbound,
        session: &Session,
        id: &RandomId,
    ) -> Result<(Inbound, Vec<ProvedFactor>), OwnResponse> {
        self.csrf_check(config, &request, Some(session))?;
        let claim = self.claim(&request, session, id);
        let is_same = |transaction: &Transaction| {
            matches!(transaction.onward, Onward::Parked(_)) && transaction.request.is_at(&request)
        };
        let outcome = self.transactions.consume(id, claim, is_same);
        self.audit_resume(&request, session, id, outcome.as_ref().err());
        let transaction = outcome.map_err(|refused| refused_answer(&request, refused))?;
        let secret = claim.secret.unwrap_or_default().to_owned();
        let Onward::Parked(parked) = transaction.onward else {
            return Err(refused_answer(&request, Refused::OtherRequest));
        };
        let proved = self.as_of_now(transaction.proved);
        let gone = refused_answer(&request, Refused::Gone);
        parked.restore_into(request, &secret).map(|request| (request, proved)).ok_or(gone)
    }

    /// A request sent again by a client that keeps its own bytes. Only proofs that count for one action need it: others
    /// are in the session.
    async fn resume_repeated(
        &self,
        visit: &Visit<'_>,
        mut request: Inbound,
        session: &Session,
    ) -> Result<(Inbound, Vec<ProvedFactor>), OwnResponse> {
        let Some(id) = self.repeatable(&request, session) else { return Ok((request, Vec::new())) };
        let mut bound = BoundRequest::of(&request);
        let Some(room) = self.room_for(visit, &request, session) else { return Ok((request, Vec::new())) };
        let body = std::mem::replace(&mut request.body, InboundBody::Whole(bytes::Bytes::new()));
        let body = match body::read(body, room.bytes()).await {
            Ok(body) => body,
            Err(BodyError::TooLarge) => return Err(refused_answer(&request, Refused::OtherRequest)),
            Err(BodyError::TooSlow | BodyError::BrokenOff) => return Err(body_cut_short(&request)),
        };
        bound.body_sha256 = Some(sha256(&body));
        request.body = InboundBody::Whole(body);
        let claim = self.claim(&request, session, &id);
        match self.transactions.consume(&id, claim, |transaction| transaction.request == bound) {
            Ok(transaction) => {
                self.audit_resume(&request, session, &id, None);
                Ok((request, self.as_of_now(transaction.proved)))
            }
            // Not the request that was proved; it is judged like any other.
            Err(_) => Ok((request, Vec::new())),
        }
    }

    /// A proof counts as made now for the request it was made for: a rule that wants it ten seconds old would otherwise
    /// ask whoever types slowly without end.
    fn as_of_now(&self, proved: Vec<ProvedFactor>) -> Vec<ProvedFactor> {
        let at = self.clock.now();
        proved.into_iter().map(|factor| ProvedFactor { at, ..factor }).collect()
    }

    /// A proved transaction of this browser, bound to this method and URL, that is resumed by repeating the request.
    fn repeatable(&self, request: &Inbound, session: &Session) -> Option<RandomId> {
        let bound = BoundRequest::of(request);
        let mut ours = cookies::transactions(&request.headers).take(cookies::MOST_TRANSACTIONS);
        ours.find_map(|(_, secret)| {
            let id = cookies::transaction_of(secret)?;
            let claim = Claim { login: session.login, secret: Some(secret), now: self.clock.now() };
            let view = self.transactions.view(&id, claim).ok()?;
            let fits = view.onward != OnwardKind::Parked
                && view.missing.is_empty()
                && view.request.method == bound.method
                && view.request.target == bound.target
                && view.unmet.iter().any(|(_, requirement)| is_per_action(requirement));
            fits.then_some(id)
        })
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

    fn audit_resume(&self, request: &Inbound, session: &Session, id: &RandomId, refused: Option<&Refused>) {
        let result = refused.map_or("ok", |refused| refused.name());
        let tag = self.tags.tag(session.user());
        let transaction = id.to_string();
        Event { transaction: Some(&transaction), ..self.event("resume", result, request, Some(&tag)) }.record();
    }
}

impl BoundRequest {
    /// The request goes to the same place in the same way, whatever its body.
    fn is_at(&self, request: &Inbound) -> bool {
        self.method == request.method && self.authority == request.authority && self.target == request.target
    }
}

/// It has the exact size and type of the resume form; only then is its body looked at.
fn may_be_resume_form(request: &Inbound) -> bool {
    let length = request.headers.get(header::CONTENT_LENGTH);
    request.method == HttpMethod::POST
        && length == Some(&HeaderValue::from(FORM_BYTES))
        && request.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded")
}

async fn read_resume_form(mut request: Inbound) -> Result<(Inbound, Option<RandomId>), OwnResponse> {
    if !may_be_resume_form(&request) {
        return Ok((request, None));
    }
    let body = std::mem::replace(&mut request.body, InboundBody::Whole(bytes::Bytes::new()));
    let Ok(body) = body::read(body, FORM_BYTES).await else { return Err(body_cut_short(&request)) };
    let id = str::from_utf8(&body)
        .ok()
        .and_then(|text| text.strip_prefix(FIELD)?.strip_prefix('='))
        .and_then(RandomId::parse);
    request.body = InboundBody::Whole(body);
    Ok((request, id))
}
