//! Backends of the current snapshot, read at scrape time from the counts that the proxy itself works with.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// One backend at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct BackendSample {
    pub pool: Arc<str>,
    pub address: SocketAddr,
    /// It takes requests.
    pub up: bool,
    /// Failing requests took it out for a while.
    pub ejected: bool,
    pub in_flight: u32,
    pub requests: u64,
    pub errors: u64,
    pub ejections: u64,
    pub connections: u32,
    pub connections_opened: u64,
    /// How many TLS handshakes ended how; none where there is no TLS.
    pub handshakes: Vec<(&'static str, u64)>,
}

/// One pool at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct PoolSample {
    pub pool: Arc<str>,
    /// Requests that wait until a backend has room.
    pub waiting: u32,
    /// Requests that were sent again, that were not for want of a budget, and those of the former that were hedges.
    pub retries: [u64; 3],
    /// How far it reaches for backends.
    pub reach: &'static str,
}

/// Who knows the backends. Metrics know nobody, so that everybody may know them.
pub trait BackendSource: fmt::Debug + Send + Sync + 'static {
    fn samples(&self) -> Vec<BackendSample>;
    fn pools(&self) -> Vec<PoolSample>;
}

#[derive(Debug, Default)]
pub(super) struct Backends(Mutex<Option<Box<dyn BackendSource>>>);

/// Name, help and how to read the value.
type Row = (&'static str, &'static str, fn(&BackendSample) -> u64);

const GAUGES: [Row; 4] = [
    ("backend_ejected", "1: left alone for a while because requests failed", |backend| u64::from(backend.ejected)),
    ("backend_up", "1: takes requests; 0: taken out by health checks", |backend| u64::from(backend.up)),
    ("backend_connections", "Connections that are open, idle ones included", |backend| u64::from(backend.connections)),
    ("backend_in_flight", "Requests under way to the backend", |backend| u64::from(backend.in_flight)),
];

const COUNTERS: [Row; 4] = [
    ("backend_ejections", "How often it was left alone because requests failed", |backend| backend.ejections),
    ("backend_requests", "Requests sent to the backend, retries included", |backend| backend.requests),
    ("backend_errors", "Requests the backend failed: no connection, no answer, or a broken one", |backend| {
        backend.errors
    }),
    ("backend_connections_opened", "Connections that were opened for requests", |backend| backend.connections_opened),
];

/// By their place in [`PoolSample::retries`].
const RETRIES: [(&str, &str); 3] = [
    ("pool_retries", "Requests that were sent a second time, hedges included"),
    ("pool_retries_denied", "Requests that would have been sent again, but for the budget of retries"),
    ("pool_hedges", "Requests for which a second backend was asked while the first was still to answer"),
];

impl Backends {
    pub(super) fn show(&self, source: Box<dyn BackendSource>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }
}

impl Collector for Backends {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = source.as_ref().map(|source| source.samples()).unwrap_or_default();
        let pools = source.as_ref().map(|source| source.pools()).unwrap_or_default();
        drop(source);
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for sample in &samples {
                metric.encode_family(&labels(sample))?.encode_gauge(&(value(sample) as i64))?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for sample in &samples {
                metric.encode_family(&labels(sample))?.encode_counter::<NoLabelSet, _, u64>(&value(sample), None)?;
            }
        }
        let help = "TLS handshakes with the backend, by what came of them: full, resumed, untrusted or failed";
        let mut metric = encoder.encode_descriptor("backend_tls_handshakes", help, None, MetricType::Counter)?;
        for sample in &samples {
            let [pool, backend] = labels(sample);
            for (result, count) in &sample.handshakes {
                let labels = [pool.clone(), backend.clone(), ("result", (*result).to_owned())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let help = "Requests that wait until a backend has room";
        let mut metric = encoder.encode_descriptor("pool_waiting", help, None, MetricType::Gauge)?;
        for pool in &pools {
            metric.encode_family(&[("pool", &*pool.pool)])?.encode_gauge(&i64::from(pool.waiting))?;
        }
        for (index, (name, help)) in RETRIES.into_iter().enumerate() {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for pool in &pools {
                let labels = [("pool", &*pool.pool)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&pool.retries[index], None)?;
            }
        }
        let help = "1 for how far the pool reaches for backends: near, all_zones, backups, panic or nobody";
        let mut metric = encoder.encode_descriptor("pool_reach", help, None, MetricType::Gauge)?;
        for pool in &pools {
            metric.encode_family(&[("pool", &*pool.pool), ("reach", pool.reach)])?.encode_gauge(&1_i64)?;
        }
        Ok(())
    }
}

fn labels(sample: &BackendSample) -> [(&'static str, String); 2] {
    [("pool", sample.pool.to_string()), ("backend", sample.address.to_string())]
}
