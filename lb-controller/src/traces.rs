//! Distributed tracing: which trace a request is part of (W3C Trace Context), and spans of what was done for it, for a
//! collector that speaks OTLP. Without a collector there is nothing of it: headers pass as they come.

mod context;
mod export;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod otlp;
mod span;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub use context::{Parent, SpanId, TraceId};
use export::{Destination, Exporter};
use span::{Attribute, Kind, Span};

use crate::config::TracingConfig;
use crate::metrics::Metrics;
use crate::webhook::Endpoint;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Begins the traces of requests. Clones share what is in force; the default begins none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Arc<ArcSwapOption<Live>>);

/// A collector, and what goes there.
#[derive(Debug)]
struct Live {
    config: TracingConfig,
    exporter: Exporter,
}

/// What can be put in force.
#[derive(Debug)]
pub struct Prepared(Option<Arc<Live>>);

impl Tracer {
    /// Makes ready for `config`; nothing changes yet.
    ///
    /// # Errors
    /// The authorities that sign the collector's certificate cannot be used, or no thread can be started.
    pub fn prepare(&self, config: Option<&TracingConfig>, metrics: &Metrics) -> Result<Prepared> {
        let Some(config) = config else { return Ok(Prepared(None)) };
        if let Some(live) = self.0.load_full().filter(|live| live.config == *config) {
            return Ok(Prepared(Some(live)));
        }
        let endpoint = Endpoint::new(&config.endpoint).context("`tracing`: the collector cannot be used")?;
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = config.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let destination = Destination { endpoint, headers, service_name: config.service_name.clone() };
        let exporter = Exporter::start(destination, metrics.clone()).context("cannot start the thread of traces")?;
        Ok(Prepared(Some(Arc::new(Live { config: config.clone(), exporter }))))
    }

    /// Requests that begin from now on are traced so. Spans for another collector are handed over yet.
    pub fn put(&self, prepared: Prepared) {
        self.0.store(prepared.0);
    }

    /// Hands over what waits, before the process ends.
    pub fn flush(&self) {
        if let Some(live) = self.0.load_full() {
            live.exporter.flush();
        }
    }

    /// The trace of a request from `peer`, whose headers then name our span as the parent of whatever comes of it.
    ///
    /// Peers that are believed say which trace it is part of, and whether it is kept; others' traces are linked to, and
    /// nothing of them is passed on.
    pub fn begin(&self, peer: IpAddr, headers: &mut HeaderMap) -> Option<Box<Trace>> {
        let live = (*self.0.load()).clone()?;
        let named = named_parent(headers);
        let is_believed = live.config.continue_from.iter().any(|network| network.contains(&peer.to_canonical()));
        let (own, parent, link) = match named {
            Some(parent) if is_believed => (parent.with_span(SpanId::random()), Some(parent.span), None),
            named => {
                let ratio = live.config.ratio;
                let own = Parent::first(|trace| is_chosen(trace, ratio));
                (own, None, named.map(|named| (named.trace, named.span)))
            }
        };
        if parent.is_none() || !context::is_tracestate(headers.get_all(&TRACESTATE).iter().map(HeaderValue::as_bytes)) {
            headers.remove(&TRACESTATE);
        }
        name_parent(headers, own);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        let (started, spans) = (Instant::now(), Vec::new());
        Some(Box::new(Trace { live, own, parent, link, wall_ns, started, spans, open_tries: Vec::new(), tries: 0 }))
    }
}

/// One `traceparent`, and no second one that could be read instead.
fn named_parent(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    Parent::parse(only.as_bytes())
}

fn name_parent(headers: &mut HeaderMap, parent: Parent) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(parent.to_text())) {
        headers.insert(TRACEPARENT, value);
    }
}

/// The same choice on every host, and in every program that chooses by the id.
fn is_chosen(trace: TraceId, ratio: f64) -> bool {
    const PRECISION: u32 = 53;
    let share = (trace.share() >> (u64::BITS - PRECISION)) as f64 / (1_u64 << PRECISION) as f64;
    share < ratio
}

/// One request's part of a trace.
#[derive(Debug)]
pub struct Trace {
    live: Arc<Live>,
    /// Our span of it: from the request's head to the end of its response.
    own: Parent,
    parent: Option<SpanId>,
    link: Option<(TraceId, SpanId)>,
    /// When it started, since the epoch. All times of this trace are counted from there: a clock that is set while a
    /// request is under way turns no span round.
    wall_ns: u64,
    started: Instant,
    /// Those that have ended.
    spans: Vec<Span>,
    /// One; two while a second backend is asked as well.
    open_tries: Vec<OpenTry>,
    tries: u16,
}

#[derive(Debug)]
struct OpenTry {
    id: SpanId,
    started: Instant,
    method: String,
    backend: SocketAddr,
}

/// What came of a try at a backend.
#[derive(Clone, Copy, Debug)]
pub enum TryEnd {
    Answered(StatusCode),
    /// By a name that does not grow in number: `timeout`, `reset`, `connect`.
    Failed(&'static str),
}

impl TryEnd {
    /// Nobody waits for it any more.
    pub const GIVEN_UP: TryEnd = TryEnd::Failed("cancelled");
}

/// A request that has ended.
#[derive(Debug)]
pub struct RequestEnd<'a, Id> {
    pub method: &'a str,
    /// Its label; `None`: it came to no route.
    pub route: Option<&'a str>,
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// `1`, `1.1` or `2`.
    pub protocol_version: &'static str,
    pub client: IpAddr,
    pub status: StatusCode,
    pub bytes: u64,
    pub request_id: Id,
    pub decision: Option<&'static str>,
    pub rule: Option<&'a str>,
    /// The response broke off.
    pub is_broken: bool,
}

