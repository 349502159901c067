//! A request's way: accept → tls → guard → facts → decide → enforce → forward → respond → record.

pub mod accept;
pub mod access_log;
mod backend_step_up;
pub mod body;
pub mod body_memory;
pub mod client_certificate;
mod cors;
mod decided;
mod digits;
mod enforce;
pub mod facts;
mod fixed;
pub mod forward;
pub mod front;
pub mod guard;
mod h2;
mod http1;
pub mod listen;
mod login_guard;
mod mirror;
pub(crate) mod outgoing;
mod overload;
mod pause;
pub mod plain_http;
mod preface;
pub mod request;
pub mod respond;
pub mod route;
mod stall;
mod stalled;
pub mod standing;
pub mod target;
mod timer;
pub mod tls;
mod tries;
mod upgrade;
mod upstream;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::http1::fuzzing::requests_end_where_another_reader_says;
    pub use super::tls::fuzzing::no_bytes_are_a_ticket_or_a_session;
    pub use super::upgrade::fuzzing::frames_end_where_another_reader_says;
}

use std::sync::Arc;

use http::{HeaderValue, Request, Response};
use lb_policy::Decision;

use crate::edge::{Edge, Snapshot, WorkerEdge};
use crate::stepup::Visit;

use access_log::Record;
use body::{ClientBody, ResponseBody};
use enforce::Judged;
use overload::Share;
use request::Peer;
use respond::Early;

/// Answers one request and records how.
pub async fn handle(edge: &WorkerEdge, peer: &Peer, mut request: Request<ClientBody>) -> Response<ResponseBody> {
    let mut record = Record::start(&edge.recorder, peer, &request);
    record.begin_trace(peer, request.headers_mut());
    let snapshot = edge.current();
    let mut origin = cors::trusted_origin(&snapshot.config, request.headers());
    let mut response = match answer(edge, &snapshot, peer, request, &mut record, &mut origin).await {
        Ok(response) => response,
        Err(early) => early.into_response(),
    };
    if let Some(origin) = origin {
        cors::open_to(&mut response, origin);
    }
    respond::name(&mut response, record.id());
    record.finish(response)
}

/// The table of contents. Every branch is here; the steps it names are leaves. What few requests wait for is boxed, here
/// and in the steps: every request's future has room for all that it might wait for.
async fn answer(
    edge: &Arc<Edge>,
    snapshot: &Snapshot,
    peer: &Peer,
    request: Request<ClientBody>,
    record: &mut Record,
    origin: &mut Option<HeaderValue>,
) -> Result<Response<ResponseBody>, Early> {
    let config = &*snapshot.config;
    let now = edge.clock.now();
    let threat = edge.signals.threat().level(now);
    let visit = Visit { config, joint: &edge.joint, identities: &snapshot.identities, threat };

    if let Some(leave) = cors::preflight(config, &request) {
        return Ok(leave.map(ResponseBody::from));
    }
    // Boxed, for it is half a kilobyte and handed on and on.
    let mut request = Box::new(guard::check(config, peer, request)?);
    request.id = Some(record.id());
    record.set_client(request.client.address);
    if let Some(origins) = edge.step_up.related_origins(config, &request) {
        return Ok(origins.map(ResponseBody::from));
    }
    if route::is_reserved(&request.path) {
        if edge.is_leaving() {
            return Ok(respond::ask_successor(&request.authority, &request.target).map(ResponseBody::from));
        }
        origin.take_if(|_| !cors::is_for_other_origins(&request.path));
        let session = edge.step_up.session(config, &request);
        overload::admit(Share::of_own_page(session.is_some()), &edge.metrics).await?;
        if let Some(asked) = login_guard::work_due(edge, snapshot, &request, session.as_ref()) {
            return Ok(asked.map(ResponseBody::from));
        }
        return Ok(Box::pin(edge.step_up.pages(&visit, *request, session.as_ref())).await.map(ResponseBody::from));
    }

    request.certificate = request.certificate.filter(|certificate| edge.client_authorities.trusts(certificate, now));
    overload::admit_where(|| edge.step_up.has_new_token(&visit, &request), Share::NewTokens, &edge.metrics).await?;
    let credential = edge.step_up.credential(&visit, &edge.api_keys, &mut request).await;
    let session = credential.session();
    overload::admit(Share::of(session.is_some()), &edge.metrics).await?;
    let route = route::find(config, &request)?;
    record.set_route(&route.label);
    route::check_certificate(route, &request)?;
    edge.step_up.scope_check(&request, session, &route.scopes)?;
    edge.step_up.csrf_check(config, &request, session)?;
    let resumed = edge.step_up.resume(&visit, &mut request, session).await?;
    let body = facts::read_body(&config.rules, &edge.body_memory, &mut request, session).await?;

    let parameters = facts::parameters(&config.rules, &request);
    let sender = facts::sender(edge, config, &request, session);
    let request_facts = facts::request_facts(&request, &parameters);
    let observed = edge.signals.observe(&snapshot.sources, &config.rules, &request_facts, &sender, now);
    let provable = edge.step_up.provable(config, session);
    let who = facts::Who { session, proved_for_this_request: &resumed.proved, provable: &provable };
    let worked = if config.rules.asks_for_work() { edge.step_up.worked(&request, now) } else { Vec::new() };
    let findings = facts::Findings { body: &body, parameters: &parameters, observed: &observed, worked: &worked };
    let judged = Judged {
        visit,
        snapshot,
        route,
        who,
        approved: resumed.approved.as_ref(),
        resumed: &resumed,
        findings: &findings,
        credential: &credential,
        sender: &sender,
    }
    .approved_as_shown(now, &request);
    let facts = judged.facts(now, &request);
    let decision = record.timed("decide", || edge.metrics.timed_decision(|| config.rules.decide(&facts)));
    record.set_decision(&decision);
    let is_plain = decision.lets_through() || matches!(decision, Decision::LogIn);
    if !is_plain && !edge.is_leaving() {
        judged.remember(edge, &request, &facts, record);
        judged.audit(edge, &request, &facts, &decision, record);
    }
    judged.enforce(edge, decision, request, record).await
}
