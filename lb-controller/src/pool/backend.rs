//! One server behind the edge. Everything the hot path touches is an atomic.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use lb_policy::UnixSeconds;
use serde::Serialize;

use super::connections::Connections;
use super::ejection::Ejections;
use super::gate::RoutePlace;
use super::latency::Latency;
use super::shared::{Apart, Shared};
use super::tls::Handshake;
use crate::clock::coarse_monotonic;
use crate::config::EjectionConfig;

/// One backend of one pool. Healthy until its first health check says otherwise, so that an edge that just started
/// forwards at once.
///
/// The counts come first and the rest stands apart from them: an [`Arc`] keeps its own count in front, which every request
/// writes too, so workers that share a backend pass one cache line to each other and not three. What they only read is on
/// lines that all of them keep.
#[derive(Debug)]
#[repr(C)]
pub struct Backend {
    counts: Counts,
    _apart: Apart,
    pub address: SocketAddr,
    healthy: AtomicBool,
    /// When it last became available, in milliseconds of [`now_ms`]; 0: it has been so from the start.
    available_since_ms: AtomicU64,
    ejected: AtomicBool,
    shared: Arc<Shared>,
    ejections: Mutex<Ejections>,
    connections: Connections,
    /// By their place in [`Handshake::ALL`].
    handshakes: [AtomicU64; Handshake::ALL.len()],
    /// When health last changed, and the last error of a check or request. Off the hot path.
    history: Mutex<History>,
}

/// Written with every request.
#[derive(Debug, Default)]
struct Counts {
    in_flight: AtomicU32,
    requests: AtomicU64,
    errors: AtomicU64,
    /// Errors, and answers by which a gateway says that it got none.
    failures: AtomicU64,
    failures_in_a_row: AtomicU32,
    latency: Latency,
}

#[derive(Debug)]
struct History {
    since: UnixSeconds,
    last_error: Option<String>,
}

/// One row of `lb-controller backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendView {
    pub pool: String,
    pub address: SocketAddr,
    pub healthy: bool,
    /// Whether it gets new requests, and why not; see [`crate::report::BackendL7`].
    pub state: &'static str,
    /// Unix seconds of the last change of `healthy`.
    pub since: UnixSeconds,
    pub last_error: Option<String>,
    pub requests: u64,
    pub errors: u64,
    pub in_flight: u32,
    /// Expected time to a response's head in microseconds, where the pool goes by it and some are known.
    pub latency_us: Option<u32>,
}

/// A request on its way to a backend; counted until dropped.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    /// When it was sent, where that matters.
    sent: Option<Instant>,
    /// Within its route's limit, where it has one.
    route_place: Option<RoutePlace>,
}

/// Milliseconds of a clock that nobody sets.
pub(super) fn now_ms() -> u64 {
    // From 1: 0 stands for "never".
    coarse_monotonic().as_millis() as u64 + 1
}

impl Backend {
    /// `shared` is what the backends of a pool have in common. `is_late`: others have served before it came.
    pub(super) fn new(address: SocketAddr, shared: Arc<Shared>, is_late: bool) -> Arc<Backend> {
        Arc::new(Backend {
            counts: Counts::default(),
            _apart: Apart::default(),
            address,
            healthy: AtomicBool::new(true),
            available_since_ms: AtomicU64::new(if is_late { now_ms() } else { 0 }),
            ejected: AtomicBool::new(false),
            shared,
            ejections: Mutex::default(),
            connections: Connections::default(),
            handshakes: Default::default(),
            history: Mutex::new(History { since: now(), last_error: None }),
        })
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// It may take requests, whether or not its pool lets it.
    pub fn is_available(&self) -> bool {
        self.is_healthy() && !self.is_ejected()
    }

    /// Requests failed, so it is left alone for a while.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether one more request may be under way to it.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.shared.most_requests()
    }

