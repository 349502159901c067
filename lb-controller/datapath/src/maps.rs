//! Typed handles to the pinned maps.

pub(crate) mod copy;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, HashMap, HashOfMaps, InnerMap, Map, MapData, MapInfo, PerCpuArray, PerCpuValues, RingBuf, SockMap,
};
use lb_common::lists::{Chunk, RootBlock};
use lb_common::maps::{self as names, MapShape, SIZED_BY_LOADER};
use lb_common::types::{
    BackendCounters, BackendEntry, Control, CookieCounters, CookiePolicy, CookieState, HashKeys, ListFacts,
    MaglevTable, Name, NatCounters, NatPolicy, NatWords, QuicServerKey, SamplePolicy, Sampler, ServiceCounters,
    ServiceDrops, ServiceEntry, ServiceForward, ServiceLimits, ServiceRange, Shared, SharedClocks, SharedReserves,
    TunnelCounters, TunnelPolicy, VerifiedSource, VipPrefixEntry, WorkerCounters,
};
use lb_common::vip::{VipPrefix, VipPrefixKey};
use zerocopy::FromBytes;

use crate::error::{LoadError, MapError};
use crate::layout::Layout;
use crate::tunnels::{OwnAddresses, TierPrefixes};
use crate::verify::{MapMemory, of_pins};

/// Elements of one type, by index.
pub(crate) struct Table<T: Shared<Bytes: Pod>> {
    name: &'static str,
    map: Array<MapData, T::Bytes>,
}

impl<T: Shared<Bytes: Pod>> Table<T> {
    pub(crate) fn get(&self, index: u32) -> Result<T, MapError> {
        let bytes = self.map.get(&index, 0).map_err(failed("read", self.name))?;
        Ok(T::from_bytes(bytes))
    }

    pub(crate) fn set(&mut self, index: u32, value: &T) -> Result<(), MapError> {
        self.map.set(index, (*value).to_bytes(), 0).map_err(failed("write", self.name))
    }

    pub(crate) fn len(&self) -> u32 {
        self.map.len()
    }

    pub(crate) fn range(&self, indices: Range<u32>) -> Result<Vec<T>, MapError> {
        indices.map(|index| self.get(index)).collect()
    }

    /// How many elements there are.
    pub(crate) fn length(&self) -> u32 {
        self.map.len()
    }

    /// All elements in order.
    pub(crate) fn all(&self) -> Result<Vec<T>, MapError> {
        self.range(0..self.map.len())
    }
}

/// Elements of one type, by index and CPU.
pub(crate) struct CpuTable<T: Shared<Bytes: Pod>> {
    name: &'static str,
    map: PerCpuArray<MapData, T::Bytes>,
}

impl<T: Shared<Bytes: Pod>> CpuTable<T> {
    /// One value for each CPU the machine may have.
    pub(crate) fn get(&self, index: u32) -> Result<Vec<T>, MapError> {
        let values = self.map.get(&index, 0).map_err(failed("read", self.name))?;
        Ok(values.iter().map(|bytes| T::from_bytes(*bytes)).collect())
    }

    pub(crate) fn len(&self) -> u32 {
        self.map.len()
    }

    pub(crate) fn set_all(&mut self, index: u32, value: &T) -> Result<(), MapError> {
        let present = self.get(index)?;
        self.set_each(index, &vec![*value; present.len()])
    }

    /// `values` are as many as [`CpuTable::get`] returned: the length cannot be wrong.
    pub(crate) fn set_each(&mut self, index: u32, values: &[T]) -> Result<(), MapError> {
        let values: Vec<_> = values.iter().map(|value| value.to_bytes()).collect();
        let values =
            PerCpuValues::try_from(values).map_err(|error: std::io::Error| failed("write", self.name)(error.into()))?;
        self.map.set(index, values, 0).map_err(failed("write", self.name))
    }
}

type SourceBytes = [u32; 4];

/// Elements of one type, by source.
pub(crate) struct SourceTable<T: Shared<Bytes: Pod>> {
    name: &'static str,
    map: HashMap<MapData, SourceBytes, T::Bytes>,
}

impl<T: Shared<Bytes: Pod>> SourceTable<T> {
    pub(crate) fn get(&self, key: SourceBytes) -> Result<Option<T>, MapError> {
        match self.map.get(&key, 0) {
            Ok(bytes) => Ok(Some(T::from_bytes(bytes))),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", self.name)(error)),
        }
    }

