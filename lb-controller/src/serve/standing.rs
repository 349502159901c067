//! Streams that go on: WebSockets, server-sent events, gRPC streams, answers of unknown length. What let one through may be
//! over before it is: the login ends, a proof grows old, the threat rises, the rules change. So it is looked at again every
//! second; see docs/decisions/0028-streams-are-judged-while-they-last.md.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use lb_policy::{BodyFacts, Decision, ProvedFactor, RouteFacts, UnixSeconds};

use super::request::Inbound;
use super::{facts, route};
use crate::edge::{Edge, Snapshot};
use crate::signals::{Observed, Sender};
use crate::stepup::Session;

const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why a stream goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The login it came of.
    Login,
    /// What was proved would not do any more.
    Proof,
    /// The rules would not let it through any more, whatever is proved.
    Denied,
    /// The time that its route gives a stream.
    Age,
}

impl Over {
    /// For people who look at frames and trailers.
    pub(super) fn text(self) -> &'static str {
        match self {
            Over::Login => "the login is over",
            Over::Proof => "more proof is needed",
            Over::Denied => "not allowed any more",
            Over::Age => "open for long enough; connect again",
        }
    }

    /// Of a WebSocket: 1001 and 1008 of RFC 6455 §7.4.1, 3000 "Unauthorized" of IANA's registry.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Over::Login | Over::Proof => 3000,
            Over::Denied => 1008,
            Over::Age => 1001,
        }
    }

    /// UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE.
    pub(super) fn grpc_status(self) -> u16 {
        match self {
            Over::Login | Over::Proof => 16,
            Over::Denied => 7,
            Over::Age => 14,
        }
    }

    /// In metrics.
    fn name(self) -> &'static str {
        match self {
            Over::Login => "login",
            Over::Proof => "proof",
            Over::Denied => "denied",
            Over::Age => "age",
        }
    }
}

/// By what a stream was let through.
pub(super) struct Standing {
    edge: Arc<Edge>,
    begun: Instant,
    max_age: Option<Duration>,
    session: Option<Session>,
    /// `None`: its request announced no stream, and only the login and the age end it.
    judged: Option<Box<Judged>>,
}

/// What can be judged again.
pub(super) struct Judged {
    pub(super) request: Inbound,
    pub(super) proved: Vec<ProvedFactor>,
    pub(super) body: BodyFacts,
    pub(super) observed: Observed,
    /// Work that its sender had done.
    pub(super) worked: Vec<(String, UnixSeconds)>,
    pub(super) sender: Sender,
    /// Of the configuration by which the body was read.
    pub(super) version: u64,
}

/// Whether the answer to `request` goes on for as long as both sides like: then the request is worth a copy.
pub(super) fn announces_stream(request: &Inbound) -> bool {
    request.upgrade.is_some()
        || holds(&request.headers, header::ACCEPT.as_str(), "text/event-stream")
        || holds(&request.headers, header::CONTENT_TYPE.as_str(), "application/grpc")
}

fn holds(headers: &HeaderMap, name: &str, text: &str) -> bool {
    let is_in = |value: &[u8]| value.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()));
    headers.get_all(name).iter().any(|value| is_in(value.as_bytes()))
}

impl Standing {
    pub(super) fn new(
        edge: &Arc<Edge>,
        max_age: Option<Duration>,
        session: Option<&Session>,
        judged: Option<Judged>,
    ) -> Box<Standing> {
        let (edge, session, judged) = (edge.clone(), session.cloned(), judged.map(Box::new));
        Box::new(Standing { edge, begun: Instant::now(), max_age, session, judged })
    }

    /// Waits until the stream must end.
    pub(super) async fn over(mut self: Box<Self>) -> Over {
        loop {
            let age_left = self.max_age.map(|age| age.saturating_sub(self.begun.elapsed()));
            tokio::time::sleep(age_left.unwrap_or(LOOK_AGAIN_AFTER).min(LOOK_AGAIN_AFTER)).await;
            if let Some(over) = self.look() {
                self.edge.metrics.stream_ended(over.name());
                return over;
            }
        }
    }

    fn look(&mut self) -> Option<Over> {
        if self.max_age.is_some_and(|age| self.begun.elapsed() >= age) {
            return Some(Over::Age);
        }
        let snapshot = Arc::clone(&self.edge.snapshot());
        let session = self.session.as_ref();
        if session.is_some_and(|session| !self.edge.step_up.goes_on(&snapshot.config, &self.edge.api_keys, session)) {
            return Some(Over::Login);
        }
        self.judged.as_mut()?.judge_again(&self.edge, &snapshot, session)
    }
}

impl Judged {
    fn judge_again(&mut self, edge: &Edge, snapshot: &Snapshot, session: Option<&Session>) -> Option<Over> {
        let (config, now) = (&*snapshot.config, edge.clock.now());
        let parameters = facts::parameters(&config.rules, &self.request);
        let request_facts = facts::request_facts(&self.request, &parameters);
        if snapshot.version != self.version {
            // What other rules would have read of the body is gone.
            if config.rules.body_needs(&request_facts).is_some() {
                return Some(Over::Denied);
            }
            (self.version, self.body) = (snapshot.version, BodyFacts::default());
        }
        edge.signals.observe_again(&snapshot.sources, &self.sender, now, &mut self.observed);
        let Ok(route) = route::find(config, &self.request) else { return Some(Over::Denied) };
        let provable = edge.step_up.provable(config, session);
        let who = facts::Who { session, proved_for_this_request: &self.proved, provable: &provable };
        let findings = facts::Findings {
            body: &self.body,
            parameters: &parameters,
            observed: &self.observed,
            worked: &self.worked,
        };
        let route = RouteFacts { is_public: route.public, labels: &route.labels };
        let facts = facts::gather(now, config, &self.request, who, &findings, route);
        match config.rules.decide(&facts) {
            // A limit was taken from when the stream began.
            Decision::Allow(_) | Decision::AllowWithin(_) => None,
            Decision::LogIn | Decision::Challenge(_) => Some(Over::Proof),
            Decision::Deny(_) | Decision::Revoke(_) | Decision::RegenerateApiKey(_) => Some(Over::Denied),
        }
    }
}