impl Trace {
    pub fn id(&self) -> TraceId {
        self.own.trace
    }

    /// Somebody keeps it.
    pub fn is_sampled(&self) -> bool {
        self.own.is_sampled
    }

    /// Something that was done here, from `since` until now.
    pub fn did(&mut self, what: &'static str, since: Instant) {
        if self.is_sampled() {
            let span = self.span(SpanId::random(), what.to_owned(), Kind::Internal, since);
            self.spans.push(span);
        }
    }

    /// A request goes to `backend` with these headers, which name the try as its parent.
    pub fn begin_try(&mut self, backend: SocketAddr, method: &str, headers: &mut HeaderMap) {
        if !self.is_sampled() {
            return;
        }
        let open = OpenTry { id: SpanId::random(), started: Instant::now(), method: method.to_owned(), backend };
        name_parent(headers, self.own.with_span(open.id));
        self.open_tries.push(open);
    }

    /// The try that was begun at `backend` has ended.
    pub fn end_try(&mut self, backend: SocketAddr, end: TryEnd) {
        if let Some(index) = self.open_tries.iter().position(|open| open.backend == backend) {
            let open = self.open_tries.remove(index);
            self.put_try(open, end);
        }
    }

    /// No connection to `backend` came about since the last thing that was done.
    pub fn not_connected(&mut self, backend: SocketAddr, method: &str, since: Instant) {
        if self.is_sampled() {
            let open = OpenTry { id: SpanId::random(), started: since, method: method.to_owned(), backend };
            self.put_try(open, TryEnd::Failed("connect"));
        }
    }

    fn put_try(&mut self, open: OpenTry, end: TryEnd) {
        let mut span = self.span(open.id, open.method.clone(), Kind::Client, open.started);
        span.attributes = vec![
            ("http.request.method", open.method.into()),
            ("server.address", open.backend.ip().to_string().into()),
            ("server.port", open.backend.port().into()),
        ];
        if self.tries > 0 {
            span.attributes.push(("http.request.resend_count", self.tries.into()));
        }
        match end {
            TryEnd::Answered(status) => {
                span.attributes.push(("http.response.status_code", status.as_u16().into()));
                if status.is_client_error() || status.is_server_error() {
                    span.attributes.push(("error.type", status.as_str().into()));
                    span.has_failed = true;
                }
            }
            TryEnd::Failed(why) => {
                span.attributes.push(("error.type", why.into()));
                span.has_failed = true;
            }
        }
        self.tries = self.tries.saturating_add(1);
        self.spans.push(span);
    }

    /// Hands all spans over, if anybody keeps them.
    pub fn end(mut self, end: &RequestEnd<'_, impl fmt::Display>) {
        if !self.is_sampled() {
            return;
        }
        for open in std::mem::take(&mut self.open_tries) {
            self.put_try(open, TryEnd::GIVEN_UP);
        }
        let name = end.route.map_or_else(|| end.method.to_owned(), |route| format!("{} {route}", end.method));
        let mut own = self.span(self.own.span, name, Kind::Server, self.started);
        (own.parent, own.link) = (self.parent, self.link);
        own.attributes = attributes(end);
        own.has_failed = end.status.is_server_error() || end.is_broken;
        let mut spans = std::mem::take(&mut self.spans);
        spans.push(own);
        self.live.exporter.send(spans);
    }

    /// A child of our span.
    fn span(&self, id: SpanId, name: String, kind: Kind, since: Instant) -> Span {
        Span {
            trace: self.own.trace,
            id,
            parent: Some(self.own.span),
            link: None,
            name,
            kind,
            start_ns: self.at_ns(since),
            end_ns: self.at_ns(Instant::now()),
            attributes: Vec::new(),
            has_failed: false,
        }
    }

    fn at_ns(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.started).as_nanos();
        self.wall_ns.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }
}

fn attributes(end: &RequestEnd<'_, impl fmt::Display>) -> Vec<Attribute> {
    let mut attributes: Vec<Attribute> = vec![
        ("http.request.method", end.method.into()),
        ("url.scheme", "https".into()),
        ("url.path", end.path.into()),
        ("server.address", end.host.into()),
        ("network.protocol.version", end.protocol_version.into()),
        ("client.address", end.client.to_string().into()),
        ("http.response.status_code", end.status.as_u16().into()),
        ("http.response.body.size", end.bytes.into()),
        ("lb.request_id", end.request_id.to_string().into()),
    ];
    let mut some = |name: &'static str, text: Option<&str>| {
        if let Some(text) = text {
            attributes.push((name, text.into()));
        }
    };
    some("http.route", end.route);
    some("lb.decision", end.decision);
    some("lb.rule", end.rule);
    match (end.is_broken, end.status.is_server_error()) {
        (true, _) => some("error.type", Some("broken_off")),
        (false, true) => some("error.type", Some(end.status.as_str())),
        (false, false) => {}
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_traces_are_chosen_as_were_asked_for() {
        for (ratio, at_least, at_most) in [(0.0, 0, 0), (1.0, 20_000, 20_000), (0.1, 1_500, 2_500)] {
            let chosen = (0..20_000).filter(|_| is_chosen(TraceId::random(), ratio)).count();
            assert!((at_least..=at_most).contains(&chosen), "{chosen} of 20,000 at {ratio}");
        }
    }

    #[test]
    fn without_a_collector_headers_stay_as_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("whatever"));
        headers.insert(TRACESTATE, HeaderValue::from_static("it, says"));
        let before = headers.clone();
        assert!(Tracer::default().begin("192.0.2.7".parse().unwrap(), &mut headers).is_none());
        assert_eq!(headers, before);
    }
}
