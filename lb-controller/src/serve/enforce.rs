//! What a decision leads to: the request goes on to its backend, or its sender is told why not.

use std::sync::Arc;

use http::{HeaderValue, Response, header};
use lb_policy::{Decision, Facts, Permit, RouteFacts, UnixSeconds};

use super::access_log::Record;
use super::body::{Manner, ResponseBody};
use super::request::Inbound;
use super::respond::{self, Early, Refusal};
use super::standing::{self, Over, Standing};
use super::target::Target;
use super::{backend_step_up, facts, fixed, forward, mirror, route};
use crate::config::{Action, Route, own_value};
use crate::edge::{Edge, Snapshot};
use crate::explain::{Explained, Taken};
use crate::signals::Sender;
use crate::stepup::{ApprovedAction, Credential, Resumed, Session, Visit};

/// What a request was judged by, besides itself.
pub(super) struct Judged<'a> {
    pub(super) visit: Visit<'a>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) route: &'a Route,
    pub(super) who: facts::Who<'a>,
    /// Its user approved exactly this request.
    pub(super) approved: Option<&'a ApprovedAction>,
    pub(super) resumed: &'a Resumed,
    pub(super) findings: &'a facts::Findings<'a>,
    pub(super) credential: &'a Credential,
    pub(super) sender: &'a Sender,
}

