//! The step-up engine in Prometheus' words, read at scrape time.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::audit;
use crate::edge::Edge;

/// Holds the edge weakly: the edge holds the registry that holds this.
pub struct StepUpCollector(Weak<Edge>);

impl StepUpCollector {
    pub fn new(edge: &Arc<Edge>) -> StepUpCollector {
        StepUpCollector(Arc::downgrade(edge))
    }
}

impl fmt::Debug for StepUpCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepUpCollector")
    }
}

impl Collector for StepUpCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(edge) = self.0.upgrade() else { return Ok(()) };
        let load = edge.step_up.load();
        let refused = "Session cookies that did not open, had ended, or came twice";
        let counter = encoder.encode_descriptor("session_cookies_refused", refused, None, MetricType::Counter)?;
        ConstCounter::new(load.refused_cookies).encode(counter)?;
        let lost = "Audit events that found no room in memory, or on disk";
        let counter = encoder.encode_descriptor("audit_events_lost", lost, None, MetricType::Counter)?;
        ConstCounter::new(audit::lost_events()).encode(counter)?;
        let gauges = [
            ("parked_requests", "Requests that wait for a step-up", load.parked_requests),
            ("parked_bytes", "Bytes of the bodies that wait for a step-up", load.parked_bytes),
        ];
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}
