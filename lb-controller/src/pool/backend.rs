//! One server behind the edge. Everything the hot path touches is an atomic.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use lb_policy::UnixSeconds;
use serde::Serialize;

/// One backend of one pool. Healthy until its first health check says otherwise, so that an edge that just started
/// forwards at once.
#[derive(Debug)]
pub struct Backend {
    pub address: SocketAddr,
    healthy: AtomicBool,
    requests: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicU32,
    /// When health last changed, and the last error of a check or request. Off the hot path.
    history: Mutex<History>,
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
    /// Unix seconds of the last change of `healthy`.
    pub since: UnixSeconds,
    pub last_error: Option<String>,
    pub requests: u64,
    pub errors: u64,
    pub in_flight: u32,
}

/// A request on its way to a backend; counted until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

impl Backend {
    pub(super) fn new(address: SocketAddr) -> Arc<Backend> {
        Arc::new(Backend {
            address,
            healthy: AtomicBool::new(true),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            history: Mutex::new(History { since: now(), last_error: None }),
        })
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that were sent to it, retries included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that failed for want of a connection, a response header or the rest of a body.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Records the outcome of health checks; returns whether `healthy` is a change.
    pub fn set_healthy(&self, healthy: bool, error: Option<String>) -> bool {
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if changed {
            history.since = now();
        }
        if error.is_some() {
            history.last_error = error;
        }
        changed
    }

    /// Records a request that this backend failed.
    pub fn failed(&self, error: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.history.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(error);
    }

    pub fn view(&self, pool: &str) -> BackendView {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        BackendView {
            pool: pool.to_owned(),
            address: self.address,
            healthy: self.is_healthy(),
            since: history.since,
            last_error: history.last_error.clone(),
            requests: self.requests(),
            errors: self.errors(),
            in_flight: self.in_flight(),
        }
    }
}

impl InFlight {
    pub fn begin(backend: &Arc<Backend>) -> InFlight {
        backend.requests.fetch_add(1, Ordering::Relaxed);
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(backend.clone())
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For people to read; nothing is decided by it, so it needs no [`crate::clock::Clock`].
fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