    /// `false` if the map is full.
    pub(crate) fn set(&mut self, key: SourceBytes, value: &T) -> Result<bool, MapError> {
        match self.map.insert(key, (*value).to_bytes(), 0) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(nix::libc::E2BIG) => Ok(false),
            Err(error) => Err(failed("write", self.name)(error)),
        }
    }

    /// `false` if there was no such entry.
    pub(crate) fn remove(&mut self, key: SourceBytes) -> Result<bool, MapError> {
        match self.map.remove(&key) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(failed("write", self.name)(error)),
        }
    }

    /// The keys at the time; the kernel may skip or repeat some while others come and go.
    pub(crate) fn keys(&self) -> Result<Vec<SourceBytes>, MapError> {
        self.map.keys().collect::<Result<_, _>>().map_err(failed("list", self.name))
    }

    pub(crate) fn entries(&self) -> Result<Vec<(SourceBytes, T)>, MapError> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            // Gone since it was listed: not an error.
            if let Some(value) = self.get(key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }
}

/// Maps in an outer map, by index. The kernel returns from a change only when no packet reads what was there before.
pub(crate) struct InnerMaps<M> {
    name: &'static str,
    /// An array; the library offers to empty an element only of a hash, by the same bpf(2) command.
    map: HashOfMaps<MapData, u32, M>,
}

impl<M: InnerMap> InnerMaps<M> {
    pub(crate) fn set(&mut self, index: u32, inner: &M) -> Result<(), MapError> {
        self.map.insert(index, inner, 0).map_err(failed("write", self.name))
    }

    pub(crate) fn clear(&mut self, index: u32) -> Result<(), MapError> {
        match self.map.remove(&index) {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("clear", self.name)(error)),
        }
    }
}

type PrefixKeyBytes = [u8; size_of::<VipPrefixKey>()];

/// VIPs that are prefixes, of both tables.
pub(crate) struct VipPrefixes {
    map: LpmTrie<MapData, PrefixKeyBytes, <VipPrefixEntry as Shared>::Bytes>,
}

impl VipPrefixes {
    /// Makes `prefixes` those of `table`, and leaves the other table's alone.
    pub(crate) fn replace(&mut self, table: u32, prefixes: &[VipPrefix]) -> Result<(), MapError> {
        let keys: Vec<_> = self.map.keys().collect::<Result<_, _>>().map_err(failed("list", names::VIP_PREFIXES))?;
        for key in keys.iter().filter(|key| table_of(key) == Some(table)) {
            match self.map.remove(key) {
                Err(error) if !is_absent(&error) => return Err(failed("write", names::VIP_PREFIXES)(error)),
                _ => {}
            }
        }
        for prefix in prefixes {
            let (key, length_bits) = prefix.key(table);
            let bytes = zerocopy::transmute!(key);
            let entry = VipPrefixEntry { stand_in: prefix.stand_in() };
            let key = Key::new(length_bits, bytes);
            self.map.insert(&key, entry.to_bytes(), 0).map_err(failed("write", names::VIP_PREFIXES))?;
        }
        Ok(())
    }
}

fn table_of(key: &Key<PrefixKeyBytes>) -> Option<u32> {
    VipPrefixKey::read_from_bytes(&key.data()).ok().map(|key| key.table)
}

type TableBytes = <MaglevTable as Shared>::Bytes;

/// Maglev tables by slot. An element is 128 KiB: too much for a stack that others need too.
pub(crate) struct MaglevTables {
    map: Array<MapData, TableBytes>,
}

impl MaglevTables {
    pub(crate) fn open(folder: &Path) -> Result<Self, MapError> {
        Ok(Self { map: open(folder, names::TABLES)? })
    }

    /// `places` are [`names::MAGLEV_SIZE`], or fewer: then the rest leads to backend 0.
    pub(crate) fn set(&mut self, table: u16, places: &[u16]) -> Result<(), MapError> {
        let mut bytes: Vec<u8> = places.iter().flat_map(|backend| backend.to_ne_bytes()).collect();
        bytes.resize(size_of::<TableBytes>(), 0);
        let bytes: Box<TableBytes> = bytes.into_boxed_slice().try_into().unwrap_or_else(|_| Box::new([0; _]));
        // By reference: by value it would lie on this stack too.
        let bytes: &TableBytes = &bytes;
        self.map.set(table.into(), bytes, 0).map_err(failed("write", names::TABLES))
    }

