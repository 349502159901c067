//! What would become of a packet: judged by a private copy of the programs, so that nothing in force notices.
//!
//! The copy reads the very maps that packets are judged by, services, limits, lists, backends, and writes to maps of its
//! own, which begin with what is remembered at the moment: limits, cookies, flows, fragments.

mod copy;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::MapData;
use aya::{Ebpf, EbpfLoader};
use lb_common::maps::{self as names, PINNED};
use lb_common::parse::Network;
use lb_common::sample::ends;
use lb_common::{Reason, Source, SourceClass, Verdict};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::desired::{DesiredNat, Rate};
use crate::error::{LoadError, OpenError};
use crate::globals::Globals;
use crate::interface;
use crate::kernel_tcp::KernelTcp;
use crate::load::{LogLevel, refused, segment_bytes};
use crate::maps::{Maps, earlier_keys, possible_cpus};
use crate::nat;
use crate::pins::Pins;
use crate::programs;
use crate::reader::{Reader, open_pinned};
use crate::samples::places::Places;
use crate::stats::{CookieCounters, Stats};
use crate::try_out::{Arrival, run_once};
use copy::SourceCopies;

/// Maps that no program writes: shared with the programs in force. A map that is not named here is private to the copy,
/// so that one that is forgotten here makes a trace less exact and harms nobody.
const READ_ONLY: &[&str] = &[
    names::CONTROL,
    names::SERVICES,
    names::RANGES,
    names::VIP_PREFIXES,
    names::LIMITS,
    names::SERVICE_NAMES,
    names::VERIFIED_HINTS,
    names::COOKIE_POLICIES,
    names::BLOCKS,
    names::FORWARDS,
    names::TABLES,
    names::BACKENDS,
    names::POOL_NAMES,
    names::SOCKETS,
    names::KEYS,
    names::LIST_ROOTS,
    names::LIST_TABLES,
    names::LIST_FACTS,
    names::QUIC_SERVERS,
    names::TUNNEL_POLICY,
    names::TIER,
    names::OWN_ADDRESSES,
    names::NAT_POLICY,
];

/// Why packets cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(
        "XDP is attached to {interface}, and no interface of this network namespace has that name; run the command where the \
         controller runs: `nsenter --net --target PID lb-controller …` with the controller's process number"
    )]
    Elsewhere { interface: String },
}

impl From<crate::MapError> for TraceError {
    fn from(error: crate::MapError) -> Self {
        Self::Load(error.into())
    }
}

/// A private copy of the data plane of an instance.
pub struct Tracer {
    cpu: usize,
    ebpf: Ebpf,
    /// Of the instance itself.
    live: Reader,
    /// Of the copy.
    copy: Reader,
    sources: SourceCopies,
    places: Places,
}

/// What became of a packet, and what the maps know of it.
#[derive(Clone, Debug)]
pub struct Traced {
    pub verdict: Verdict,
    pub reason: Reason,
    pub class: SourceClass,
    /// As the programs left it.
    pub frame: Vec<u8>,
    /// `None` of what is not IP.
    pub network: Option<Network>,
    /// Of source and destination.
    pub ports: Option<(u16, u16)>,
    pub service: Option<TracedService>,
    /// How long the source is still blocked, and prioritised.
    pub blocked: Option<Duration>,
    pub verified: Option<Duration>,
    pub backend: Option<TracedBackend>,
    /// Of a SYN to a local service.
    pub worker: Option<usize>,
    pub cookies: CookieCounters,
}

#[derive(Clone, Debug)]
pub struct TracedService {
    pub name: String,
    /// Scope, what is counted, and the rate; those in force.
    pub limits: Vec<(&'static str, &'static str, Rate)>,
    /// `off`, `auto` or `always`.
    pub syn_cookies: &'static str,
    pub is_answering: bool,
    /// Where it forwards to; `None` of a local one.
    pub pool: Option<String>,
    /// `l7`, `ipip`, …
    pub forward: &'static str,
}

#[derive(Clone, Debug)]
pub struct TracedBackend {
    pub pool: String,
    pub address: SocketAddr,
    /// The flow cache of the CPU that traced it did not know the flow.
    pub is_new_flow: bool,
    pub interface: Option<String>,
}

