//! Connections, by worker: they show whether XDP's steering spreads them evenly.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

type ByWorker<Metric> = Family<[(&'static str, u64); 1], Metric>;

#[derive(Debug, Default)]
pub(super) struct Workers {
    accepted: ByWorker<Counter>,
    open: ByWorker<Gauge>,
    handshakes_failed: ByWorker<Counter>,
    known: Mutex<BTreeMap<usize, WorkerMetrics>>,
}

/// The counters of one worker, looked up once and then plain atomics.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    accepted: Counter,
    open: Gauge,
    handshakes_failed: Counter,
}

/// One worker as the admin side shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerView {
    pub worker: usize,
    pub accepted: u64,
    pub open: i64,
    pub handshakes_failed: u64,
}

impl WorkerMetrics {
    pub fn accepted(&self) {
        self.accepted.inc();
        self.open.inc();
    }

    pub fn closed(&self) {
        self.open.dec();
    }

    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}

impl Workers {
    pub(super) fn register(registry: &mut Registry) -> Workers {
        let workers = Workers::default();
        registry.register("connections_accepted", "TCP connections accepted, by worker", workers.accepted.clone());
        registry.register("connections_open", "Connections held open, by worker", workers.open.clone());
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or took too long, by worker",
            workers.handshakes_failed.clone(),
        );
        workers
    }

    pub(super) fn worker(&self, index: usize) -> WorkerMetrics {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let label = [("worker", index as u64)];
        let create = || WorkerMetrics {
            accepted: self.accepted.get_or_create_owned(&label),
            open: self.open.get_or_create_owned(&label),
            handshakes_failed: self.handshakes_failed.get_or_create_owned(&label),
        };
        known.entry(index).or_insert_with(create).clone()
    }

    pub(super) fn views(&self) -> Vec<WorkerView> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let view = |(&worker, metrics): (&usize, &WorkerMetrics)| WorkerView {
            worker,
            accepted: metrics.accepted.get(),
            open: metrics.open.get(),
            handshakes_failed: metrics.handshakes_failed.get(),
        };
        known.iter().map(view).collect()
    }
}