    /// The places of each of these tables.
    pub(crate) fn read(&self, tables: &[u16]) -> Result<Vec<(u16, Vec<u16>)>, MapError> {
        // The library returns elements by value, through several hands: on a thread with a stack of its own.
        const STACK_BYTES: usize = 64 * size_of::<TableBytes>();
        std::thread::scope(|scope| {
            let read = || tables.iter().map(|table| Ok((*table, self.places(*table)?))).collect();
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, read);
            let thread = thread.map_err(|error| failed("read", names::TABLES)(aya::maps::MapError::IoError(error)))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn places(&self, table: u16) -> Result<Vec<u16>, MapError> {
        let bytes = self.map.get(&table.into(), 0).map_err(failed("read", names::TABLES))?;
        let (pairs, _) = bytes.as_chunks::<2>();
        Ok(pairs.iter().take(names::MAGLEV_SIZE).map(|pair| u16::from_ne_bytes(*pair)).collect())
    }
}

/// Which backend a QUIC server id leads to.
pub(crate) struct ServerIds {
    map: HashMap<MapData, <QuicServerKey as Shared>::Bytes, u64>,
}

impl ServerIds {
    pub(crate) fn set(&mut self, key: &QuicServerKey, backend: u16) -> Result<(), MapError> {
        self.map.insert(key.to_bytes(), u64::from(backend), 0).map_err(failed("write", names::QUIC_SERVERS))
    }

    pub(crate) fn remove(&mut self, key: &QuicServerKey) -> Result<(), MapError> {
        match self.map.remove(&key.to_bytes()) {
            Err(error) if !is_absent(&error) => Err(failed("write", names::QUIC_SERVERS)(error)),
            _ => Ok(()),
        }
    }

    /// While its only writer is at work, some may be missing.
    pub(crate) fn all(&self) -> Result<BTreeMap<QuicServerKey, u16>, MapError> {
        let entry = |entry: Result<(_, u64), _>| {
            let (key, backend) = entry.map_err(failed("list", names::QUIC_SERVERS))?;
            Ok((QuicServerKey::from_bytes(key), backend as u16))
        };
        self.map.iter().map(entry).collect()
    }
}

/// The worker sockets. The kernel takes a socket out by itself when it is closed.
pub(crate) struct Sockets {
    map: SockMap<MapData>,
}

impl Sockets {
    pub(crate) fn set(&mut self, index: u32, socket: &impl std::os::fd::AsRawFd) -> Result<(), MapError> {
        self.map.set(index, socket, 0).map_err(failed("write", names::SOCKETS))
    }

    pub(crate) fn clear(&mut self, index: u32) -> Result<(), MapError> {
        match self.map.clear_index(&index) {
            Ok(()) => Ok(()),
            // The kernel answers EINVAL for an empty element.
            Err(error) if is_absent(&error) || errno(&error) == Some(nix::libc::EINVAL) => Ok(()),
            Err(error) => Err(failed("clear", names::SOCKETS)(error)),
        }
    }
}

pub(crate) fn is_absent(error: &aya::maps::MapError) -> bool {
    matches!(error, aya::maps::MapError::KeyNotFound) || errno(error) == Some(nix::libc::ENOENT)
}

pub(crate) fn errno(error: &aya::maps::MapError) -> Option<i32> {
    match error {
        aya::maps::MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

/// Every pinned map that user space reads or writes.
pub(crate) struct Maps {
    pub(crate) control: Table<Control>,
    /// Two tables one after the other.
    pub(crate) services: Table<ServiceEntry>,
    /// Two halves, one for each table of services.
    pub(crate) ranges: Table<ServiceRange>,
    pub(crate) vip_prefixes: VipPrefixes,
    pub(crate) forwards: Table<ServiceForward>,
    pub(crate) tables: MaglevTables,
    pub(crate) backend_stats: CpuTable<BackendCounters>,
    pub(crate) limits: Table<ServiceLimits>,
    pub(crate) shared_clocks: Table<SharedClocks>,
    pub(crate) shared_reserves: CpuTable<SharedReserves>,
    pub(crate) service_names: Table<Name>,
    pub(crate) service_stats: CpuTable<ServiceCounters>,
    pub(crate) cookie_policies: Table<CookiePolicy>,
    pub(crate) cookie_states: Table<CookieState>,
    pub(crate) cookie_stats: CpuTable<CookieCounters>,
    pub(crate) verified: SourceTable<VerifiedSource>,
    pub(crate) verified_hints: Table<u64>,
    pub(crate) blocks: SourceTable<u64>,
    pub(crate) backends: Table<BackendEntry>,
    pub(crate) server_ids: ServerIds,
    pub(crate) pool_names: Table<Name>,
    pub(crate) reasons: CpuTable<u64>,
    pub(crate) worker_stats: CpuTable<WorkerCounters>,
    pub(crate) sockets: Sockets,
    pub(crate) keys: Table<HashKeys>,
    /// By family: IPv4, IPv6.
    pub(crate) list_roots: InnerMaps<Array<MapData, RootBlock>>,
    pub(crate) list_tables: InnerMaps<Array<MapData, Chunk>>,
    pub(crate) list_facts: Table<ListFacts>,
    pub(crate) service_drops: CpuTable<ServiceDrops>,
    pub(crate) sample_policy: Table<SamplePolicy>,
    pub(crate) sampler: CpuTable<Sampler>,
    pub(crate) tunnel_policy: Table<TunnelPolicy>,
    pub(crate) tunnel_stats: CpuTable<TunnelCounters>,
    pub(crate) tier: TierPrefixes,
    pub(crate) own_addresses: OwnAddresses,
    pub(crate) nat_policy: Table<NatPolicy>,
    pub(crate) nat_words: Table<NatWords>,
    pub(crate) nat_stats: CpuTable<NatCounters>,
    /// What all pinned maps take; they never grow.
    pub(crate) memory: Vec<MapMemory>,
}

impl Maps {
    pub(crate) fn open(folder: &Path) -> Result<Self, MapError> {
        Ok(Self {
            memory: of_pins(folder),
            control: table(folder, names::CONTROL)?,
            services: table(folder, names::SERVICES)?,
            ranges: table(folder, names::RANGES)?,
            vip_prefixes: VipPrefixes { map: open(folder, names::VIP_PREFIXES)? },
            forwards: table(folder, names::FORWARDS)?,
            tables: MaglevTables::open(folder)?,
            backend_stats: cpu_table(folder, names::BACKEND_STATS)?,
            limits: table(folder, names::LIMITS)?,
            shared_clocks: table(folder, names::SHARED_CLOCKS)?,
            shared_reserves: cpu_table(folder, names::SHARED_RESERVES)?,
            service_names: table(folder, names::SERVICE_NAMES)?,
            service_stats: cpu_table(folder, names::SERVICE_STATS)?,
            cookie_policies: table(folder, names::COOKIE_POLICIES)?,
            cookie_states: table(folder, names::COOKIE_STATES)?,
            cookie_stats: cpu_table(folder, names::COOKIE_STATS)?,
            verified: source_table(folder, names::VERIFIED)?,
            verified_hints: table(folder, names::VERIFIED_HINTS)?,
            blocks: source_table(folder, names::BLOCKS)?,
            backends: table(folder, names::BACKENDS)?,
            server_ids: ServerIds { map: open(folder, names::QUIC_SERVERS)? },
            pool_names: table(folder, names::POOL_NAMES)?,
            reasons: cpu_table(folder, names::REASONS)?,
            worker_stats: cpu_table(folder, names::WORKER_STATS)?,
            sockets: Sockets { map: open(folder, names::SOCKETS)? },
            keys: table(folder, names::KEYS)?,
            list_roots: inner_maps(folder, names::LIST_ROOTS)?,
            list_tables: inner_maps(folder, names::LIST_TABLES)?,
            list_facts: table(folder, names::LIST_FACTS)?,
            service_drops: cpu_table(folder, names::SERVICE_DROPS)?,
            sample_policy: table(folder, names::SAMPLE_POLICY)?,
            sampler: cpu_table(folder, names::SAMPLER)?,
            tunnel_policy: table(folder, names::TUNNEL_POLICY)?,
            tunnel_stats: cpu_table(folder, names::TUNNEL_STATS)?,
            tier: TierPrefixes { map: open(folder, names::TIER)? },
            own_addresses: OwnAddresses { map: open(folder, names::OWN_ADDRESSES)? },
            nat_policy: table(folder, names::NAT_POLICY)?,
            nat_words: table(folder, names::NAT_WORDS)?,
            nat_stats: cpu_table(folder, names::NAT_STATS)?,
        })
    }
}

/// The ring of samples; each reader of it takes samples away from the others.
pub(crate) fn open_samples(folder: &Path) -> Result<RingBuf<MapData>, MapError> {
    open(folder, names::SAMPLES)
}

/// The hash keys of an earlier run; `None` if there was none.
pub(crate) fn earlier_keys(folder: &Path) -> Result<Option<HashKeys>, MapError> {
    if !folder.join(names::KEYS).exists() {
        return Ok(None);
    }
    let keys = table::<HashKeys>(folder, names::KEYS)?.get(0)?;
    // All zero: the run that made the map ended before it wrote the keys.
    Ok((keys != HashKeys { connection: [0; 2], source: [0; 2] }).then_some(keys))
}

/// Compares every pinned map that exists with what the layout expects. `true` if there were any.
pub(crate) fn check_shapes(folder: &Path, layout: &Layout) -> Result<bool, LoadError> {
    let mut are_any = false;
    let possible_cpus = possible_cpus()?;
    for shape in layout.shapes() {
        let path = folder.join(shape.name);
        if !path.exists() {
            continue;
        }
        if let Some(difference) = difference(&shape, possible_cpus, &map_info(&path)?) {
            return Err(LoadError::LayoutMismatch { path, difference });
        }
        are_any = true;
    }
    Ok(are_any)
}

pub(crate) fn map_info(path: &Path) -> Result<MapInfo, LoadError> {
    MapInfo::from_pin(path)
        .map_err(|error| LoadError::system(format!("look at the pinned map {}", path.display()), error))
}

/// CPUs that this machine may ever have.
pub(crate) fn possible_cpus() -> Result<usize, LoadError> {
    aya::util::nr_cpus().map_err(|(path, error)| LoadError::system(format!("read {path}"), error))
}

fn difference(shape: &MapShape, possible_cpus: usize, info: &MapInfo) -> Option<String> {
    let rows = [
        ("key bytes", shape.key_bytes, info.key_size()),
        ("value bytes", shape.value_bytes, info.value_size()),
        ("entries", shape.entries(possible_cpus), info.max_entries()),
    ];
    let is_wrong = |(what, expected, found): &(&str, usize, u32)| {
        let is_free = *what == "entries" && *expected == SIZED_BY_LOADER;
        !is_free && *expected != *found as usize
    };
    let (what, expected, found) = rows.into_iter().find(is_wrong)?;
    Some(format!("{what}: {found} instead of {expected}"))
}

pub(crate) fn table<T: Shared<Bytes: Pod>>(folder: &Path, name: &'static str) -> Result<Table<T>, MapError> {
    Ok(Table { name, map: open(folder, name)? })
}

pub(crate) fn cpu_table<T: Shared<Bytes: Pod>>(folder: &Path, name: &'static str) -> Result<CpuTable<T>, MapError> {
    Ok(CpuTable { name, map: open(folder, name)? })
}

pub(crate) fn source_table<T: Shared<Bytes: Pod>>(
    folder: &Path,
    name: &'static str,
) -> Result<SourceTable<T>, MapError> {
    Ok(SourceTable { name, map: open(folder, name)? })
}

fn inner_maps<M: InnerMap>(folder: &Path, name: &'static str) -> Result<InnerMaps<M>, MapError> {
    let data = MapData::from_pin(folder.join(name)).map_err(failed("open", name))?;
    let map = HashOfMaps::try_from(Map::HashOfMaps(data)).map_err(failed("open", name))?;
    Ok(InnerMaps { name, map })
}

pub(crate) fn open<M: TryFrom<Map, Error = aya::maps::MapError>>(
    folder: &Path,
    name: &'static str,
) -> Result<M, MapError> {
    let data = MapData::from_pin(folder.join(name)).map_err(failed("open", name))?;
    Map::from_map_data(data).and_then(M::try_from).map_err(failed("open", name))
}

pub(crate) fn failed(action: &'static str, map: &'static str) -> impl FnOnce(aya::maps::MapError) -> MapError {
    move |source| MapError { action, map, source }
}
