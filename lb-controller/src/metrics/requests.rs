//! Requests and their durations by route, counted without contention between workers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::per_worker::PerWorker;

/// Routes that a worker tells apart. Routes of replaced configurations stay counted, so an endless series of edits must end
/// somewhere; what comes after is counted as `other`.
const MAX_ROUTES: usize = 1_024;

/// Upper bounds in seconds, of routes and of backends alike: from a backend on the same host to the longest a backend may take.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
pub(super) struct Requests {
    by_route: PerWorker<HashMap<Box<str>, RouteCounts>>,
}

#[derive(Clone, Debug, Default)]
struct RouteCounts {
    label: Arc<str>,
    /// Those that came to the route, whether or not they have ended.
    begun: u64,
    ended: Answers,
}

/// Answers, by class of status and by how long they took.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    by_status_class: [u64; STATUS_CLASSES.len()],
    /// One more than the bounds: the last takes what exceeds them all.
    by_duration: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Requests {
    /// A request has come to its route. It ends on the thread that it began on. Returns the label as this thread has it: each
    /// request that takes it along counts those who hold it, and a count that all workers write to would travel from CPU to CPU.
    pub(super) fn begin(&self, route: &Arc<str>) -> Arc<str> {
        self.change(route, |counts| {
            counts.begun += 1;
            let is_its_own = *counts.label == **route;
            if is_its_own { counts.label.clone() } else { route.clone() }
        })
    }

    pub(super) fn count(&self, route: &str, status: StatusCode, duration: Duration) {
        self.change(route, |counts| counts.ended.add(status, duration));
    }

    fn change<T>(&self, route: &str, change: impl FnOnce(&mut RouteCounts) -> T) -> T {
        let mut by_route = self.by_route.mine();
        if let Some(counts) = by_route.get_mut(route) {
            return change(counts);
        }
        let route = if by_route.len() < MAX_ROUTES { route } else { "other" };
        let fresh = || RouteCounts { label: route.into(), ..RouteCounts::default() };
        change(by_route.entry(route.into()).or_insert_with(fresh))
    }

    fn totals(&self) -> HashMap<Box<str>, RouteCounts> {
        let mut totals: HashMap<Box<str>, RouteCounts> = HashMap::new();
        for by_route in self.by_route.all() {
            for (route, counts) in by_route.iter() {
                totals.entry(route.clone()).or_default().merge(counts);
            }
        }
        totals
    }
}

impl RouteCounts {
    fn merge(&mut self, other: &RouteCounts) {
        self.begun += other.begun;
        self.ended.merge(&other.ended);
    }

    /// None of those that came to no route: they are not counted when they begin.
    fn in_flight(&self) -> u64 {
        self.begun.saturating_sub(self.ended.count())
    }
}

impl Answers {
    pub(super) fn add(&mut self, status: StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.by_status_class[class] += 1;
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|&bound| seconds <= bound).unwrap_or(BUCKETS.len());
        self.by_duration[bucket] += 1;
        self.seconds += seconds;
    }

    pub(super) fn merge(&mut self, other: &Answers) {
        let sum = |into: &mut [u64], from: &[u64]| into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        sum(&mut self.by_status_class, &other.by_status_class);
        sum(&mut self.by_duration, &other.by_duration);
        self.seconds += other.seconds;
    }

    fn count(&self) -> u64 {
        self.by_duration.iter().sum()
    }

    /// Those classes that there were.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATUS_CLASSES.into_iter().zip(self.by_status_class).filter(|(_, count)| *count > 0)
    }

    pub(super) fn encode_seconds(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.by_duration).collect();
        encoder.encode_histogram::<NoLabelSet>(self.seconds, self.count(), &buckets, None)
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.totals();
        let help = "Requests by route and class of the response's status";
        let mut requests = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (route, counts) in &totals {
            for (class, count) in counts.ended.classes() {
                let labels = [("route", &**route), ("status", class)];
                requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Seconds from a request's header to the end of its response, by route";
        let mut durations = encoder.encode_descriptor("request_seconds", help, None, MetricType::Histogram)?;
        for (route, counts) in &totals {
            counts.ended.encode_seconds(durations.encode_family(&[("route", &**route)])?)?;
        }
        let help = "Requests that have come to the route and not ended, streams and tunnels among them";
        let mut in_flight = encoder.encode_descriptor("requests_in_flight", help, None, MetricType::Gauge)?;
        for (route, counts) in totals.iter().filter(|(_, counts)| counts.begun > 0) {
            in_flight.encode_family(&[("route", &**route)])?.encode_gauge(&(counts.in_flight() as i64))?;
        }
        Ok(())
    }
}
