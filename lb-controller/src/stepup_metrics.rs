//! The step-up engine, the issuers it relies on, and its store in Prometheus' words, read at scrape time.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::audit;
use crate::edge::{Edge, Snapshot};

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
        let (snapshot, load, lag) = (edge.snapshot(), edge.step_up.load(), audit::lag());
        let store = edge.step_up.store();
        let counters = [
            (
                "session_cookies_refused",
                "Session cookies that did not open, had ended, or came twice",
                load.refused_cookies,
            ),
            ("audit_events_lost", "Audit events that found no room in memory, or on disk", audit::lost_events()),
            ("store_failures", "Reads and writes of the store that failed", store.failures()),
        ];
        for (name, help, value) in counters {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        let threat = edge.signals.threat().level(edge.clock.now());
        let gauges = [
            ("parked_requests", "Requests that wait for a step-up", load.parked_requests as f64),
            ("parked_bytes", "Bytes of the bodies that wait for a step-up", load.parked_bytes as f64),
            ("store_up", "1 while the last read or write of the store succeeded", f64::from(u8::from(store.is_up()))),
            ("audit_waiting_events", "Audit events that are not on disk yet", lag.waiting as f64),
            ("audit_lag_seconds", "Age of the oldest audit event that is being written", lag.seconds),
            ("policy_version", "Counts up with every configuration that took effect", snapshot.version as f64),
            ("threat_level", "0 normal, 1 elevated, 2 high, 3 critical", f64::from(threat as u8)),
        ];
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        issuers(&snapshot, &mut encoder)
    }
}

/// Each issuer with the labels `issuer`, its name in the configuration, and `for`: `login` or `tokens`.
fn issuers(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let peers: Vec<_> = snapshot.identities.peers().collect();
    let help = "Questions to identity providers and token issuers by result";
    let mut requests = encoder.encode_descriptor("idp_requests", help, None, MetricType::Counter)?;
    for (purpose, name, peer, _) in &peers {
        for (result, count) in peer.results() {
            let labels = [("issuer", *name), ("for", *purpose), ("result", result)];
            requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let help = "Seconds from a question to its answer";
    let mut seconds = encoder.encode_descriptor("idp_request_seconds", help, None, MetricType::Histogram)?;
    for (purpose, name, peer, _) in &peers {
        peer.seconds().encode(seconds.encode_family(&[("issuer", *name), ("for", *purpose)])?)?;
    }
    let help = "1 while the last answer could be used; absent until it was asked";
    let mut up = encoder.encode_descriptor("idp_up", help, None, MetricType::Gauge)?;
    for (purpose, name, peer, _) in &peers {
        if let Some(is_up) = peer.is_up() {
            ConstGauge::new(i64::from(is_up)).encode(up.encode_family(&[("issuer", *name), ("for", *purpose)])?)?;
        }
    }
    let help = "Age of the keys that an issuer's tokens are verified by; absent until they were fetched";
    let mut age = encoder.encode_descriptor("jwks_age_seconds", help, None, MetricType::Gauge)?;
    for (purpose, name, _, keys_age_seconds) in &peers {
        if let Some(seconds) = *keys_age_seconds {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            ConstGauge::new(seconds).encode(age.encode_family(&[("issuer", *name), ("for", *purpose)])?)?;
        }
    }
    Ok(())
}
