//! Reading beside the writer, or alone while no controller runs.

mod shares;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use lb_common::Source;
use lb_common::maps::MAX_BACKENDS;
use lb_common::quic::ServerId;
use lb_common::rate::Dimension;
use lb_common::service::{ENDPOINT, PREFIX_ENDPOINT, PREFIX_WHOLE, WHOLE_ADDRESS};
use lb_common::types::{BackendEntry, BackendState, Forward, QuicServerKey, ServiceEntry};
use lb_common::vip::{MAX_RANGES, VipPrefix};

use crate::attach::AttachedInterface;
use crate::clock::monotonic_ns;
use crate::desired::{Endpoint, Limits, Ports, Rate, Tier};
use crate::error::{MapError, OpenError};
use crate::interface;
use crate::limits;
use crate::lists::ListStatus;
use crate::maps::{Maps, open_samples};
use crate::nat::NatStatus;
use crate::pins::{Pins, parse_link_name};
use crate::publish::{half, table_range};
use crate::samples::SampleReader;
use crate::sources::{self, BlockedSource, VerifiedSource};
use crate::stats::{BackendCounters, Stats, sum_backend};
use crate::tunnels;
use crate::verify::MapMemory;

/// A view of the maps, for any thread.
#[derive(Clone)]
pub struct Reader {
    maps: Arc<Maps>,
    pins: Pins,
}

/// A service as the maps have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    pub forward: Forward,
    /// Where it forwards to; `None` of a local service.
    pub pool: Option<String>,
    /// Worker sockets that share its connections; may be stale while no controller runs.
    pub workers: u16,
    /// As in force: bursts raised to what the kernel's clock needs.
    pub limits: Limits,
    /// `off`, `auto` or `always`.
    pub syn_cookies: &'static str,
    /// SYNs were answered with cookies within the last seconds.
    pub is_answering: bool,
}

/// A backend as the maps have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatus {
    pub pool: String,
    pub address: SocketAddr,
    pub weight: u8,
    pub state: BackendState,
    /// How forwarded packets reach it; `None` while that is unknown, and of a backend that none are forwarded to.
    pub way: Option<Way>,
    /// What leads to it in QUIC connection ids, where a service is routed by them.
    pub server_ids: Vec<ServerId>,
    pub counters: BackendCounters,
}

/// The way to a backend, as packets to it are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub interface: String,
    /// Ethernet address of the next hop.
    pub next_hop_mac: [u8; 6],
    /// The largest IP packet that fits.
    pub mtu_bytes: u16,
}

/// Opens the pins of an instance, running or not. Needs root.
pub fn open_pinned(pin_root: &Path) -> Result<Reader, OpenError> {
    let pins = Pins::new(pin_root);
    let denied = || OpenError::Denied { pin_root: pin_root.to_path_buf() };
    let others = match (pins.maps().try_exists(), pins.other_maps()) {
        (Ok(true), _) => None,
        (Ok(false), Ok(others)) => Some(others),
        (Err(_), _) | (_, Err(_)) => return Err(denied()),
    };
    match others {
        Some(others) if others.is_empty() => Err(OpenError::NothingLoaded { pin_root: pin_root.to_path_buf() }),
        Some(_) => Err(OpenError::OtherLayout { pin_root: pin_root.to_path_buf() }),
        None => match Maps::open(&pins.maps()) {
            Ok(maps) => Ok(Reader::new(Arc::new(maps), pins)),
            Err(error) if error.is_denied() => Err(denied()),
            Err(error) => Err(error.into()),
        },
    }
}

