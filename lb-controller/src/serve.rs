//! A request's way: accept → tls → guard → facts → decide → enforce → forward → respond → record.

pub mod accept;
pub mod access_log;
mod backend_step_up;
pub mod body;
pub mod body_memory;
pub mod client_certificate;
mod cors;
pub mod facts;
pub mod forward;
mod framing;
pub mod guard;
mod h2;
pub mod listen;
pub(crate) mod outgoing;
pub mod request;
pub mod respond;
pub mod route;
mod stall;
mod stalled;
pub mod tls;
mod upgrade;
mod upstream;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use framing::fuzzing;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use lb_policy::{Decision, Permit};

use crate::config::Route;
use crate::edge::{Edge, Snapshot};
use crate::explain::Explained;
use crate::stepup::Visit;

use access_log::Record;
use body::ResponseBody;
use request::{Inbound, Peer};
use respond::Early;

/// Answers one request and records how.
pub async fn handle(edge: &Edge, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
    let mut record = Record::start(&edge.metrics, peer, &request);
    let snapshot = Arc::clone(&edge.snapshot());
    let origin = cors::trusted_origin(&snapshot.config, request.headers());
    let mut response = match answer(edge, &snapshot, peer, request, &mut record).await {
        Ok(response) => response,
        Err(early) => early.into_response(),
    };
    if let Some(origin) = origin {
        cors::open_to(&mut response, origin);
    }
    respond::name(&mut response, record.id());
    record.finish(response)
}

/// The table of contents. Every branch is here; the steps it names are leaves.
async fn answer(
    edge: &Edge,
    snapshot: &Snapshot,
    peer: &Peer,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Early> {
    let config = &*snapshot.config;
    let visit = Visit { config, joint: &edge.joint, identities: &snapshot.identities };

    if let Some(leave) = cors::preflight(config, &request) {
        return Ok(leave.map(ResponseBody::from));
    }
    let mut request = guard::check(config, peer, request)?;
    request.id = Some(record.id());
    record.set_client(request.client.address);
    if let Some(origins) = edge.step_up.related_origins(config, &request) {
        return Ok(origins.map(ResponseBody::from));
    }
    if route::is_reserved(&request.path) {
        let session = edge.step_up.session(config, &request);
        return Ok(edge.step_up.pages(&visit, request, session.as_ref()).await.map(ResponseBody::from));
    }

    let now = edge.clock.now();
    request.certificate = request.certificate.filter(|certificate| edge.client_authorities.trusts(certificate, now));
    let credential = edge.step_up.credential(&visit, &edge.api_keys, &mut request).await;
    let session = credential.session();
    let route = route::find(config, &request)?;
    record.set_route(route.label.clone());
    route::check_certificate(route, &request)?;
    edge.step_up.scope_check(&request, session, &route.scopes)?;
    edge.step_up.csrf_check(config, &request, session)?;
    let (request, proved) = edge.step_up.resume(&visit, request, session).await?;
    let (request, body) = facts::read_body(&config.rules, &edge.body_memory, request, session).await?;

    let parameters = facts::parameters(&config.rules, &request);
    let sender = facts::sender(edge, config, &request, session);
    let request_facts = facts::request_facts(&request, &parameters);
    let observed = edge.signals.observe(&snapshot.sources, &config.rules, &request_facts, &sender, now);
    let provable = edge.step_up.provable(config, session);
    let who = facts::Who { session, proved_for_this_request: &proved, provable: &provable };
    let findings = facts::Findings { body: &body, parameters: &parameters, observed: &observed };
    let facts = facts::gather(now, config, &request, who, &findings, route);
    let decision = config.rules.decide(&facts);
    record.set_decision(&decision);
    let id = record.id();
    let explain = || Explained::of(&config.rules, &facts, Some(id.to_string()));
    if !matches!(decision, Decision::Allow(_) | Decision::AllowWithin(_) | Decision::LogIn) {
        edge.recent.remember(now, explain);
    }

    let passing = |permit| Passing { permit, visit: &visit, snapshot, route, who, findings: &findings };
    match (decision, session) {
        (Decision::Allow(permit), _) => passing(permit).go_on(edge, request, record).await,
        (Decision::AllowWithin(within), _) => {
            let permit = within.take(|limits| edge.signals.take(limits, &sender, now)).map_err(|retry_after| {
                edge.recent.remember(now, explain);
                edge.step_up.limited(&request, session, retry_after)
            })?;
            passing(permit).go_on(edge, request, record).await
        }
        (Decision::Challenge(challenge), Some(session)) => {
            let challenge = edge.step_up.challenge(&visit, request, session, challenge).await;
            edge.metrics.challenge(respond::challenge_shape(&challenge));
            Ok(challenge.map(ResponseBody::from))
        }
        (Decision::LogIn | Decision::Challenge(_), _) => {
            Ok(edge.step_up.nobody(&request, &credential).map(ResponseBody::from))
        }
        (Decision::Deny(denial), _) => {
            if let (Some(session), Some(rule)) = (session, &denial.revoked_by) {
                edge.step_up.end_user(config, &request, session, rule).await?;
            }
            Ok(edge.step_up.deny(&request, session, &denial).map(ResponseBody::from))
        }
        (Decision::Revoke(revocation), session) => {
            if let Some(session) = session {
                edge.step_up.end_user(config, &request, session, &revocation.rule).await?;
            }
            Ok(edge.step_up.log_in(&request).map(ResponseBody::from))
        }
        (Decision::RegenerateApiKey(revocation), session) => {
            let answer = edge.step_up.api_key_is_stale(&edge.api_keys, &request, session, &revocation.rule).await;
            Ok(answer.map(ResponseBody::from))
        }
    }
}

/// A request that was let through, and what it was judged by.
struct Passing<'a> {
    permit: Permit,
    visit: &'a Visit<'a>,
    snapshot: &'a Snapshot,
    route: &'a Route,
    who: facts::Who<'a>,
    findings: &'a facts::Findings<'a>,
}

impl Passing<'_> {
    async fn go_on(self, edge: &Edge, request: Inbound, record: &mut Record) -> Result<Response<ResponseBody>, Early> {
        let Passing { permit, visit, snapshot, route, who, findings } = self;
        let (config, session) = (&*snapshot.config, who.session);
        let host = request.host.clone();
        let (request, kept) = backend_step_up::keep(config, route, &edge.body_memory, request, session).await?;
        let assertion = session.map(|session| edge.step_up.assertion(config, session, &request, &route.pool));
        let pool = route::pool(snapshot, route)?;
        let login_over = edge.step_up.login_over(session.filter(|_| request.upgrade.is_some()));
        let mut response = forward::forward(permit, pool, request, assertion, login_over, record).await?;
        if let (Some(kept), Some(session)) = (kept, session)
            && let Some(requirement) = backend_step_up::asked(&response, &config.step_up.levels)
        {
            let facts = facts::gather(edge.clock.now(), config, &kept, who, findings, route);
            let challenge = lb_policy::challenge_for(&facts, backend_step_up::RULE, requirement);
            let challenge = challenge.filter(|_| who.proved_for_this_request.is_empty());
            let challenge = edge.step_up.challenge_for_backend(visit, kept, session, challenge).await;
            edge.metrics.challenge(respond::challenge_shape(&challenge));
            return Ok(challenge.map(ResponseBody::from));
        }
        backend_step_up::hide(response.headers_mut());
        if let Some(cookie) = session.and_then(|session| edge.step_up.session_cookie_refresh(&host, session)) {
            respond::carry_session(&mut response, cookie);
        }
        Ok(response)
    }
}
