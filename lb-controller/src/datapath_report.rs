//! The datapath's state in the words of the reports: through an open reader, or from the pins of one that went on
//! without its controller.

pub mod samples;

use std::time::Duration;

use anyhow::Context;
use lb_datapath::{
    BackendCounters, BackendStatus, Forward, NatCounters, NatStatus, OpenError, Rate, Reader, Reason, Source, Stats,
    Verdict, WorkerCounters, open_pinned,
};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{
    Admitted, Backend, BackendL4, BackendWay, Cpu, Datapath, Decapsulation, Dropped, Interface, Limit, ListFamily,
    MapSize, Mark, Nat, Passed, Service, ServiceNat, SynCookies, Worker,
};

/// `None` when nothing is attached.
pub fn of_pins(instance: &Instance) -> Result<Option<Datapath>, Failure> {
    Ok(pinned(instance)?.map(|reader| of(&reader)).transpose()?)
}

pub fn backends_of_pins(instance: &Instance) -> Result<Vec<Backend>, Failure> {
    let Some(reader) = pinned(instance)? else {
        let why = anyhow::anyhow!("no controller runs and nothing is attached for instance {instance}");
        return Err(Failure::new(ExitKind::NotRunning, why));
    };
    let backends = reader.backends().map_err(anyhow::Error::from)?;
    Ok(backends
        .into_iter()
        .map(|backend| Backend {
            from: None,
            l7: None,
            ebpf: Some(backend.state.name().to_owned()),
            l4: Some(backend_l4(&backend)),
            address: backend.address,
            pool: backend.pool,
        })
        .collect())
}

/// The lists that the kernel holds; without a controller too.
pub fn lists_of_pins(instance: &Instance) -> Result<Vec<ListFamily>, Failure> {
    let Some(reader) = pinned(instance)? else {
        let why = anyhow::anyhow!("no controller runs and nothing is attached for instance {instance}");
        return Err(Failure::new(ExitKind::NotRunning, why));
    };
    Ok(lists(&reader)?)
}

pub fn lists(reader: &Reader) -> anyhow::Result<Vec<ListFamily>> {
    let families = ["ipv4", "ipv6"].into_iter().zip(reader.lists()?);
    let families = families.filter_map(|(family, status)| Some((family, status?)));
    families
        .map(|(family, status)| {
            Ok(ListFamily {
                family: family.to_owned(),
                denied: status.denied,
                allowed: status.allowed,
                memory_bytes: status.memory_bytes,
                loaded_at: OffsetDateTime::from(status.loaded_at).format(&Rfc3339)?,
            })
        })
        .collect()
}

/// What the maps tell of a backend, beside its state.
pub fn backend_l4(backend: &BackendStatus) -> BackendL4 {
    let way = backend.way.as_ref().map(|way| BackendWay {
        interface: way.interface.clone(),
        next_hop: way.next_hop_mac.map(|byte| format!("{byte:02x}")).join(":"),
        mtu_bytes: way.mtu_bytes,
    });
    let BackendCounters { packets, bytes, new_flows } = backend.counters;
    let server_ids = backend.server_ids.iter().map(ToString::to_string).collect();
    BackendL4 { weight: backend.weight, packets, bytes, new_flows, way, server_ids }
}

/// The state behind `reader`.
pub fn of(reader: &Reader) -> anyhow::Result<Datapath> {
    let stats = reader.stats()?;
    let moved = |verdict| stats.outcomes().filter(move |(reason, _, n)| reason.verdict() == verdict && *n > 0);
    let admitted = [Reason::Admitted, Reason::Prioritised, Reason::ProvenByCookie];
    Ok(Datapath {
        interfaces: reader
            .interfaces()
            .context("cannot read the pinned links")?
            .into_iter()
            .map(|interface| Interface { name: interface.name, mode: interface.mode.name().to_owned() })
            .collect(),
        services: services(reader, &stats)?,
        new_flows_per_second: Some(reader.new_flow_limit()?.per_second).filter(|per_second| *per_second > 0),
        admitted: moved(Verdict::Pass)
            .filter(|(reason, _, _)| admitted.contains(reason))
            .map(|(reason, class, packets)| Admitted {
                reason: reason.metric_name().to_owned(),
                class: class.metric_name().to_owned(),
                packets,
            })
            .collect(),
        dropped: moved(Verdict::Drop)
            .map(|(reason, class, packets)| Dropped {
                reason: reason.metric_name().to_owned(),
                class: class.metric_name().to_owned(),
                packets,
            })
            .collect(),
        others: stats
            .outcomes()
            .filter(|(reason, _, packets)| {
                reason.verdict() != Verdict::Drop && !admitted.contains(reason) && *packets > 0
            })
            .map(|(reason, class, packets)| Passed {
                reason: reason.metric_name().to_owned(),
                verdict: samples::verdict_name(reason.verdict()).to_owned(),
                class: class.metric_name().to_owned(),
                packets,
            })
            .collect(),
        cpus: cpus(&stats),
        samples: samples::account_of(&stats.samples),
        decapsulation: decapsulation(reader, &stats)?,
        nat: reader.nat()?.map(nat),
        workers: workers(&stats),
        verified: reader
            .verified_sources()?
            .into_iter()
            .filter_map(|verified| Some(mark(verified.source, verified.remaining?)))
            .collect(),
        blocked: reader.blocks()?.into_iter().map(|blocked| mark(blocked.source, blocked.remaining)).collect(),
        maps: reader.memory().iter().map(MapSize::from).collect(),
    })
}