impl Reader {
    pub(crate) fn new(maps: Arc<Maps>, pins: Pins) -> Self {
        Self { maps, pins }
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What each map takes in the kernel, the largest first; lists are beside them, see [`Reader::lists`].
    pub fn memory(&self) -> &[MapMemory] {
        &self.maps.memory
    }

    pub fn stats(&self) -> Result<Stats, MapError> {
        Stats::read(&self.maps)
    }

    /// The ring of sampled packets. Whoever reads takes away from other readers: for the controller, and for those who
    /// know that none runs. Needs CAP_BPF.
    pub fn open_samples(&self) -> Result<SampleReader, MapError> {
        Ok(SampleReader::new(open_samples(&self.pins.maps())?, self.clone()))
    }

    /// Sorted by name.
    pub fn services(&self) -> Result<Vec<ServiceStatus>, MapError> {
        let ends = self.ends()?;
        let pools = self.maps.pool_names.all()?;
        let mut services = BTreeMap::new();
        for (index, name) in (0_u16..).zip(self.maps.service_names.all()?) {
            let Some(name) = name.as_str() else { continue };
            let ours = ends.iter().filter(|(service, ..)| *service == index);
            let mut endpoints: Vec<_> = ours.clone().map(|(_, endpoint, _)| *endpoint).collect();
            endpoints.sort();
            let workers = ours.map(|(.., workers)| *workers).max().unwrap_or(0);
            let limits = limits::read_back(&self.maps.limits.get(index.into())?);
            let entry = self.maps.forwards.get(index.into())?;
            let forward = Forward::from_number(entry.forward).unwrap_or_default();
            let pool = pools.get(entry.pool as usize).and_then(|name| name.as_str());
            let pool = pool.filter(|_| forward != Forward::Local).map(str::to_owned);
            let name = name.to_owned();
            let syn_cookies = self.maps.cookie_policies.get(index.into())?.name();
            let is_answering = self.is_answering(index)?;
            let status = ServiceStatus { name, endpoints, forward, pool, workers, limits, syn_cookies, is_answering };
            services.insert(status.name.clone(), status);
        }
        Ok(services.into_values().collect())
    }

    /// `None` until a service used NAT.
    pub fn nat(&self) -> Result<Option<NatStatus>, MapError> {
        NatStatus::read(&self.maps, self.nat_addresses()?)
    }

    fn nat_addresses(&self) -> Result<Vec<IpAddr>, MapError> {
        let table = self.maps.control.get(0)?.active_table.min(1);
        let entries = self.maps.services.range(table_range(table))?;
        let mut addresses: Vec<IpAddr> =
            entries.iter().filter(|entry| entry.is_nat()).map(|entry| entry.address.into()).collect();
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// The limit of new flows to all services together.
    pub fn new_flow_limit(&self) -> Result<Rate, MapError> {
        Ok(limits::rate(Dimension::Syns, &self.maps.control.get(0)?.new_flows.limit()))
    }

    /// Whose tunnels end on this host; `None`: nobody's.
    pub fn tier(&self) -> Result<Option<Tier>, MapError> {
        tunnels::read(&self.maps)
    }

    fn is_answering(&self, service: u16) -> Result<bool, MapError> {
        // The time is written once a second.
        const RECENT_NS: u64 = 3_000_000_000;
        let last_ns = self.maps.cookie_states.get(service.into())?.last_answered_ns;
        Ok(last_ns != 0 && monotonic_ns().saturating_sub(last_ns) < RECENT_NS)
    }

    /// Each place of each service: the service's index, the place, and the workers that share it.
    fn ends(&self) -> Result<Vec<(u16, Endpoint, u16)>, MapError> {
        let table = self.maps.control.get(0)?.active_table.min(1);
        let mut ends = Vec::new();
        for entry in self.maps.services.range(table_range(table))? {
            let Some(vip) = vip(&entry) else { continue };
            if [ENDPOINT, PREFIX_ENDPOINT].contains(&entry.kind) {
                let endpoint = Endpoint { vip, ports: Ports::One(entry.port), protocol: entry.protocol };
                ends.push((entry.service, endpoint, entry.workers));
                continue;
            }
            let start = usize::from(entry.ranges_start);
            let indices = half(table, MAX_RANGES).skip(start).take(entry.ranges_count.into());
            for range in indices.map(|index| self.maps.ranges.get(index)) {
                let range = range?;
                let ports = match (range.first_port, range.last_port) {
                    all if all == Ports::Any.bounds() => Ports::Any,
                    (first, last) => Ports::Range(first, last),
                };
                ends.push((range.service, Endpoint { vip, ports, protocol: range.protocol }, range.workers));
            }
        }
        Ok(ends)
    }

    /// Every backend with the state that its health checks last wrote, sorted by pool and address.
    pub fn backends(&self) -> Result<Vec<BackendStatus>, MapError> {
        let pools = self.maps.pool_names.all()?;
        let mut server_ids = server_ids_by_slot(&self.maps.server_ids.all()?);
        let end = self.maps.control.get(0)?.backends_end.min(MAX_BACKENDS as u32);
        let mut backends = Vec::new();
        for (slot, entry) in (0..).zip(self.maps.backends.range(0..end)?) {
            let Some(state) = BackendState::from_number(entry.state) else {
                continue;
            };
            let pool = pools.get(entry.pool as usize).and_then(|name| name.as_str()).unwrap_or("?").to_owned();
            backends.push(BackendStatus {
                pool,
                address: SocketAddr::new(entry.address.into(), entry.port),
                weight: entry.weight,
                state,
                way: way(&entry),
                server_ids: server_ids.remove(&(slot as u16)).unwrap_or_default(),
                counters: sum_backend(&self.maps.backend_stats.get(slot)?),
            });
        }
        backends.sort_by(|one, other| (&one.pool, one.address).cmp(&(&other.pool, other.address)));
        Ok(backends)
    }

    /// Every source whose step-up is remembered, prioritised still or not. Up to 65,536: not for every request.
    pub fn verified_sources(&self) -> Result<Vec<VerifiedSource>, MapError> {
        sources::verified_sources(&self.maps)
    }

    /// What is known about one source; cheap.
    pub fn verified_source(&self, source: Source) -> Result<Option<VerifiedSource>, MapError> {
        sources::verified_source(&self.maps, source)
    }

    /// Every block in force.
    pub fn blocks(&self) -> Result<Vec<BlockedSource>, MapError> {
        sources::blocked_sources(&self.maps)
    }

    /// What is listed of IPv4 and of IPv6.
    pub fn lists(&self) -> Result<[Option<ListStatus>; 2], MapError> {
        Ok([ListStatus::of(&self.maps.list_facts.get(0)?), ListStatus::of(&self.maps.list_facts.get(1)?)])
    }

    /// The interfaces with a pinned link, sorted by name. Needs access to the pins' folder.
    pub fn interfaces(&self) -> io::Result<Vec<AttachedInterface>> {
        let names = self.pins.link_names()?;
        let mut interfaces: Vec<_> = names
            .iter()
            .filter_map(|name| parse_link_name(name))
            .map(|(name, mode)| AttachedInterface { name, mode, replaced: false, warning: None })
            .collect();
        interfaces.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(interfaces)
    }
}

fn vip(entry: &ServiceEntry) -> Option<VipPrefix> {
    match entry.kind {
        ENDPOINT | WHOLE_ADDRESS => Some(VipPrefix::from(IpAddr::from(entry.address))),
        PREFIX_ENDPOINT | PREFIX_WHOLE => VipPrefix::of_stand_in(entry.address),
        _ => None,
    }
}

fn server_ids_by_slot(all: &BTreeMap<QuicServerKey, u16>) -> BTreeMap<u16, Vec<ServerId>> {
    let mut by_slot = BTreeMap::<u16, Vec<ServerId>>::new();
    for (key, slot) in all {
        by_slot.entry(*slot).or_default().extend(ServerId::of_key(key));
    }
    by_slot
}

fn way(entry: &BackendEntry) -> Option<Way> {
    (entry.interface != 0).then(|| Way {
        interface: interface::name_of(entry.interface),
        next_hop_mac: entry.next_hop_mac,
        mtu_bytes: entry.mtu_bytes,
    })
}
