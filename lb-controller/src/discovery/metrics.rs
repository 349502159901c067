//! What was found, in Prometheus' words.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Discovered;
use crate::report::DiscoveredPool;

/// Looks at scrape time.
#[derive(Debug)]
pub struct DiscoveryCollector(Arc<Discovered>);

impl DiscoveryCollector {
    pub fn new(discovered: Arc<Discovered>) -> DiscoveryCollector {
        DiscoveryCollector(discovered)
    }
}

type Gauge = (&'static str, &'static str, fn(&DiscoveredPool) -> i64);

const GAUGES: [Gauge; 4] = [
    ("discovered_backends", "Backends found, by pool, without those that drain", |pool| pool.backends as i64),
    ("discovery_stale", "1 while the last question had no good answer, and what was found before goes on", |pool| {
        pool.error.is_some().into()
    }),
    ("discovery_left_out", "Backends found beyond `most`", |pool| pool.left_out as i64),
    ("discovery_refused", "Addresses found that may be no backends", |pool| pool.refused.len() as i64),
];

impl Collector for DiscoveryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.0.list();
        if pools.is_empty() {
            return Ok(());
        }
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for pool in &pools {
                ConstGauge::new(value(pool)).encode(family.encode_family(&[("pool", pool.pool.as_str())])?)?;
            }
        }
        let help = "Questions without a good answer, by pool";
        let mut family = encoder.encode_descriptor("discovery_failures", help, None, MetricType::Counter)?;
        for pool in &pools {
            ConstCounter::new(pool.failures).encode(family.encode_family(&[("pool", pool.pool.as_str())])?)?;
        }
        Ok(())
    }
}
