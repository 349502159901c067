//! Answers of backends, counted without contention between workers.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use lb_common::maps::MAX_BACKENDS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::per_worker::PerWorker;
use super::requests::Answers;

/// Backends that a worker tells apart. Those of replaced configurations stay counted; what comes after so many is not.
const MOST_BACKENDS: usize = MAX_BACKENDS;

#[derive(Debug, Default)]
pub(super) struct BackendAnswers(PerWorker<HashMap<SocketAddr, ByPool>>);

/// An address stands in a pool or two.
type ByPool = Vec<(Arc<str>, Answers)>;

impl BackendAnswers {
    /// `after`: from when the request was sent to the head of its answer.
    pub(super) fn count(&self, pool: &Arc<str>, backend: SocketAddr, status: StatusCode, after: Duration) {
        let mut counts = self.0.mine();
        let is_full = counts.len() >= MOST_BACKENDS;
        let of_address = match counts.get_mut(&backend) {
            Some(of_address) => of_address,
            None if is_full => return,
            None => counts.entry(backend).or_default(),
        };
        if let Some((_, answers)) = of_address.iter_mut().find(|(known, _)| known == pool) {
            return answers.add(status, after);
        }
        if of_address.len() < MOST_BACKENDS {
            of_address.push((pool.clone(), Answers::default()));
        }
        if let Some((_, answers)) = of_address.last_mut() {
            answers.add(status, after);
        }
    }

    fn totals(&self) -> HashMap<(Arc<str>, SocketAddr), Answers> {
        let mut totals: HashMap<_, Answers> = HashMap::new();
        for counts in self.0.all() {
            for (backend, of_address) in counts.iter() {
                for (pool, answers) in of_address {
                    totals.entry((pool.clone(), *backend)).or_default().merge(answers);
                }
            }
        }
        totals
    }
}

impl Collector for BackendAnswers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.totals();
        let labels =
            |(pool, backend): &(Arc<str>, SocketAddr)| [("pool", pool.to_string()), ("backend", backend.to_string())];
        let help = "Answers of a backend by class of status, those that were tried again included";
        let mut responses = encoder.encode_descriptor("backend_responses", help, None, MetricType::Counter)?;
        for (of, answers) in &totals {
            let [pool, backend] = labels(of);
            for (class, count) in answers.classes() {
                let labels = [pool.clone(), backend.clone(), ("status", class.to_owned())];
                responses.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Seconds from when a request was sent to a backend to the head of its answer";
        let mut seconds = encoder.encode_descriptor("backend_response_seconds", help, None, MetricType::Histogram)?;
        for (of, answers) in &totals {
            answers.encode_seconds(seconds.encode_family(&labels(of))?)?;
        }
        Ok(())
    }
}
