//! One line a request, written when its response has been sent or given up.

mod common;
mod line;
mod log;
mod request_id;
mod sink;
mod terms;
mod writer;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};

use lb_policy::Decision;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use line::Line;
pub use log::AccessLog;
pub use request_id::RequestId;
use terms::{Format, Terms};
pub use writer::NonBlocking;

use crate::metrics::Metrics;
use crate::report::{Tailed, TailedRequest};
use crate::serve::body::{BodyError, ResponseBody};
use crate::serve::request::Peer;
use crate::tail::Tail;
use crate::traces::{RequestEnd, Trace, Tracer, TryEnd};

/// The `tracing` target of access lines.
pub const TARGET: &str = "access";

/// Paths and hosts are cut off here: a line must fit into one write.
const MAX_TEXT_BYTES: usize = 512;

/// A connection that went to a backend as it came.
#[derive(Debug)]
pub(crate) struct PassedThrough<'a> {
    pub(crate) client: IpAddr,
    pub(crate) server_name: &'a str,
    pub(crate) pool: &'a str,
    pub(crate) backend: Option<SocketAddr>,
    /// To the backend, and from it.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
    pub(crate) ended: &'static str,
}

/// What is kept of every request: counts and a line.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    pub metrics: Metrics,
    pub access_log: AccessLog,
    pub tail: Tail,
    pub tracer: Tracer,
}

impl Recorder {
    /// Lets the last lines and spans go before the process ends.
    pub fn flush(&self) {
        self.access_log.flush();
        self.tracer.flush();
    }
}

/// What is known of a request so far. It takes shared handles of what the parser holds anyway and copies nothing.
pub struct Record {
    recorder: Rc<Recorder>,
    started: Instant,
    id: RequestId,
    method: Method,
    version: Version,
    uri: Uri,
    host: Option<HeaderValue>,
    /// Where lines tell of it.
    visitor: Option<Box<Visitor>>,
    client: IpAddr,
    route: Option<Arc<str>>,
    backend: Option<SocketAddr>,
    /// When it was sent there, or came.
    tried_at: Instant,
    decision: Option<&'static str>,
    rule: Option<Arc<str>>,
    status: StatusCode,
    sent_bytes: u64,
    error: Option<String>,
    /// The response did not come to its end.
    is_broken: bool,
    trace: Option<Box<Trace>>,
}

/// What a client says of itself.
#[derive(Debug)]
struct Visitor {
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl Visitor {
    fn of<Body>(request: &Request<Body>) -> Box<Visitor> {
        let header = |name| request.headers().get(name).cloned();
        Box::new(Visitor { referer: header(header::REFERER), user_agent: header(header::USER_AGENT) })
    }
}

impl Record {
    pub fn start<Body>(recorder: &Rc<Recorder>, peer: &Peer, request: &Request<Body>) -> Box<Record> {
        let started = Instant::now();
        Box::new(Record {
            recorder: recorder.clone(),
            started,
            id: RequestId::next(),
            method: request.method().clone(),
            version: request.version(),
            uri: request.uri().clone(),
            host: request.headers().get(header::HOST).cloned(),
            visitor: recorder.access_log.tells_visitors().then(|| Visitor::of(request)),
            client: peer.address.ip().to_canonical(),
            route: None,
            backend: None,
            tried_at: started,
            decision: None,
            rule: None,
            status: client_gone(),
            sent_bytes: 0,
            error: None,
            is_broken: false,
            trace: None,
        })
    }

    /// Names this request in logs.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Since the request came.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Makes the request part of a trace, where requests are traced: from here on its headers say so.
    pub fn begin_trace(&mut self, peer: &Peer, headers: &mut HeaderMap) {
        self.trace = self.recorder.tracer.begin(peer.address.ip(), headers);
    }

    /// The time, for whoever keeps the trace; `None` where nobody does.
    pub(crate) fn mark(&self) -> Option<Instant> {
        self.trace.as_ref().filter(|trace| trace.is_sampled()).map(|_| Instant::now())
    }

    /// Something that was done since the mark.
    pub(crate) fn did(&mut self, what: &'static str, since: Option<Instant>) {
        if let (Some(trace), Some(since)) = (&mut self.trace, since) {
            trace.did(what, since);
        }
    }

    /// Does something that has a span of its own.
    pub(crate) fn timed<T>(&mut self, what: &'static str, act: impl FnOnce() -> T) -> T {
        let since = self.mark();
        let done = act();
        self.did(what, since);
        done
    }

    /// The request goes to `backend` with these headers.
    pub(crate) fn begin_try(&mut self, backend: SocketAddr, at: Instant, headers: &mut HeaderMap) {
        (self.backend, self.tried_at) = (Some(backend), at);
        if let Some(trace) = &mut self.trace {
            trace.begin_try(backend, self.method.as_str(), headers);
        }
    }

    /// It goes to a second `backend` as well: its head with a parent of its own there, where that differs.
    pub(crate) fn begin_second_try(&mut self, backend: SocketAddr, head: &request::Parts) -> Option<request::Parts> {
        let trace = self.trace.as_mut().filter(|trace| trace.is_sampled())?;
        let mut head = head.clone();
        trace.begin_try(backend, self.method.as_str(), &mut head.headers);
        Some(head)
    }