impl Tracer {
    /// Loads the copy; the instance may run or not. Needs what [`crate::Datapath::load`] needs, and takes as long.
    ///
    /// Each CPU has flows of its own: the calling thread stays on `cpu` from then on, or on the one that it is on.
    pub fn open(pin_root: &Path, cpu: Option<usize>) -> Result<Self, TraceError> {
        let cpu = stay_on(cpu)?;
        let object = crate::OBJECT.ok_or(LoadError::ObjectMissing)?;
        let live = open_pinned(pin_root)?;
        let drafts = Drafts::create(pin_root, &live)?;
        let ebpf = load(object, &live, &drafts)?;
        let maps = Maps::open(&drafts.pins.maps())?;
        let (pins, places) = (drafts.pins.clone(), Places::of(&live.services()?));
        copy::remembered(&live.pins().maps(), &pins.maps())?;
        let sources = SourceCopies::open(&live.pins().maps(), &pins.maps())?;
        Ok(Self { cpu, ebpf, sources, live, copy: Reader::new(Arc::new(maps), pins), places })
    }

    /// What would become of `frame`, had it come in by `interface`. Packets traced one after the other follow one
    /// another in the copy: the second of a burst is charged to what the first has left.
    pub fn trace(&mut self, frame: &[u8], interface: Option<&str>) -> Result<Traced, TraceError> {
        let arrival = interface.map(|name| self.arrival(name)).transpose()?;
        let ends = ends(&frame);
        if let Some(ends) = ends {
            self.sources.remember(Source::of_address(ends.source))?;
        }
        let (before, backends_before) = (self.copy.stats()?, self.copy.backends()?);
        let outcome = run_once(&self.ebpf, frame, arrival)?;
        let (after, backends) = (self.copy.stats()?, self.copy.backends()?);
        let (reason, class) = ended(&before, &after).unwrap_or((Reason::InternalError, SourceClass::Unknown));
        let source = ends.map(|ends| Source::of_address(ends.source));
        let mut moved = backends.iter().zip(&backends_before);
        let moved = moved.find(|(now, was)| now.counters.packets > was.counters.packets);
        let service = ends.and_then(|ends| {
            self.places.service(ends.destination.into(), ends.ports?.1, ends.protocol?).map(str::to_owned)
        });
        let workers = after.workers.iter().zip(&before.workers);
        Ok(Traced {
            verdict: outcome.verdict,
            reason,
            class,
            frame: outcome.frame,
            network: lb_common::parse::parse_network(&frame).ok(),
            ports: ends.and_then(|ends| ends.ports),
            cookies: service.as_deref().map(|name| cookies(&before, &after, name)).unwrap_or_default(),
            service: service.map(|name| self.service(name)).transpose()?,
            blocked: source.map(|source| self.blocked(source)).transpose()?.flatten(),
            verified: source
                .map(|source| self.live.verified_source(source))
                .transpose()?
                .flatten()
                .and_then(|verified| verified.remaining),
            backend: moved.map(|(now, was)| TracedBackend {
                pool: now.pool.clone(),
                address: now.address,
                is_new_flow: now.counters.new_flows > was.counters.new_flows,
                interface: now.way.as_ref().map(|way| way.interface.clone()),
            }),
            worker: workers
                .enumerate()
                .find(|(_, (now, was))| now.picked_syns > was.picked_syns)
                .map(|(index, _)| index),
        })
    }