    pub fn in_flight(&self) -> u32 {
        self.counts.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that were sent to it, retries included.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Requests that failed for want of a connection, a response header or the rest of a body.
    pub fn errors(&self) -> u64 {
        self.counts.errors.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn most_connections(&self) -> u32 {
        self.shared.most_connections()
    }

    /// One more ended so.
    pub fn shook_hands(&self, handshake: Handshake) {
        self.handshakes[handshake as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many ended how.
    pub(super) fn handshakes(&self) -> [(&'static str, u64); Handshake::ALL.len()] {
        Handshake::ALL.map(|handshake| (handshake.name(), self.handshakes[handshake as usize].load(Ordering::Relaxed)))
    }

    /// Errors, and answers by which a gateway says that it got none.
    pub(super) fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }

    /// How often it was left alone.
    pub fn ejections(&self) -> u64 {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.counts.latency
    }

    pub(super) fn available_since_ms(&self) -> u64 {
        self.available_since_ms.load(Ordering::Relaxed)
    }

    /// Records the outcome of health checks; returns whether `healthy` is a change. What requests go by follows with the
    /// pool's next [`super::Pool::refresh`].
    pub fn set_healthy(&self, healthy: bool, error: Option<String>) -> bool {
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if changed {
            history.since = now();
            if healthy {
                self.available_since_ms.store(now_ms(), Ordering::Relaxed);
            }
            self.shared.changed();
        }
        if error.is_some() {
            history.last_error = error;
        }
        changed
    }

    /// Records a request that this backend failed.
    pub fn failed(&self, error: String) {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        if self.shared.measures_latency() {
            self.counts.latency.failed(now_ms());
        }
        self.say(error.clone());
        self.count_failure(&error);
    }

    fn say(&self, error: String) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(error);
    }

    fn count_failure(&self, what: &str) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.counts.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if in_a_row >= self.shared.most_failures_in_a_row() {
            self.eject(&format!("{in_a_row} failures in a row, the last: {what}"));
        }
    }

    /// Leaves it alone for a while, unless too many are already, or none is to be. `why` is for people to read.
    pub(super) fn eject(&self, why: &str) {
        let Some(config) = &**self.shared.ejection() else { return };
        if self.is_ejected() || !self.shared.take_ejection() {
            return;
        }
        let time = self.ejections.lock().unwrap_or_else(PoisonError::into_inner).begin(now_ms(), config);
        self.ejected.store(true, Ordering::Relaxed);
        tracing::warn!(address = %self.address, why, time_ms = time.as_millis() as u64, "backend is left alone for a while");
        self.say(format!("left alone for {time:?}: {why}"));
        self.shared.changed();
    }

    /// What time does to a backend that was left alone, and what its share of failures leads to.
    pub(super) fn tend(&self, now_ms: u64, config: Option<&EjectionConfig>) {
        if config.is_none() && !self.is_ejected() {
            return;
        }
        let mut ejections = self.ejections.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = self.is_ejected() && (config.is_none() || ejections.is_over(now_ms));
        if is_over {
            ejections.end(now_ms);
            self.counts.failures_in_a_row.store(0, Ordering::Relaxed);
            self.available_since_ms.store(now_ms, Ordering::Relaxed);
            self.ejected.store(false, Ordering::Relaxed);
            tracing::info!(address = %self.address, "backend is tried again");
            self.shared.changed();
        }
        let Some(config) = config else { return };
        ejections.forgive(now_ms, config);
        let why = ejections.judge(now_ms, (self.requests(), self.failures()), config);
        drop(ejections);
        if let Some(why) = why {
            self.eject(&why);
        }
    }

    /// `state` is what its pool makes of it.
    pub(super) fn view(&self, pool: &str, state: &'static str) -> BackendView {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        BackendView {
            pool: pool.to_owned(),
            address: self.address,
            healthy: self.is_healthy(),
            state,
            since: history.since,
            last_error: history.last_error.clone(),
            requests: self.requests(),
            errors: self.errors(),
            in_flight: self.in_flight(),
            latency_us: if self.shared.measures_latency() { self.latency().expected_us(now_ms()) } else { None },
        }
    }
}

impl InFlight {
    /// `None`: it has as many as it may have.
    pub(super) fn try_begin(backend: &Arc<Backend>) -> Option<InFlight> {
        let most = backend.shared.most_requests();
        let begun = InFlight::begin(backend);
        // Counted first and looked at then: of workers that race for the last place, no two have it.
        (backend.in_flight() <= most).then_some(begun)
    }

    /// Counts from now on, so that whoever picks next sees it; whether or not it has room.
    pub fn begin(backend: &Arc<Backend>) -> InFlight {
        backend.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { backend: backend.clone(), sent: None, route_place: None }
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Keeps the request's place within its route's limit to its end.
    pub fn keep(&mut self, place: Option<RoutePlace>) {
        self.route_place = place;
    }

    /// A connection was found, and the request goes out.
    pub fn sent(&mut self, at: Instant) {
        self.backend.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.sent = self.backend.shared.measures_latency().then_some(at);
    }

    /// The head of its response has come.
    pub fn answered(&mut self, status: StatusCode) {
        if let Some(sent) = self.sent.take() {
            self.backend.latency().observe(now_ms(), sent.elapsed());
        }
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                self.backend.count_failure(&format!("answered {status}"));
            }
            // Only looked at as a rule: another worker has the line to write to.
            _ if self.backend.counts.failures_in_a_row.load(Ordering::Relaxed) != 0 => {
                self.backend.counts.failures_in_a_row.store(0, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.backend.counts.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.backend.shared.queue().freed();
    }
}

/// For people to read; nothing is decided by it, so it needs no [`crate::clock::Clock`].
fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