impl Judged<'_> {
    pub(super) fn facts<'r>(&'r self, now: UnixSeconds, request: &'r Inbound) -> Facts<'r> {
        let route = RouteFacts { is_public: self.route.public, labels: &self.route.labels };
        facts::gather(now, &self.snapshot.config, request, self.who, self.findings, route)
    }

    /// As if nothing had been proved for this request where what was approved is not what the rules show of it now.
    pub(super) fn approved_as_shown(self, now: UnixSeconds, request: &Inbound) -> Self {
        if self.resumed.covers(&self.snapshot.config.rules, &self.facts(now, request)) {
            return self;
        }
        let who = facts::Who { proved_for_this_request: &[], ..self.who };
        Judged { who, approved: None, ..self }
    }

    /// For `lb-controller explain`.
    pub(super) fn remember(&self, edge: &Edge, request: &Inbound, facts: &Facts<'_>, record: &Record) {
        let explain = || {
            let taken = Taken::of(self.route, fixed::split_target(&request.target).0);
            Explained::of(&self.snapshot.config.rules, facts, taken, Some(record.id().to_string()))
        };
        edge.recent.remember(facts.now, explain);
    }

    /// Every way that a judged request can take.
    pub(super) async fn enforce(
        &self,
        edge: &Arc<Edge>,
        decision: Decision,
        request: Box<Inbound>,
        record: &mut Record,
    ) -> Result<Response<ResponseBody>, Early> {
        let (step_up, session) = (&edge.step_up, self.who.session);
        let own = match (decision, session) {
            (decision, _) if edge.is_leaving() && !decision.lets_through() => {
                respond::ask_successor(&request.authority, &request.target)
            }
            (Decision::Allow(permit), _) => return self.forward(edge, permit, request, record).await,
            (Decision::AllowWithin(within), _) => {
                let now = edge.clock.now();
                let permit =
                    within.take(|limits| edge.signals.take(limits, self.sender, now)).map_err(|retry_after| {
                        let facts = self.facts(now, &request);
                        self.remember(edge, &request, &facts, record);
                        self.audit_limited(edge, &request, &facts, &retry_after.rule, record);
                        step_up.give_back(&request, session, self.resumed);
                        step_up.limited(&request, &retry_after)
                    })?;
                return self.forward(edge, permit, request, record).await;
            }
            (Decision::Challenge(challenge), Some(session)) => {
                let since = record.mark();
                let challenge = Box::pin(step_up.challenge(&self.visit, *request, session, challenge)).await;
                record.did("challenge", since);
                challenge
            }
            (Decision::Challenge(challenge), None) => step_up.ask_for_work(&request, &challenge),
            (Decision::LogIn, _) => step_up.nobody(&request, self.credential),
            (Decision::Deny(denial), _) => {
                if let (Some(session), Some(rule)) = (session, &denial.revoked_by) {
                    Box::pin(step_up.end_user(self.visit.config, &request, session, rule)).await?;
                }
                step_up.deny(&request)
            }
            (Decision::Revoke(revocation), session) => {
                if let Some(session) = session {
                    Box::pin(step_up.end_user(self.visit.config, &request, session, &revocation.rule)).await?;
                }
                step_up.log_in(&request)
            }
            (Decision::RegenerateApiKey(revocation), session) => {
                Box::pin(step_up.api_key_is_stale(&edge.api_keys, &request, session, &revocation.rule)).await
            }
        };
        Ok(own.map(ResponseBody::from))
    }

    async fn forward(
        &self,
        edge: &Arc<Edge>,
        permit: Permit,
        mut request: Box<Inbound>,
        record: &mut Record,
    ) -> Result<Response<ResponseBody>, Early> {
        let (config, route, session) = (self.visit.config, self.route, self.who.session);
        let (host, proved_for) = (request.host.clone(), self.proved_for(&request));
        let pool = match &route.action {
            Action::Pool(pool) => pool.as_str(),
            Action::Split(split) => route::share(split, route, session, request.client.address),
            Action::Redirect(_) | Action::Respond(_) => {
                let mut response = self.answer(permit, &request)?;
                self.audit_forwarded(edge, proved_for.as_deref(), response.status(), record);
                self.finish(edge, &host, &mut response);
                return Ok(response);
            }
        };
        let kept = backend_step_up::keep(config, route, &edge.body_memory, &mut request, session).await?;
        let assertion = self.assertion(edge, &request, pool);
        let target = Target::of(route::pool(self.snapshot, pool)?, &request, session.map(Session::user));
        let target = target.by(route).within(self.snapshot.pools.gate(route)).inspect_err(|_| {
            edge.step_up.give_back(&request, session, self.resumed);
        })?;
        let judged = standing::announces_stream(&request).then(|| self.to_judge_again(&request));
        let mut standing = judged.map(|judged| Standing::new(edge, route.max_stream_age, session, Some(judged)));
        let tunnel = standing.take_if(|_| request.upgrade.is_some());
        self.change_for_backend(edge, &mut request);
        let mut response = forward::forward(permit, &target, request, assertion, over(tunnel), record).await?;
        self.audit_forwarded(edge, proved_for.as_deref(), response.status(), record);
        if let (Some(kept), Some(session)) = (kept, session)
            && let Some(requirement) = backend_step_up::asked(&response, &config.step_up.levels)
        {
            let facts = self.facts(edge.clock.now(), &kept);
            let challenge = lb_policy::challenge_for(&facts, backend_step_up::RULE, requirement);
            let challenge = challenge.filter(|_| self.who.proved_for_this_request.is_empty());
            let challenge = edge.step_up.challenge_for_backend(&self.visit, *kept, session, challenge);
            let challenge = Box::pin(challenge).await;
            return Ok(challenge.map(ResponseBody::from));
        }
        if response.body().goes_on() {
            let standing = standing.unwrap_or_else(|| Standing::new(edge, route.max_stream_age, session, None));
            let manner = manner_of(&response);
            response.body_mut().end_when(standing.over(), manner);
        }
        backend_step_up::hide(response.headers_mut());
        self.finish(edge, &host, &mut response);
        Ok(response)
    }

    /// What a route without a pool answers.
    fn answer(&self, permit: Permit, request: &Inbound) -> Result<Response<ResponseBody>, Refusal> {
        match &self.route.action {
            Action::Redirect(redirect) => fixed::redirect(permit, self.route, redirect, request),
            Action::Respond(response) => Ok(fixed::respond(permit, self.route, response)),
            Action::Pool(_) | Action::Split(_) => Err(Refusal::NoBackend),
        }
    }

    /// Makes the request what its route makes of it, which is the last thing that happens to it: rules have judged what the
    /// client sent, and the assertion names that.
    fn change_for_backend(&self, edge: &Edge, request: &mut Inbound) {
        let route = self.route;
        let mirrored = route.mirror.as_ref().filter(|mirror| mirror.takes_next());
        let assertion = mirrored.and_then(|mirror| self.assertion(edge, request, &mirror.pool));
        if let Some(template) = &route.rewrite.path {
            let (path, query) = fixed::split_target(&request.target);
            request.target = template.expand(&route.matcher.path, path) + query;
        }
        request.onward.host = route.rewrite.host.as_ref().map(own_value);
        route.request_headers.apply(&mut request.headers);
        if let Some(mirror) = mirrored
            && let Some(pool) = self.snapshot.pools.get(&mirror.pool).cloned()
        {
            mirror::begin(mirror::Target { mirror, pool, metrics: &edge.metrics, assertion }, request);
        }
    }

    fn assertion(&self, edge: &Edge, request: &Inbound, pool: &str) -> Option<HeaderValue> {
        let session = self.who.session?;
        Some(edge.step_up.assertion(self.visit.config, session, self.approved, request, pool))
    }

    /// What every answer of the route gets.
    fn finish(&self, edge: &Edge, host: &str, response: &mut Response<ResponseBody>) {
        self.route.response_headers.apply(response.headers_mut());
        let session = self.who.session;
        if let Some(cookie) = session.and_then(|session| edge.step_up.session_cookie_refresh(host, session)) {
            respond::carry_session(response, cookie);
        }
    }

    fn to_judge_again(&self, request: &Inbound) -> standing::Judged {
        standing::Judged {
            request: request.head(),
            proved: self.who.proved_for_this_request.to_vec(),
            body: self.findings.body.clone(),
            observed: self.findings.observed.clone(),
            worked: self.findings.worked.to_vec(),
            sender: self.sender.clone(),
            version: self.snapshot.version,
        }
    }
}

/// When a tunnel is over; what is none does not ask.
async fn over(tunnel: Option<Box<Standing>>) -> Over {
    match tunnel {
        Some(standing) => standing.over().await,
        None => std::future::pending().await,
    }
}

fn manner_of(response: &Response<ResponseBody>) -> Manner {
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let begins_with = |text: &[u8]| kind.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
    match () {
        () if begins_with(b"text/event-stream") => Manner::Quietly,
        () if begins_with(b"application/grpc") => Manner::GrpcStatus,
        () => Manner::BrokenOff,
    }
}
