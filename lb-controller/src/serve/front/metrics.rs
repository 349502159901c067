//! What stands before requests, counted. Labels are from closed lists, or pools of the configuration.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type By<const N: usize, Metric> = Family<[(&'static str, String); N], Metric>;

#[derive(Debug, Default)]
pub(super) struct Counts {
    proxy_headers: By<1, Counter>,
    refused: By<1, Counter>,
    h2_floods: Counter,
    passed: By<2, Counter>,
    passed_bytes: By<2, Counter>,
    passing: By<1, Gauge>,
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "PROXY headers of trusted peers: of a client, of nobody, or refused";
        registry.register("proxy_headers", help, self.proxy_headers.clone());
        let help = "Connections that were closed before anything was read, by reason";
        registry.register("connections_refused", help, self.refused.clone());
        let help = "h2 connections that were ended because of more frames than there is a reason for";
        registry.register("h2_floods", help, self.h2_floods.clone());
        let help = "Connections that were passed through, by their pool and how they ended";
        registry.register("passed_through_connections", help, self.passed.clone());
        let help = "Bytes that were passed through, by pool and direction";
        registry.register("passed_through_bytes", help, self.passed_bytes.clone());
        let help = "Connections that are being passed through";
        registry.register("passed_through_open", help, self.passing.clone());
    }

    pub(super) fn proxy_header(&self, result: &'static str) {
        self.proxy_headers.get_or_create(&[("result", result.to_owned())]).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    pub(super) fn flooded(&self) {
        self.h2_floods.inc();
    }

    pub(super) fn passing(&self, pool: &str) -> Gauge {
        self.passing.get_or_create_owned(&[("pool", pool.to_owned())])
    }

    /// Bytes as they move: a connection may last for days.
    pub(super) fn bytes(&self, pool: &str, direction: &'static str) -> Counter {
        self.passed_bytes.get_or_create_owned(&[("pool", pool.to_owned()), ("direction", direction.to_owned())])
    }

    pub(super) fn passed(&self, pool: &str, result: &'static str) {
        self.passed.get_or_create(&[("pool", pool.to_owned()), ("result", result.to_owned())]).inc();
    }
}
