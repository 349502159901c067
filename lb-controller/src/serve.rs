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
use lb_policy::Decision;

use crate::edge::{Edge, Snapshot};
use crate::explain::Explained;
use crate::stepup::Visit;

use access_log::Record;
use body::ResponseBody;
use request::Peer;
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
    record.set_client(request.client.address);
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

    let provable = edge.step_up.provable(config, session);
    let who = facts::Who { session, proved_for_this_request: &proved, provable: &provable };
    let facts = facts::gather(edge.clock.now(), config, &request, who, &body, route);
    let decision = config.rules.decide(&facts);
    record.set_decision(&decision);
    if matches!(decision, Decision::Challenge(_) | Decision::Deny(_)) {
        edge.recent.remember(facts.now, || Explained::of(&config.rules, &facts, Some(record.id().to_string())));
    }

    match (decision, session) {
        (Decision::Allow(permit), _) => {
            let host = request.host.clone();
            let (request, kept) = backend_step_up::keep(config, route, &edge.body_memory, request, session).await?;
            let assertion = session.map(|session| edge.step_up.assertion(config, session, &request, &route.pool));
            let pool = route::pool(snapshot, route)?;
            let login_over = edge.step_up.login_over(session.filter(|_| request.upgrade.is_some()));
            let mut response = forward::forward(permit, pool, request, assertion, login_over, record).await?;
            if let (Some(kept), Some(session)) = (kept, session)
                && let Some(requirement) = backend_step_up::asked(&response, &config.step_up.levels)
            {
                let facts = facts::gather(edge.clock.now(), config, &kept, who, &body, route);
                let challenge = lb_policy::challenge_for(&facts, backend_step_up::RULE, requirement);
                let challenge = challenge.filter(|_| proved.is_empty());
                let challenge = edge.step_up.challenge_for_backend(&visit, kept, session, challenge).await;
                edge.metrics.challenge(respond::challenge_shape(&challenge));
                return Ok(challenge.map(ResponseBody::from));
            }
            backend_step_up::hide(response.headers_mut());
            if let Some(cookie) = session.and_then(|session| edge.step_up.session_cookie_refresh(&host, session)) {
                respond::carry_session(&mut response, cookie);
            }
            Ok(response)
        }
        (Decision::Challenge(challenge), Some(session)) => {
            let challenge = edge.step_up.challenge(&visit, request, session, challenge).await;
            edge.metrics.challenge(respond::challenge_shape(&challenge));
            Ok(challenge.map(ResponseBody::from))
        }
        (Decision::LogIn | Decision::Challenge(_), _) => {
            Ok(edge.step_up.nobody(&request, &credential).map(ResponseBody::from))
        }
        (Decision::Deny(denial), _) => Ok(edge.step_up.deny(&request, session, &denial).map(ResponseBody::from)),
    }
}
