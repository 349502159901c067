//! Connections, by worker: they show whether XDP's steering spreads them evenly.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

type Ratio = Gauge<f64, AtomicU64>;
type ByWorker<Metric> = Family<[(&'static str, u64); 1], Metric>;

#[derive(Debug, Default)]
pub(super) struct Workers {
    accepted: ByWorker<Counter>,
    accept_errors: ByWorker<Counter>,
    open: ByWorker<Gauge>,
    handshakes_failed: ByWorker<Counter>,
    queueing_delay: ByWorker<Ratio>,
    shedding: Family<[(&'static str, String); 2], Ratio>,
    known: Mutex<BTreeMap<usize, WorkerMetrics>>,
}

/// The counters of one worker, looked up once and then plain atomics.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    accepted: Counter,
    accept_errors: Counter,
    open: Gauge,
    handshakes_failed: Counter,
    queueing_delay: Ratio,
    worker: usize,
    shedding: Family<[(&'static str, String); 2], Ratio>,
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

    /// One that waits could not be accepted: descriptors or memory are used up.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }

    pub fn closed(&self) {
        self.open.dec();
    }

    /// All that this worker does waits for so long.
    pub fn waits(&self, delay: Duration) {
        self.queueing_delay.set(delay.as_secs_f64());
    }

    /// It leaves out so much of a share of the requests, from 0 to 1.
    pub fn sheds(&self, share: &'static str, ratio: f64) {
        let labels = [("worker", self.worker.to_string()), ("share", share.to_owned())];
        self.shedding.get_or_create(&labels).set(ratio);
    }

    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}

impl Workers {
    pub(super) fn register(registry: &mut Registry) -> Workers {
        let workers = Workers::default();
        registry.register("connections_accepted", "TCP connections accepted, by worker", workers.accepted.clone());
        let help = "Times that a connection could not be accepted and went on waiting, by worker";
        registry.register("accept_errors", help, workers.accept_errors.clone());
        registry.register("connections_open", "Connections held open, by worker", workers.open.clone());
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or took too long, by worker",
            workers.handshakes_failed.clone(),
        );
        let help = "How long all that a worker does waits for its turn, by worker";
        registry.register("worker_queueing_delay_seconds", help, workers.queueing_delay.clone());
        let help = "How much of the requests an overloaded worker leaves out, from 0 to 1";
        registry.register("worker_shed_ratio", help, workers.shedding.clone());
        workers
    }

    pub(super) fn worker(&self, index: usize) -> WorkerMetrics {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let label = [("worker", index as u64)];
        let create = || WorkerMetrics {
            accepted: self.accepted.get_or_create_owned(&label),
            accept_errors: self.accept_errors.get_or_create_owned(&label),
            open: self.open.get_or_create_owned(&label),
            handshakes_failed: self.handshakes_failed.get_or_create_owned(&label),
            queueing_delay: self.queueing_delay.get_or_create_owned(&label),
            worker: index,
            shedding: self.shedding.clone(),
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
