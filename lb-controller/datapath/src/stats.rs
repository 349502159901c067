//! Counters, summed over CPUs.

use std::collections::BTreeMap;

use lb_common::maps::MAX_WORKERS;
use lb_common::types::{
    BackendCounters as BackendEntry, CookieCounters as CookieEntry, NatCounters as NatEntry, Sampler,
    ServiceCounters as ServiceEntry, ServiceDrops as DropsEntry, TunnelCounters as TunnelEntry,
    WorkerCounters as WorkerEntry,
};
use lb_common::{DropClass, Reason, SourceClass, Verdict};

use crate::error::MapError;
use crate::maps::Maps;

/// One look at all counters. They only grow, except that a removed service's start anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// By [`Reason::counter`].
    outcomes: Vec<u64>,
    /// By name.
    pub services: BTreeMap<String, ServiceCounters>,
    /// By worker number.
    pub workers: Vec<WorkerCounters>,
    pub tunnels: TunnelCounters,
    /// By number of the CPU, of all that the machine may have.
    pub cpus: Vec<CpuCounters>,
    pub samples: SampleCounters,
}

/// Packets of the L4 tier that were taken out of their tunnels, whatever became of them then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelCounters {
    /// Of IP in IP.
    pub ip_packets: u64,
    pub gue_packets: u64,
}

/// Packets that one CPU judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// All, dropped ones too.
    pub packets: u64,
    pub dropped_packets: u64,
}

/// What became of the packets that could have been sampled: each was written, lost, or not chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounters {
    pub drops: Sampled,
    /// Packets let in that are this load balancer's business.
    pub let_in: Sampled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    pub seen: u64,
    /// Into the ring, for whoever reads it.
    pub written: u64,
    /// Chosen, but the ring was full.
    pub lost: u64,
}

impl Sampled {
    /// Passed by, as the policy and the rate have it.
    pub fn not_chosen(&self) -> u64 {
        self.seen.saturating_sub(self.written + self.lost)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    pub admitted_packets: u64,
    /// IP bytes, without the Ethernet header.
    pub admitted_bytes: u64,
    pub admitted_syns: u64,
    /// Of those to the service that were not admitted.
    pub dropped_packets: u64,
    pub drops: ServiceDrops,
    pub cookies: CookieCounters,
    pub nat: NatCounters,
}

/// Of a service whose packets are rewritten; all 0 otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatCounters {
    /// What backends answered.
    pub reply_packets: u64,
    /// IP bytes.
    pub reply_bytes: u64,
    /// Connections that found no room, and that found no port towards their backend.
    pub refused_full: u64,
    pub refused_no_port: u64,
}

/// Packets to a service that were dropped, admitted before or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceDrops([u64; DropClass::COUNT]);

impl ServiceDrops {
    pub fn packets(&self, class: DropClass) -> u64 {
        self.0[class as usize]
    }

    /// Every class, the zeros too.
    pub fn all(&self) -> impl Iterator<Item = (DropClass, u64)> + '_ {
        DropClass::ALL.into_iter().map(|class| (class, self.packets(class)))
    }
}

/// Of a service whose SYNs may be answered with cookies; all 0 otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieCounters {
    /// Every SYN, whatever became of it.
    pub seen_syns: u64,
    /// SYNs answered with a cookie.
    pub answered_syns: u64,
    /// Valid cookies that came back, of those that XDP looked at: without pressure the kernel alone looks.
    pub valid_cookies: u64,
    /// Packets without connection and cookie, dropped under pressure.
    pub bad_cookies: u64,
}

/// What was forwarded to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    pub packets: u64,
    /// IP bytes of what the clients sent, without what forwarding adds.
    pub bytes: u64,
    /// Connections, or UDP flows, that were given to the backend as new.
    pub new_flows: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// SYNs whose connection hash chose this worker in XDP.
    pub picked_syns: u64,
    /// Connections that sk_lookup handed to this worker's socket.
    pub steered_connections: u64,
}

impl Stats {
    /// Packets that ended this way.
    pub fn packets(&self, reason: Reason, class: SourceClass) -> u64 {
        self.outcomes[reason.counter(class) as usize]
    }