    /// What came of the one of two that does not count.
    pub(crate) fn lost_try(&mut self, backend: SocketAddr, end: TryEnd) {
        if let Some(trace) = &mut self.trace {
            trace.end_try(backend, end);
        }
    }

    /// It was the second that counts, which was asked at that time.
    pub(crate) fn second_won(&mut self, backend: SocketAddr, asked_at: Instant) {
        (self.backend, self.tried_at) = (Some(backend), asked_at);
    }

    /// What came of it, at a backend of `pool`.
    pub(crate) fn end_try(&mut self, pool: &Arc<str>, end: TryEnd) {
        if let (TryEnd::Answered(status), Some(backend)) = (end, self.backend) {
            self.recorder.metrics.backend_answered(pool, backend, status, self.tried_at.elapsed());
        }
        if let (Some(trace), Some(backend)) = (&mut self.trace, self.backend) {
            trace.end_try(backend, end);
        }
    }

    /// These backends accepted no connection, one after the other since the mark.
    pub(crate) fn not_connected(&mut self, since: Option<Instant>, backends: &[SocketAddr]) {
        if let (Some(trace), Some(since)) = (&mut self.trace, since) {
            backends.iter().for_each(|backend| trace.not_connected(*backend, self.method.as_str(), since));
        }
    }

    /// The client, once the guard knows it.
    pub fn set_client(&mut self, client: IpAddr) {
        self.client = client;
    }

    /// The route's label.
    pub fn set_route(&mut self, label: &Arc<str>) {
        self.route = Some(self.recorder.metrics.request_begins(label));
    }

    /// What the rules decided, and the first rule that stood in the way; counted in the metrics at once.
    pub fn set_decision(&mut self, decision: &Decision) {
        let (name, rule) = match decision {
            Decision::Allow(_) => ("allow", None),
            Decision::AllowWithin(within) => {
                ("allow_within_limits", within.limits().first().map(|limit| limit.rule.clone()))
            }
            Decision::Revoke(revocation) => ("revoke", Some(revocation.rule.clone())),
            Decision::RegenerateApiKey(revocation) => ("regenerate_api_key", Some(revocation.rule.clone())),
            Decision::LogIn => ("log_in", None),
            Decision::Challenge(challenge) => ("challenge", challenge.unmet.first().map(|(rule, _)| rule.clone())),
            Decision::Deny(denial) => ("deny", Some(denial.rule.clone())),
        };
        if let Some(route) = &self.route {
            self.recorder.metrics.decision(route, rule.as_ref(), name);
        }
        self.decision = Some(name);
        self.rule = rule;
    }

    /// Lets the record travel with the response, to be written at its end.
    pub fn finish(mut self: Box<Self>, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.status = response.status();
        response.map(|body| body.recorded(self))
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// Why it has no response of a backend's.
    pub(crate) fn failed(&mut self, error: &str) {
        self.error = Some(error.to_owned());
    }

    pub(crate) fn broken(&mut self, error: &BodyError) {
        (self.error, self.is_broken) = (Some(error.to_string()), true);
    }

    fn host(&self) -> &str {
        let in_target = self.uri.authority().map(|authority| authority.as_str());
        in_target.or_else(|| self.host.as_ref()?.to_str().ok()).unwrap_or("")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.recorder.metrics.request(self.route.as_deref().unwrap_or("none"), self.status, duration);
        if self.recorder.tail.is_watched() {
            self.tell_watchers(duration);
        }
        // As it is now: a line must not be written as a file that has been left had them.
        let terms = self.recorder.access_log.terms();
        if terms.format != Format::Off
            && (!terms.by_level || tracing::enabled!(target: TARGET, tracing::Level::INFO))
            && let Some(share) = self.share(terms, duration)
        {
            self.write(terms.format, duration, share);
        }
        if let Some(trace) = self.trace.take() {
            self.end_trace(*trace);
        }
    }
}

/// Of how many requests like it one has a line.
type Share = u32;

impl Record {
    /// `None`: chance left it out.
    fn share(&self, terms: Terms, duration: Duration) -> Option<Share> {
        let Terms { always, one_in, slow, .. } = terms;
        if one_in <= 1
            || always.errors && self.has_failed()
            || always.denials && self.was_denied()
            || always.slow && duration >= slow
        {
            return Some(1);
        }
        (fastrand::u32(..one_in) == 0).then_some(one_in)
    }

    fn has_failed(&self) -> bool {
        self.status.is_server_error() || self.is_broken
    }

    /// By this edge: what a backend refuses is its answer.
    fn was_denied(&self) -> bool {
        match self.decision {
            Some("allow" | "allow_within_limits") | None => self.backend.is_none() && self.status.is_client_error(),
            Some(_) => true,
        }
    }

    fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        }
    }