    fn arrival(&self, name: &str) -> Result<Arrival, TraceError> {
        match interface::index_of(name) {
            Ok(interface) => Ok(Arrival { interface }),
            Err(_) if self.interfaces().iter().any(|attached| attached == name) => {
                Err(TraceError::Elsewhere { interface: name.to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whose flows are looked at.
    pub fn cpu(&self) -> usize {
        self.cpu
    }

    /// The interfaces that the instance is attached to.
    pub fn interfaces(&self) -> Vec<String> {
        let interfaces = self.live.interfaces().unwrap_or_default();
        interfaces.into_iter().map(|interface| interface.name).collect()
    }

    fn service(&self, name: String) -> Result<TracedService, TraceError> {
        let status = self.live.services()?.into_iter().find(|service| service.name == name);
        Ok(TracedService {
            limits: status.as_ref().map(|status| status.limits.in_force()).unwrap_or_default(),
            syn_cookies: status.as_ref().map_or("off", |status| status.syn_cookies),
            is_answering: status.as_ref().is_some_and(|status| status.is_answering),
            forward: status.as_ref().map_or("l7", |status| status.forward.name()),
            pool: status.and_then(|status| status.pool),
            name,
        })
    }

    fn blocked(&self, source: Source) -> Result<Option<Duration>, TraceError> {
        let blocks = self.live.blocks()?;
        Ok(blocks.into_iter().find(|block| block.source == source).map(|block| block.remaining))
    }
}

fn stay_on(cpu: Option<usize>) -> Result<usize, LoadError> {
    let failed = |errno: Errno| LoadError::system("run on one CPU alone", errno);
    let cpu = cpu.map_or_else(sched_getcpu, Ok).map_err(failed)?;
    let mut only = CpuSet::new();
    only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only)).map_err(failed)?;
    Ok(cpu)
}

/// The one outcome that was counted.
fn ended(before: &Stats, after: &Stats) -> Option<(Reason, SourceClass)> {
    let counted = |(reason, class, packets): &(Reason, SourceClass, u64)| *packets > before.packets(*reason, *class);
    after.outcomes().find(counted).map(|(reason, class, _)| (reason, class))
}

fn cookies(before: &Stats, after: &Stats, service: &str) -> CookieCounters {
    let of = |stats: &Stats| stats.services.get(service).copied().unwrap_or_default().cookies;
    let (was, now) = (of(before), of(after));
    CookieCounters {
        seen_syns: now.seen_syns - was.seen_syns,
        answered_syns: now.answered_syns - was.answered_syns,
        valid_cookies: now.valid_cookies - was.valid_cookies,
        bad_cookies: now.bad_cookies - was.bad_cookies,
    }
}

/// Pins for the time of loading: the loader finds read-only maps there, and makes the others there.
struct Drafts {
    pins: Pins,
    root: PathBuf,
}

impl Drafts {
    fn create(pin_root: &Path, live: &Reader) -> Result<Self, LoadError> {
        let mut root = pin_root.as_os_str().to_owned();
        root.push(format!("-trace-{}", std::process::id()));
        let root = PathBuf::from(root);
        let drafts = Self { pins: Pins::new(&root), root };
        let failed = |error| LoadError::system(format!("make the folder {}", drafts.root.display()), error);
        fs::create_dir_all(drafts.pins.maps()).map_err(failed)?;
        for name in READ_ONLY {
            let failed = |error: &dyn std::error::Error| {
                LoadError::system(format!("share the map {name} with a copy of the programs"), error.to_string())
            };
            let map = MapData::from_pin(live.pins().maps().join(name)).map_err(|error| failed(&error))?;
            map.pin(drafts.pins.maps().join(name)).map_err(|error| failed(&error))?;
        }
        Ok(drafts)
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        // The maps live on in the programs and the reader that hold them.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn load(object: &[u8], live: &Reader, drafts: &Drafts) -> Result<Ebpf, TraceError> {
    let keys =
        earlier_keys(&live.pins().maps())?.ok_or_else(|| LoadError::system("read the keys", "there are none"))?;
    let interfaces: Vec<_> = live.interfaces().unwrap_or_default().into_iter().map(|one| one.name).collect();
    let globals = Globals::of(&keys, LogLevel::Off, &KernelTcp::read(), segment_bytes(&interfaces));
    let possible_cpus = possible_cpus()?;
    let mut loader = EbpfLoader::new();
    globals.set(&mut loader);
    for shape in PINNED {
        loader.map_pin_path(shape.name, drafts.pins.maps().join(shape.name));
        loader.map_max_entries(shape.name, shape.entries(possible_cpus) as u32);
    }
    // Connections through NAT are not copied: to a trace each is a new one.
    for (map, entries) in nat::lengths(DesiredNat::DEFAULT_CAPACITY) {
        loader.map_max_entries(map, entries);
    }
    let mut ebpf = loader.load(object).map_err(|error| LoadError::system("create the eBPF maps", error))?;
    programs::load(&mut ebpf, refused)?;
    Ok(ebpf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_with_the_programs_in_force_is_pinned_and_none_of_it_is_a_counter() {
        for name in READ_ONLY {
            assert!(PINNED.iter().any(|shape| shape.name == *name), "{name}");
            assert!(!name.ends_with("STATS") && !name.ends_with("STATES"), "{name}");
        }
    }
}