    /// Every reason and class with its packets, the zeros too.
    pub fn outcomes(&self) -> impl Iterator<Item = (Reason, SourceClass, u64)> + '_ {
        let pairs = Reason::ALL.iter().flat_map(|reason| SourceClass::ALL.map(|class| (*reason, class)));
        pairs.map(|(reason, class)| (reason, class, self.packets(reason, class)))
    }

    pub(crate) fn read(maps: &Maps) -> Result<Self, MapError> {
        let by_cpu =
            (0..Reason::COUNTERS as u32).map(|counter| maps.reasons.get(counter)).collect::<Result<Vec<_>, _>>()?;
        let outcomes = by_cpu.iter().map(|counts| counts.iter().sum()).collect();
        let mut services = BTreeMap::new();
        for (index, name) in (0..).zip(maps.service_names.all()?) {
            if let Some(name) = name.as_str() {
                let cookies = sum_cookies(&maps.cookie_stats.get(index)?);
                let drops = sum_drops(&maps.service_drops.get(index)?);
                let nat = sum_nat(&maps.nat_stats.get(index)?);
                services.insert(name.to_owned(), sum_service(&maps.service_stats.get(index)?, drops, cookies, nat));
            }
        }
        let workers = (0..MAX_WORKERS as u32)
            .map(|worker| Ok(sum_worker(&maps.worker_stats.get(worker)?)))
            .collect::<Result<_, MapError>>()?;
        let tunnels = sum_tunnels(&maps.tunnel_stats.get(0)?);
        let samples = SampleCounters::default();
        let mut stats = Self { outcomes, services, workers, tunnels, cpus: cpus(&by_cpu), samples };
        let samplers =
            (0..Reason::COUNT as u32).map(|reason| maps.sampler.get(reason)).collect::<Result<Vec<_>, _>>()?;
        stats.samples = stats.sampled(&samplers);
        Ok(stats)
    }

    /// `by_reason` and CPU.
    fn sampled(&self, by_reason: &[Vec<Sampler>]) -> SampleCounters {
        let of = |is_chosen: fn(Reason) -> bool| {
            let outcomes = self.outcomes().filter(|(reason, ..)| is_chosen(*reason));
            let samplers = || Reason::ALL.iter().zip(by_reason).filter(|(reason, _)| is_chosen(**reason));
            let sum = |field: fn(&Sampler) -> u64| samplers().flat_map(|(_, by_cpu)| by_cpu.iter().map(field)).sum();
            Sampled {
                seen: outcomes.map(|(.., packets)| packets).sum(),
                written: sum(|one| one.written),
                lost: sum(|one| one.lost),
            }
        };
        SampleCounters {
            drops: of(|reason| reason.verdict() == Verdict::Drop),
            let_in: of(|reason| reason.verdict() != Verdict::Drop && reason.is_ours()),
        }
    }
}

fn sum_tunnels(by_cpu: &[TunnelEntry]) -> TunnelCounters {
    TunnelCounters {
        ip_packets: by_cpu.iter().map(|one| one.ip_packets).sum(),
        gue_packets: by_cpu.iter().map(|one| one.gue_packets).sum(),
    }
}

fn cpus(by_counter: &[Vec<u64>]) -> Vec<CpuCounters> {
    let mut cpus = vec![CpuCounters::default(); by_counter.first().map_or(0, Vec::len)];
    for reason in Reason::ALL {
        for class in SourceClass::ALL {
            for (cpu, packets) in cpus.iter_mut().zip(&by_counter[reason.counter(class) as usize]) {
                cpu.packets += packets;
                cpu.dropped_packets += if reason.verdict() == Verdict::Drop { *packets } else { 0 };
            }
        }
    }
    cpus
}

fn sum_drops(by_cpu: &[DropsEntry]) -> ServiceDrops {
    ServiceDrops(std::array::from_fn(|class| by_cpu.iter().map(|one| one.packets[class]).sum()))
}

fn sum_cookies(by_cpu: &[CookieEntry]) -> CookieCounters {
    let sum = |field: fn(&CookieEntry) -> u64| by_cpu.iter().map(field).sum();
    CookieCounters {
        seen_syns: sum(|one| one.seen_syns),
        answered_syns: sum(|one| one.answered_syns),
        valid_cookies: sum(|one| one.valid_cookies),
        bad_cookies: sum(|one| one.bad_cookies),
    }
}

fn sum_nat(by_cpu: &[NatEntry]) -> NatCounters {
    let sum = |field: fn(&NatEntry) -> u64| by_cpu.iter().map(field).sum();
    NatCounters {
        reply_packets: sum(|one| one.reply_packets),
        reply_bytes: sum(|one| one.reply_bytes),
        refused_full: sum(|one| one.refused_full),
        refused_no_port: sum(|one| one.refused_no_port),
    }
}

fn sum_service(
    by_cpu: &[ServiceEntry],
    drops: ServiceDrops,
    cookies: CookieCounters,
    nat: NatCounters,
) -> ServiceCounters {
    let sum = |field: fn(&ServiceEntry) -> u64| by_cpu.iter().map(field).sum();
    ServiceCounters {
        admitted_packets: sum(|one| one.admitted_packets),
        admitted_bytes: sum(|one| one.admitted_bytes),
        admitted_syns: sum(|one| one.admitted_syns),
        dropped_packets: sum(|one| one.dropped_packets),
        drops,
        cookies,
        nat,
    }
}

pub(crate) fn sum_backend(by_cpu: &[BackendEntry]) -> BackendCounters {
    BackendCounters {
        packets: by_cpu.iter().map(|one| one.packets).sum(),
        bytes: by_cpu.iter().map(|one| one.bytes).sum(),
        new_flows: by_cpu.iter().map(|one| one.new_flows).sum(),
    }
}

fn sum_worker(by_cpu: &[WorkerEntry]) -> WorkerCounters {
    WorkerCounters {
        picked_syns: by_cpu.iter().map(|one| one.picked_syns).sum(),
        steered_connections: by_cpu.iter().map(|one| one.steered_connections).sum(),
    }
}