    fn end_trace(&self, trace: Trace) {
        let end = RequestEnd {
            method: self.method.as_str(),
            route: self.route.as_deref(),
            host: cut(self.host()),
            path: cut(self.uri.path()),
            protocol_version: self.protocol().trim_start_matches("HTTP/").trim_end_matches(".0"),
            client: self.client,
            status: self.status,
            bytes: self.sent_bytes,
            request_id: self.id,
            decision: self.decision,
            rule: self.rule.as_deref(),
            is_broken: self.is_broken,
        };
        trace.end(&end);
    }

    /// What the access log would write, whatever is sampled there.
    fn tell_watchers(&self, duration: Duration) {
        let duration_us = duration.as_micros() as u64;
        let request = Tailed {
            route: self.route.as_deref(),
            status: self.status.as_u16(),
            decision: self.decision,
            client: self.client,
            method: self.method.as_str(),
            host: cut(self.host()),
            path: cut(self.uri.path()),
            duration_us,
        };
        self.recorder.tail.tell(&request, || TailedRequest {
            at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            request_id: self.id.to_string(),
            client: request.client,
            method: request.method.to_owned(),
            protocol: self.protocol().to_owned(),
            host: request.host.to_owned(),
            path: request.path.to_owned(),
            status: request.status,
            bytes: self.sent_bytes,
            duration_us,
            route: request.route.map(str::to_owned),
            backend: self.backend,
            decision: request.decision.map(str::to_owned),
            rule: self.rule.as_deref().map(str::to_owned),
            error: self.error.clone(),
            trace_id: self.trace.as_ref().map(|trace| trace.id().to_string()),
        });
    }

    /// The query is left out: it may hold secrets.
    fn write(&self, format: Format, duration: Duration, share: Share) {
        let duration_us = duration.as_micros() as u64;
        if format != Format::Text {
            let log = &self.recorder.access_log;
            return Line::with(|line| log.append(line.of(self, format, duration_us, share)));
        }
        tracing::info!(
            target: TARGET,
            request_id = %self.id,
            client = %self.client,
            method = self.method.as_str(),
            host = cut(self.host()),
            path = cut(self.uri.path()),
            status = self.status.as_u16(),
            bytes = self.sent_bytes,
            duration_us,
            route = self.route.as_deref(),
            backend = self.backend.map(tracing::field::display),
            decision = self.decision,
            rule = self.rule.as_deref(),
            error = self.error.as_deref(),
            trace_id = self.trace.as_ref().map(|trace| tracing::field::display(trace.id())),
        );
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What the log shows when the client went before there was a response; no client ever sees it. nginx made 499 usual.
fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(decision: Option<&'static str>, status: u16, backend: bool) -> Box<Record> {
        let peer = Peer::plain("192.0.2.7:4000".parse().unwrap());
        let mut record = Record::start(&Recorder::default().into(), &peer, &Request::get("/").body(()).unwrap());
        record.status = StatusCode::from_u16(status).unwrap();
        record.decision = decision;
        record.backend = backend.then(|| "10.0.0.1:80".parse().unwrap());
        record
    }

    #[test]
    fn failures_denials_and_slow_requests_are_not_left_to_chance_and_others_are() {
        let config = crate::config::AccessLogConfig { one_in: 1_000_000, ..Default::default() };
        let terms = Terms::of(&config, Format::Json);
        let none = crate::config::AlwaysLogged { errors: false, denials: false, slow: false };
        let quick = Duration::from_millis(5);
        for (what, record, duration, is_certain) in [
            ("a page", record(Some("allow"), 200, true), quick, false),
            ("a slow page", record(Some("allow"), 200, true), Duration::from_secs(1), true),
            ("no such page there", record(Some("allow"), 404, true), quick, false),
            ("the backend fails", record(Some("allow"), 502, true), quick, true),
            ("no such route", record(None, 404, false), quick, true),
            ("a limit", record(Some("allow_within_limits"), 429, false), quick, true),
            ("a denial", record(Some("deny"), 403, false), quick, true),
            ("a challenge by a page", record(Some("challenge"), 303, false), quick, true),
            ("an upgrade", record(Some("allow"), 101, true), quick, false),
        ] {
            let is_left_out = || (0..100).any(|_| record.share(terms, duration).is_none());
            assert_eq!(is_left_out(), !is_certain, "{what}");
            assert!((0..100).any(|_| record.share(Terms { always: none, ..terms }, duration).is_none()), "{what}");
            assert_eq!(record.share(Terms { one_in: 1, ..terms }, duration), Some(1), "{what}");
        }
    }

    #[test]
    fn one_in_so_many_is_chosen() {
        let record = record(Some("allow"), 200, true);
        let config = crate::config::AccessLogConfig { one_in: 10, ..Default::default() };
        let terms = Terms::of(&config, Format::Json);
        let chosen = (0..20_000).filter(|_| record.share(terms, Duration::ZERO) == Some(10)).count();
        assert!((1_500..2_500).contains(&chosen), "{chosen} of 20,000");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let path = "/é".repeat(MAX_TEXT_BYTES);
        assert!(cut(&path).len() <= MAX_TEXT_BYTES);
        assert!(path.starts_with(cut(&path)));
        assert_eq!(cut("/short"), "/short");
    }
}
