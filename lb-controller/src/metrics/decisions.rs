//! Decisions by route and rule, and what deciding takes. Counted for every request, so without contention between workers.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::histogram::Histogram;
use super::per_worker::PerWorker;

/// Series that a worker tells apart: some for each rule. Rules of replaced configurations stay counted, so an endless series
/// of edits must end somewhere; what comes after is counted under the rule `other`.
const MOST_SERIES: usize = 4_096;

/// Reading the clock twice costs what a rule or two do, so only one in so many is timed.
const TIMED_ONE_IN: u32 = 64;

/// Upper bounds in seconds: a decision by ten rules takes about a microsecond.
const BOUNDS: [f64; 10] = [2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 1e-2];

/// The rule that stood in the way, if one did, and what was decided.
type Key = (Option<Arc<str>>, &'static str);

#[derive(Debug)]
pub(super) struct Decisions {
    counts: PerWorker<Counts>,
    seconds: Histogram,
}

#[derive(Debug, Default)]
struct Counts {
    by_route: HashMap<Arc<str>, HashMap<Key, u64>>,
    series: usize,
}

impl Default for Decisions {
    fn default() -> Decisions {
        Decisions { counts: PerWorker::default(), seconds: Histogram::new(&BOUNDS) }
    }
}

impl Decisions {
    /// Takes memory for what was not counted before, and for nothing else.
    pub(super) fn count(&self, route: &Arc<str>, rule: Option<&Arc<str>>, decision: &'static str) {
        let mut counts = self.counts.mine();
        let Counts { by_route, series } = &mut *counts;
        let key = (rule.cloned(), decision);
        if let Some(count) = by_route.get_mut(route).and_then(|counts| counts.get_mut(&key)) {
            *count += 1;
            return;
        }
        let is_full = *series >= MOST_SERIES;
        let (route, key) =
            if is_full { ("other".into(), (Some("other".into()), decision)) } else { (route.clone(), key) };
        *series += usize::from(!is_full);
        *by_route.entry(route).or_default().entry(key).or_default() += 1;
    }

    /// Runs `decide`, now and then by the clock.
    pub(super) fn timed<T>(&self, decide: impl FnOnce() -> T) -> T {
        thread_local!(static UNTIMED: Cell<u32> = const { Cell::new(0) });
        let untimed = UNTIMED.get();
        UNTIMED.set((untimed + 1) % TIMED_ONE_IN);
        if untimed != 0 {
            return decide();
        }
        let started = Instant::now();
        let decision = decide();
        self.seconds.observe(started.elapsed().as_secs_f64());
        decision
    }

    fn totals(&self) -> HashMap<(Arc<str>, Key), u64> {
        let mut totals = HashMap::new();
        for counts in self.counts.all() {
            for (route, counts) in &counts.by_route {
                for (key, count) in counts {
                    *totals.entry((route.clone(), key.clone())).or_default() += count;
                }
            }
        }
        totals
    }
}

impl Collector for Decisions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests by what the rules decided, and the first rule that stood in the way";
        let mut decisions = encoder.encode_descriptor("decisions", help, None, MetricType::Counter)?;
        for ((route, (rule, decision)), count) in self.totals() {
            let labels = [("route", &*route), ("rule", rule.as_deref().unwrap_or_default()), ("decision", decision)];
            decisions.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let help = "Seconds that a decision took, of one in 64";
        let seconds = encoder.encode_descriptor("decision_seconds", help, None, MetricType::Histogram)?;
        self.seconds.encode(seconds)
    }
}
