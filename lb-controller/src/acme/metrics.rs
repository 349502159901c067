//! Orders in Prometheus' words.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Acme, Told};

/// Asks at scrape time.
#[derive(Debug)]
pub struct AcmeCollector(Arc<Told>);

impl AcmeCollector {
    pub fn new(acme: &Acme) -> AcmeCollector {
        AcmeCollector(acme.told.clone())
    }
}

impl Collector for AcmeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Certificates that this host ordered, by whether they came";
        let mut family = encoder.encode_descriptor("acme_orders", help, None, MetricType::Counter)?;
        for (result, count) in [("issued", &self.0.issued), ("failed", &self.0.failed)] {
            ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&[("result", result)])?)?;
        }
        let orders = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "When each certificate is to be ordered next, in Unix seconds";
        let mut family =
            encoder.encode_descriptor("acme_next_attempt_timestamp_seconds", help, None, MetricType::Gauge)?;
        for order in orders.values() {
            let Some(name) = order.names.first() else { continue };
            let gauge = ConstGauge::new(order.next_attempt_at as i64);
            gauge.encode(family.encode_family(&[("name", name.as_str())])?)?;
        }
        let help = "How many orders of each certificate failed in a row";
        let mut family = encoder.encode_descriptor("acme_failures_in_a_row", help, None, MetricType::Gauge)?;
        for order in orders.values() {
            let Some(name) = order.names.first() else { continue };
            let gauge = ConstGauge::new(i64::from(order.failures));
            gauge.encode(family.encode_family(&[("name", name.as_str())])?)?;
        }
        Ok(())
    }
}
