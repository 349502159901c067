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
    pub in_flight: u32,
    pub requests: u64,
    pub errors: u64,
}

/// Who knows the backends. Metrics know nobody, so that everybody may know them.
pub trait BackendSource: fmt::Debug + Send + Sync + 'static {
    fn samples(&self) -> Vec<BackendSample>;
}

#[derive(Debug, Default)]
pub(super) struct Backends(Mutex<Option<Box<dyn BackendSource>>>);

/// Name, help and how to read the value.
type Row = (&'static str, &'static str, fn(&BackendSample) -> u64);

const GAUGES: [Row; 2] = [
    ("backend_up", "1: takes requests; 0: taken out by health checks", |backend| u64::from(backend.up)),
    ("backend_in_flight", "Requests under way to the backend", |backend| u64::from(backend.in_flight)),
];

const COUNTERS: [Row; 2] = [
    ("backend_requests", "Requests sent to the backend, retries included", |backend| backend.requests),
    ("backend_errors", "Requests the backend failed: no connection, no answer, or a broken one", |backend| {
        backend.errors
    }),
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
        Ok(())
    }
}

fn labels(sample: &BackendSample) -> [(&'static str, String); 2] {
    [("pool", sample.pool.to_string()), ("backend", sample.address.to_string())]
}