fn decapsulation(reader: &Reader, stats: &Stats) -> anyhow::Result<Option<Decapsulation>> {
    Ok(reader.tier()?.map(|tier| Decapsulation {
        from: tier.from.iter().map(ToString::to_string).collect(),
        gue_port: tier.gue_port,
        ip_packets: stats.tunnels.ip_packets,
        gue_packets: stats.tunnels.gue_packets,
    }))
}

fn services(reader: &Reader, stats: &Stats) -> anyhow::Result<Vec<Service>> {
    let services = reader.services()?.into_iter().map(|service| {
        let counters = stats.services.get(&service.name).copied().unwrap_or_default();
        Service {
            endpoints: service.endpoints.iter().map(ToString::to_string).collect(),
            packets: counters.admitted_packets,
            bytes: counters.admitted_bytes,
            syns: counters.admitted_syns,
            dropped_packets: counters.dropped_packets,
            drops: counters.drops.all().map(|(class, packets)| (class.metric_name().to_owned(), packets)).collect(),
            limits: service.limits.in_force().into_iter().map(limit).collect(),
            syn_cookies: SynCookies {
                mode: service.syn_cookies.to_owned(),
                answering: service.is_answering,
                sent: counters.cookies.answered_syns,
                valid: counters.cookies.valid_cookies,
                bad: counters.cookies.bad_cookies,
            },
            nat: (service.forward == Forward::Nat).then_some(service_nat(counters.nat)),
            forward: service.forward.name().to_owned(),
            pool: service.pool,
            name: service.name,
        }
    });
    Ok(services.collect())
}

fn nat(status: NatStatus) -> Nat {
    Nat {
        in_use: status.in_use(),
        capacity: status.capacity,
        tcp: status.tcp,
        udp: status.udp,
        unproven: status.unproven,
        addresses: status.addresses,
        first_port: status.ports.0,
        last_port: status.ports.1,
    }
}

fn service_nat(counters: NatCounters) -> ServiceNat {
    let NatCounters { reply_packets, reply_bytes, refused_full, refused_no_port } = counters;
    ServiceNat { reply_packets, reply_bytes, refused_full, refused_no_port }
}

fn limit((scope, of, rate): (&str, &str, Rate)) -> Limit {
    Limit { scope: scope.to_owned(), of: of.to_owned(), per_second: rate.per_second, burst: rate.burst }
}

fn cpus(stats: &Stats) -> Vec<Cpu> {
    let cpus = stats.cpus.iter().enumerate().map(|(cpu, counters)| Cpu {
        cpu,
        packets: counters.packets,
        dropped_packets: counters.dropped_packets,
    });
    cpus.filter(|cpu| cpu.packets > 0).collect()
}

/// Workers that were ever given anything.
fn workers(stats: &Stats) -> Vec<Worker> {
    let busy = |(_, counters): &(u64, &WorkerCounters)| counters.picked_syns + counters.steered_connections > 0;
    let row = |(worker, counters): (u64, &WorkerCounters)| Worker {
        worker,
        syns_picked: counters.picked_syns,
        connections_steered: counters.steered_connections,
    };
    (0..).zip(&stats.workers).filter(busy).map(row).collect()
}

fn mark(source: Source, remaining: Duration) -> Mark {
    Mark { source: source.to_string(), remaining_seconds: remaining.as_secs() }
}

fn pinned(instance: &Instance) -> Result<Option<Reader>, Failure> {
    match open_pinned(&instance.pin_root()) {
        Ok(reader) => Ok(Some(reader)),
        Err(OpenError::NothingLoaded { .. }) => Ok(None),
        Err(error @ OpenError::Denied { .. }) => Err(Failure::new(ExitKind::Permission, error)),
        Err(error) => Err(Failure::new(ExitKind::Kernel, error)),
    }
}
