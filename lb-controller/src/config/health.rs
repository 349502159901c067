//! How the health of backends is known.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{BackendProtocol, BackendTls};

use super::ProxyVersion;

/// Active health checks: a question that must be answered within `timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    pub kind: HealthKind,
    /// Checks of kind `http` and `grpc` go over TLS where requests do; `false`: never.
    pub tls: bool,
    /// Where it is asked; `None`: at the port that takes requests.
    pub port: Option<u16>,
    pub interval: Duration,
    /// While the backend is down.
    pub interval_down: Duration,
    /// Each interval is longer or shorter by up to so many hundredths of it, so that the checks of many edges do not meet.
    pub jitter_percent: u8,
    pub timeout: Duration,
    /// Good answers in a row that bring a backend back.
    pub rise: u32,
    /// Bad answers in a row that take it out.
    pub fall: u32,
    /// What a check begins with: that it is our own.
    pub send_proxy_protocol: Option<ProxyVersion>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// GET of this path.
    Http {
        path: String,
        /// In `Host`; `None`: the backend's address.
        host: Option<String>,
        /// Statuses that are good.
        expect: Vec<RangeInclusive<u16>>,
    },
    /// To take a connection is good.
    Tcp,
    /// `grpc.health.v1.Health/Check` over HTTP/2, of this service; empty: of the server as a whole.
    Grpc { service: String },
    /// A TLS handshake in which the backend proves who it is, to these settings; `None`: to those of its pool.
    Tls(Option<Box<BackendTls>>),
}

impl HealthKind {
    /// A GET of `path` that wants any 2xx.
    pub fn http(path: impl Into<String>) -> HealthKind {
        HealthKind::Http { path: path.into(), host: None, expect: vec![200..=299] }
    }
}

impl Default for HealthConfig {
    fn default() -> HealthConfig {
        HealthConfig {
            kind: HealthKind::http("/healthz"),
            tls: true,
            port: None,
            interval: Duration::from_secs(2),
            interval_down: Duration::from_secs(2),
            jitter_percent: 10,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            send_proxy_protocol: None,
        }
    }
}

/// Passive health: what requests tell of a backend. One that fails is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectionConfig {
    /// Failures in a row, of all clients; 0: any number.
    pub consecutive_failures: u32,
    /// Failures of a hundred requests within `window`; 0: any share.
    pub error_rate_percent: u8,
    pub window: Duration,
    /// Fewer requests within `window` say nothing of the rate.
    pub minimum_requests: u32,
    /// The first time; each further time so much longer.
    pub time: Duration,
    pub longest_time: Duration,
    /// Of a hundred backends of the pool, so many at most are ejected at once.
    pub most_ejected_percent: u8,
}

impl Default for EjectionConfig {
    fn default() -> EjectionConfig {
        EjectionConfig {
            consecutive_failures: 5,
            error_rate_percent: 0,
            window: Duration::from_secs(10),
            minimum_requests: 20,
            time: Duration::from_secs(30),
            longest_time: Duration::from_secs(300),
            most_ejected_percent: 50,
        }
    }
}

impl PoolLimits {
    /// Requests that one backend may have under way: over HTTP/1.1 each takes a connection.
    pub fn most_requests(&self, protocol: BackendProtocol) -> Option<u32> {
        let connections = self.connections_per_backend.filter(|_| !protocol.is_h2());
        match (self.requests_per_backend, connections) {
            (Some(requests), Some(connections)) => Some(requests.min(connections)),
            (requests, connections) => requests.or(connections),
        }
    }
}

/// What a pool's backends may have at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolLimits {
    /// Requests under way to one backend; `None`: any number.
    pub requests_per_backend: Option<u32>,
    /// Connections to one backend, of all workers together; `None`: any number.
    pub connections_per_backend: Option<u32>,
    /// Requests that may wait until a backend has room.
    pub queue_length: u32,
    pub queue_timeout: Duration,
}
