//! The XDP side in Prometheus' words, read from the maps at scrape time.

use std::fmt;

use lb_datapath::{
    BackendCounters, BackendStatus, CookieCounters, CpuCounters, DropClass, MapError, Reader, SampleCounters, Sampled,
    Stats, Verdict,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads the maps whenever Prometheus asks.
pub struct XdpCollector {
    reader: Reader,
}

impl XdpCollector {
    pub fn new(reader: Reader) -> XdpCollector {
        XdpCollector { reader }
    }
}

impl fmt::Debug for XdpCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XdpCollector")
    }
}

impl Collector for XdpCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self.reader.stats() {
            Ok(stats) => encode_stats(&mut encoder, &stats)?,
            Err(error) => return missing(&error),
        }
        match self.reader.backends() {
            Ok(backends) => encode_backends(&mut encoder, &backends)?,
            Err(error) => return missing(&error),
        }
        self.encode_limits(&mut encoder)?;
        self.encode_nat(&mut encoder)?;
        let marks = [
            (
                "verified",
                self.reader.verified_sources().map(|sources| sources.iter().filter(|s| s.remaining.is_some()).count()),
            ),
            ("blocked", self.reader.blocks().map(|blocks| blocks.len())),
        ];
        let mut sources = encoder.encode_descriptor("xdp_sources", "Sources marked in XDP", None, MetricType::Gauge)?;
        for (mark, count) in marks {
            let count = count.or_else(|error| missing(&error).map(|()| 0))?;
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(sources.encode_family(&[("mark", mark)])?)?;
        }
        Ok(())
    }
}

