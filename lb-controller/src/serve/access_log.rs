//! One line a request, written when its response has been sent or given up.

mod layer;
mod writer;

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};

pub use layer::AccessLayer;
use lb_policy::Decision;
pub use writer::NonBlocking;

use crate::metrics::Metrics;
use crate::serve::body::{BodyError, ResponseBody};
use crate::serve::request::Peer;

/// The `tracing` target of access lines.
pub const TARGET: &str = "access";

/// Paths and hosts are cut off here: a line must fit into one write.
const MAX_TEXT_BYTES: usize = 512;

/// What is known of a request so far. It takes shared handles of what the parser holds anyway and copies nothing.
pub struct Record {
    metrics: Metrics,
    started: Instant,
    id: RequestId,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    client: IpAddr,
    route: Option<Arc<str>>,
    backend: Option<SocketAddr>,
    decision: Option<&'static str>,
    rule: Option<Arc<str>>,
    status: StatusCode,
    sent_bytes: u64,
    error: Option<String>,
}

impl Record {
    pub fn start<Body>(metrics: &Metrics, peer: &Peer, request: &Request<Body>) -> Box<Record> {
        Box::new(Record {
            metrics: metrics.clone(),
            started: Instant::now(),
            id: RequestId::next(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: request.headers().get(header::HOST).cloned(),
            client: peer.address.ip().to_canonical(),
            route: None,
            backend: None,
            decision: None,
            rule: None,
            status: client_gone(),
            sent_bytes: 0,
            error: None,
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

    /// The client, once the guard knows it.
    pub fn set_client(&mut self, client: IpAddr) {
        self.client = client;
    }

    /// The route's label.
    pub fn set_route(&mut self, label: Arc<str>) {
        self.route = Some(label);
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
            self.metrics.decision(route, rule.as_ref(), name);
        }
        self.decision = Some(name);
        self.rule = rule;
    }

    pub fn set_backend(&mut self, backend: SocketAddr) {
        self.backend = Some(backend);
    }

    /// Lets the record travel with the response, to be written at its end.
    pub fn finish(mut self: Box<Self>, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.status = response.status();
        response.map(|body| body.recorded(self))
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    pub(crate) fn broken(&mut self, error: &BodyError) {
        self.error = Some(error.to_string());
    }

    fn host(&self) -> &str {
        let in_target = self.uri.authority().map(|authority| authority.as_str());
        in_target.or_else(|| self.host.as_ref()?.to_str().ok()).unwrap_or("")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.metrics.request(self.route.as_deref().unwrap_or("none"), self.status, duration);
        // The query is left out: it may hold secrets.
        tracing::info!(
            target: TARGET,
            request_id = %self.id,
            client = %self.client,
            method = self.method.as_str(),
            host = cut(self.host()),
            path = cut(self.uri.path()),
            status = self.status.as_u16(),
            bytes = self.sent_bytes,
            duration_us = duration.as_micros() as u64,
            route = self.route.as_deref(),
            backend = self.backend.map(tracing::field::display),
            decision = self.decision,
            rule = self.rule.as_deref(),
            error = self.error.as_deref(),
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

/// Unique on this host: 64 random bits of the thread, and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    thread: u64,
    count: u64,
}

impl RequestId {
    fn next() -> RequestId {
        thread_local!(static NEXT: Cell<RequestId> = Cell::new(RequestId { thread: random_bits(), count: 0 }));
        let id = NEXT.get();
        NEXT.set(RequestId { count: id.count + 1, ..id });
        id
    }
}

fn random_bits() -> u64 {
    let mut bits = [0; 8];
    // An id is a name, no secret: without randomness, ids of two threads could be equal, and nothing worse.
    let _ = aws_lc_rs::rand::fill(&mut bits);
    u64::from_ne_bytes(bits)
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.thread, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ_within_and_between_threads() {
        let here = [RequestId::next(), RequestId::next()];
        let there = std::thread::spawn(RequestId::next).join().unwrap();
        assert_ne!(here[0], here[1]);
        assert_ne!(here[0].thread, there.thread);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let path = "/é".repeat(MAX_TEXT_BYTES);
        assert!(cut(&path).len() <= MAX_TEXT_BYTES);
        assert!(path.starts_with(cut(&path)));
        assert_eq!(cut("/short"), "/short");
    }
}
