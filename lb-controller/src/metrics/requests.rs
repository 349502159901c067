//! Requests and their durations by route, counted without contention between workers.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// More than the workers of any machine we know; two workers that share a shard merely wait for each other sometimes.
pub(crate) const SHARDS: usize = 64;

/// Routes a shard tells apart. Routes of replaced configurations stay counted, so an endless series of edits must end
/// somewhere; what comes after is counted as `other`.
const MAX_ROUTES: usize = 1_024;

/// Upper bounds in seconds: from a backend on the same host to the longest a backend may take.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One shard a worker, each behind a lock that only a scrape contends for.
#[derive(Debug)]
pub(super) struct Requests {
    shards: [Mutex<HashMap<Box<str>, RouteCounts>>; SHARDS],
}

#[derive(Clone, Debug, Default)]
struct RouteCounts {
    by_status_class: [u64; STATUS_CLASSES.len()],
    /// One more than the bounds: the last takes what exceeds them all.
    by_duration: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Requests {
    pub(super) fn count(&self, route: &str, status: StatusCode, duration: Duration) {
        let mut shard = self.shards[shard_of_this_thread()].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = shard.get_mut(route) {
            return counts.add(status, duration);
        }
        let route = if shard.len() < MAX_ROUTES { route } else { "other" };
        shard.entry(route.into()).or_default().add(status, duration);
    }

    fn totals(&self) -> HashMap<Box<str>, RouteCounts> {
        let mut totals: HashMap<Box<str>, RouteCounts> = HashMap::new();
        for shard in &self.shards {
            for (route, counts) in shard.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                totals.entry(route.clone()).or_default().merge(counts);
            }
        }
        totals
    }
}

/// The shard of whatever is counted or gathered by thread.
pub(crate) fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS));
    SHARD.get()
}

impl RouteCounts {
    fn add(&mut self, status: StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.by_status_class[class] += 1;
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|&bound| seconds <= bound).unwrap_or(BUCKETS.len());
        self.by_duration[bucket] += 1;
        self.seconds += seconds;
    }

    fn merge(&mut self, other: &RouteCounts) {
        let sum = |into: &mut [u64], from: &[u64]| into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        sum(&mut self.by_status_class, &other.by_status_class);
        sum(&mut self.by_duration, &other.by_duration);
        self.seconds += other.seconds;
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.totals();
        let help = "Requests by route and class of the response's status";
        let mut requests = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (route, counts) in &totals {
            for (class, &count) in STATUS_CLASSES.iter().zip(&counts.by_status_class).filter(|(_, count)| **count > 0) {
                let labels = [("route", &**route), ("status", *class)];
                requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Seconds from a request's header to the end of its response, by route";
        let mut durations = encoder.encode_descriptor("request_seconds", help, None, MetricType::Histogram)?;
        for (route, counts) in &totals {
            let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.by_duration).collect();
            let count = counts.by_duration.iter().sum();
            let labels = [("route", &**route)];
            durations.encode_family(&labels)?.encode_histogram::<NoLabelSet>(counts.seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}