impl XdpCollector {
    fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let services = self.reader.services().or_else(|error| missing(&error).map(|()| Vec::new()))?;
        let help = "Limits in force, per second; who is over them is told by the reasons of dropped packets";
        let mut limits = encoder.encode_descriptor("xdp_limit_per_second", help, None, MetricType::Gauge)?;
        for service in &services {
            for (scope, of, rate) in service.limits.in_force() {
                let labels = [("service", service.name.as_str()), ("scope", scope), ("of", of)];
                let gauge = ConstGauge::new(i64::try_from(rate.per_second).unwrap_or(i64::MAX));
                gauge.encode(limits.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl XdpCollector {
    fn encode_nat(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(nat) = self.reader.nat().or_else(|error| missing(&error).map(|()| None))? else { return Ok(()) };
        let help = "Connections through NAT that are remembered, whether they are proven to be wanted or not";
        let mut connections = encoder.encode_descriptor("xdp_nat_connections", help, None, MetricType::Gauge)?;
        let gauge = |count: u64| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        for (protocol, count) in [("tcp", nat.tcp), ("udp", nat.udp)] {
            gauge(count).encode(connections.encode_family(&[("protocol", protocol)])?)?;
        }
        let rows = [
            ("xdp_nat_unproven_connections", "Those of them that are not proven to be wanted", nat.unproven),
            ("xdp_nat_capacity", "Connections through NAT that fit", nat.capacity),
        ];
        for (name, help, count) in rows {
            gauge(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

fn encode_stats(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let outcomes = || stats.outcomes().filter(|(_, _, packets)| *packets > 0);
    let passed = outcomes().filter(|(reason, _, _)| reason.verdict() == Verdict::Pass);
    let dropped = outcomes().filter(|(reason, _, _)| reason.verdict() == Verdict::Drop);
    let sent = outcomes().filter(|(reason, _, _)| matches!(reason.verdict(), Verdict::Transmit | Verdict::Redirect));
    let row = |(reason, class, packets): (lb_datapath::Reason, lb_datapath::SourceClass, u64)| {
        ([("reason", reason.metric_name()), ("class", class.metric_name())], packets)
    };
    counters(encoder, "xdp_passed_packets", "Packets passed by XDP", passed.map(row))?;
    counters(encoder, "xdp_dropped_packets", "Packets dropped by XDP", dropped.map(row))?;
    counters(encoder, "xdp_sent_packets", "Packets that XDP answered or sent on by itself", sent.map(row))?;

    let tunnels = [("ip", stats.tunnels.ip_packets), ("gue", stats.tunnels.gue_packets)];
    counters(
        encoder,
        "xdp_decapsulated_packets",
        "Packets taken out of the L4 tier's tunnels, whatever became of them then",
        tunnels
            .into_iter()
            .filter(|(_, packets)| *packets > 0)
            .map(|(tunnel, packets)| ([("tunnel", tunnel)], packets)),
    )?;

    let services = || stats.services.iter();
    counters(
        encoder,
        "xdp_service_packets",
        "Packets admitted to a service",
        services().map(|(name, counters)| ([("service", name.as_str())], counters.admitted_packets)),
    )?;
    counters(
        encoder,
        "xdp_service_bytes",
        "IP bytes admitted to a service",
        services().map(|(name, counters)| ([("service", name.as_str())], counters.admitted_bytes)),
    )?;
    counters(
        encoder,
        "xdp_service_dropped_packets",
        "Packets to a service that were dropped",
        services().map(|(name, counters)| ([("service", name.as_str())], counters.dropped_packets)),
    )?;
    encode_drops(encoder, stats)?;
    encode_cpus(encoder, stats)?;
    encode_samples(encoder, &stats.samples)?;
    encode_nat_counters(encoder, stats)?;
    encode_cookies(encoder, stats)
}

fn encode_drops(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let rows = stats.services.iter().flat_map(|(name, counters)| {
        let row = move |(class, packets): (DropClass, u64)| {
            ([("service", name.as_str()), ("class", class.metric_name())], packets)
        };
        counters.drops.all().map(row)
    });
    let help = "Packets to a service that were dropped, by why; those admitted that reached no backend too";
    counters(encoder, "xdp_service_drops", help, rows)
}

fn encode_cpus(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    type Row = (&'static str, &'static str, fn(&CpuCounters) -> u64);
    const ROWS: [Row; 2] = [
        ("xdp_cpu_packets", "Packets judged on a CPU", |counters| counters.packets),
        ("xdp_cpu_dropped_packets", "Packets dropped on a CPU", |counters| counters.dropped_packets),
    ];
    for (name, help, value) in ROWS {
        let rows = stats.cpus.iter().enumerate();
        counters(encoder, name, help, rows.map(|(cpu, counts)| ([("cpu", cpu.to_string())], value(counts))))?;
    }
    Ok(())
}

fn encode_samples(encoder: &mut DescriptorEncoder<'_>, samples: &SampleCounters) -> fmt::Result {
    let of_kind = |kind: &'static str, sampled: &Sampled| {
        let fates = [("written", sampled.written), ("lost", sampled.lost), ("not_chosen", sampled.not_chosen())];
        fates.map(|(fate, packets)| ([("kind", kind), ("fate", fate)], packets))
    };
    let rows = [of_kind("dropped", &samples.drops), of_kind("let_in", &samples.let_in)].into_iter().flatten();
    counters(encoder, "xdp_samples", "Packets that could have been sampled, by what became of that", rows)
}

fn encode_nat_counters(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let services = || stats.services.iter();
    counters(
        encoder,
        "xdp_nat_reply_packets",
        "Packets of backends sent to clients through NAT",
        services().map(|(name, counters)| ([("service", name.as_str())], counters.nat.reply_packets)),
    )?;
    counters(
        encoder,
        "xdp_nat_reply_bytes",
        "IP bytes of backends sent to clients through NAT",
        services().map(|(name, counters)| ([("service", name.as_str())], counters.nat.reply_bytes)),
    )?;
    let refused = services().flat_map(|(name, counters)| {
        [("full", counters.nat.refused_full), ("no_port", counters.nat.refused_no_port)]
            .map(|(reason, count)| ([("service", name.as_str()), ("reason", reason)], count))
    });
    counters(encoder, "xdp_nat_refused_connections", "Connections that NAT had no room or no port for", refused)
}

fn encode_cookies(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    type Row = (&'static str, &'static str, fn(&CookieCounters) -> u64);
    const ROWS: [Row; 4] = [
        ("xdp_syn_cookie_seen_syns", "SYNs to a service that may answer with cookies", |cookies| cookies.seen_syns),
        ("xdp_syn_cookie_sent", "SYNs answered with a cookie", |cookies| cookies.answered_syns),
        ("xdp_syn_cookie_valid", "Valid cookies that came back, of those looked at", |cookies| cookies.valid_cookies),
        ("xdp_syn_cookie_bad", "Packets dropped for want of a connection or a cookie", |cookies| cookies.bad_cookies),
    ];
    for (name, help, value) in ROWS {
        let rows = stats.services.iter();
        let rows = rows.map(|(name, counters)| ([("service", name.as_str())], value(&counters.cookies)));
        counters(encoder, name, help, rows)?;
    }
    Ok(())
}

fn encode_backends(encoder: &mut DescriptorEncoder<'_>, backends: &[BackendStatus]) -> fmt::Result {
    type Row = (&'static str, &'static str, fn(&BackendCounters) -> u64);
    const ROWS: [Row; 3] = [
        ("xdp_backend_packets", "Packets forwarded to a backend", |counters| counters.packets),
        ("xdp_backend_bytes", "IP bytes forwarded to a backend, as the clients sent them", |counters| counters.bytes),
        ("xdp_backend_new_flows", "Flows given to a backend as new", |counters| counters.new_flows),
    ];
    for (name, help, value) in ROWS {
        let rows = backends.iter().map(|backend| {
            let labels = [("pool", backend.pool.clone()), ("backend", backend.address.to_string())];
            (labels, value(&backend.counters))
        });
        counters(encoder, name, help, rows)?;
    }
    let help =
        "1: XDP knows the interface and next hop of the way to a backend; 0: the kernel is asked packet by packet";
    let mut family = encoder.encode_descriptor("xdp_backend_way_known", help, None, MetricType::Gauge)?;
    for backend in backends {
        let labels = [("pool", backend.pool.clone()), ("backend", backend.address.to_string())];
        ConstGauge::new(i64::from(backend.way.is_some())).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counters<Labels: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A scrape that lacks the XDP side must not look like one where nothing happened.
fn missing(error: &MapError) -> fmt::Result {
    tracing::warn!(%error, "XDP counters could not be read");
    Err(fmt::Error)
}
