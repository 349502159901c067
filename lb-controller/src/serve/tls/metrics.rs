//! TLS in Prometheus' words.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Tls;

/// Asks at scrape time.
pub struct TlsCollector(Arc<Tls>);

impl TlsCollector {
    pub fn new(tls: Arc<Tls>) -> TlsCollector {
        TlsCollector(tls)
    }
}

impl fmt::Debug for TlsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsCollector")
    }
}

impl Collector for TlsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.handshakes.encode(&mut encoder)?;
        let certificates = self.0.certificates.list();
        let help = "When each certificate ends, in Unix seconds";
        let mut family =
            encoder.encode_descriptor("certificate_expiry_timestamp_seconds", help, None, MetricType::Gauge)?;
        for certificate in &certificates {
            let (Some(name), Some(ends)) = (certificate.names.first(), certificate.not_after) else { continue };
            let labels = [("name", name.as_str()), ("source", &certificate.source), ("file", &certificate.file)];
            ConstGauge::new(ends as i64).encode(family.encode_family(&labels)?)?;
        }
        let help = "Certificates whose files are refused as they are now, while an earlier certificate goes on";
        let refused = certificates.iter().filter(|certificate| certificate.refused.is_some()).count();
        let descriptor = encoder.encode_descriptor("certificates_refused", help, None, MetricType::Gauge)?;
        ConstGauge::new(refused as i64).encode(descriptor)?;
        let help = "New files of certificates, by whether they were taken or refused";
        let (taken, refused) = self.0.certificates.changes();
        let mut family = encoder.encode_descriptor("certificate_changes", help, None, MetricType::Counter)?;
        for (result, count) in [("taken", taken), ("refused", refused)] {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        let help = "Questions of a certificate authority that were answered";
        let mut family = encoder.encode_descriptor("acme_challenges_answered", help, None, MetricType::Counter)?;
        for (kind, count) in self.0.challenges.answered() {
            ConstCounter::new(count).encode(family.encode_family(&[("type", kind)])?)?;
        }
        let help = "Requests over plain HTTP, by whether they were sent to HTTPS";
        let mut family = encoder.encode_descriptor("plain_http_requests", help, None, MetricType::Counter)?;
        for (result, count) in self.0.plain_http.counts() {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}
