//! Deny and allow lists in Prometheus' words.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use lb_datapath::Listed;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::lists::{Lists, Source};

/// Asks the lists at scrape time.
pub struct ListsCollector {
    lists: Arc<Lists>,
}

impl ListsCollector {
    pub fn new(lists: Arc<Lists>) -> ListsCollector {
        ListsCollector { lists }
    }
}

impl fmt::Debug for ListsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListsCollector")
    }
}

impl Collector for ListsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(catalogue) = self.lists.in_force() else { return Ok(()) };
        let help = "Prefixes in force, those that stand in several files several times";
        let mut prefixes = encoder.encode_descriptor("list_prefixes", help, None, MetricType::Gauge)?;
        for (list, listed) in [("deny", Listed::Denied), ("allow", Listed::Allowed)] {
            let of_list = || catalogue.sources().iter().filter(|source| source.listed == listed);
            for (family, count) in [("ipv4", ipv4 as fn(&Source) -> usize), ("ipv6", ipv6)] {
                let gauge = ConstGauge::new(of_list().map(count).sum::<usize>() as i64);
                gauge.encode(prefixes.encode_family(&[("list", list), ("family", family)])?)?;
            }
        }
        let rows: [(&str, &str, i64); 3] = [
            ("list_kernel_bytes", "Kernel memory of the lists in force", catalogue.memory_bytes() as i64),
            (
                "list_loaded_timestamp_seconds",
                "When the lists in force were read",
                catalogue.loaded_at().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64),
            ),
            (
                "list_refused",
                "1 while the files of the lists are refused and earlier lists go on",
                self.lists.refusal().is_some().into(),
            ),
        ];
        for (name, help, value) in rows {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

fn ipv4(source: &Source) -> usize {
    source.ipv4
}

fn ipv6(source: &Source) -> usize {
    source.ipv6
}
