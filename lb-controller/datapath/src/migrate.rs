//! Taking over from maps of another layout: what still means the same is copied into fresh maps before packets are judged
//! by them; the rest the configuration says again, or it is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::{Array, MapData, MapType};
use lb_common::maps::{self as names, MAX_TABLES, MapShape, SIZED_BY_LOADER};
use lb_common::types::{
    BackendEntry, BackendState, Control, CookiePolicy, FlowBucket, Forward, HashKeys, LimiterSet, Name, NatWords,
    ServiceEntry, ServiceForward, ServiceLimits, ServiceRange, Shared, ValidatedSource, VerifiedSource,
};
use lb_common::{Reason, Source};

use crate::error::{LoadError, MapError};
use crate::hints;
use crate::layout::Layout;
use crate::maps::copy::{copy_sources, copy_table, copy_vip_prefixes};
use crate::maps::{MaglevTables, Maps, cpu_table, earlier_keys, map_info, possible_cpus, source_table, table};
use crate::sources::block_hints;

mod translations;

/// Pin of the map that says what the others beside it mean.
pub(crate) const MEANINGS: &str = "MEANINGS";

type MeaningBytes = <u64 as Shared>::Bytes;

/// What an operator loses with maps that mean something else now. Services, backends and lists are no part of it: the
/// configuration names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forgotten {
    /// Connections go by the same hashes; those whose backend had been taken out of the table meanwhile are cut.
    Flows,
    /// Every hash is another: connections may move to other backends.
    HashKeys,
    VerifiedSources,
    BlockedSources,
    /// Sources that brought back a SYN cookie.
    ValidatedSources,
    /// Connections through NAT are cut: all, or those that the new maps have no room for.
    Translations,
    /// Each source begins with a full burst.
    LimiterClocks,
    Counters,
}

impl Forgotten {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flows => "known flows",
            Self::HashKeys => "hash keys",
            Self::VerifiedSources => "verified sources",
            Self::BlockedSources => "blocked sources",
            Self::ValidatedSources => "sources validated by cookies",
            Self::Translations => "connections through NAT",
            Self::LimiterClocks => "clocks of limits",
            Self::Counters => "counters",
        }
    }
}

/// Says in `folder` what its maps mean, for the next version to compare with.
pub(crate) fn write_meanings(folder: &Path, layout: &Layout) -> Result<(), LoadError> {
    let path = folder.join(MEANINGS);
    if path.exists() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| LoadError::system("note what the maps mean", error.to_string());
    let meanings: Vec<u64> = layout.shapes().map(|shape| layout.meaning(&shape)).collect();
    let map = Array::<MapData, MeaningBytes>::create(meanings.len() as u32, 0);
    let mut map = map.map_err(|error| failed(&error))?;
    for (index, meaning) in (0..).zip(meanings) {
        map.set(index, meaning.to_bytes(), 0).map_err(|error| failed(&error))?;
    }
    map.pin(path).map_err(|error| failed(&error))
}

/// The maps of another version, with which packets are judged until the programs are exchanged.
pub(crate) struct Earlier {
    folder: PathBuf,
    /// Names of maps whose elements can be taken over.
    same: BTreeSet<&'static str>,
}

impl Earlier {
    /// Of a version that did not say what its maps mean, nothing can be taken over.
    pub(crate) fn open(folder: PathBuf, layout: &Layout) -> Result<Self, LoadError> {
        let mut same = BTreeSet::new();
        if folder.join(MEANINGS).exists() {
            let meanings: BTreeSet<u64> = table::<u64>(&folder, MEANINGS)?.all()?.into_iter().collect();
            for shape in layout.shapes().filter(|shape| meanings.contains(&layout.meaning(shape))) {
                let path = folder.join(shape.name);
                if path.exists() && has_room(&shape, &path)? {
                    same.insert(shape.name);
                }
            }
        }
        Ok(Self { folder, same })
    }

    fn has(&self, maps: &[&str]) -> bool {
        maps.iter().all(|name| self.same.contains(name))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn keys(&self) -> Result<Option<HashKeys>, MapError> {
        if self.has(&[names::KEYS]) { earlier_keys(&self.folder) } else { Ok(None) }
    }

    /// Copies into the fresh maps of `folder`, which no packet reads yet, all but the counters.
    pub(crate) fn copy_state(&self, folder: &Path) -> Result<BTreeSet<Forgotten>, MapError> {
        let mut forgotten = BTreeSet::new();
        let mut note = |is_kept: bool, what| {
            if !is_kept {
                forgotten.insert(what);
            }
        };
        let hashes_stay = self.has(&[names::KEYS]);
        note(hashes_stay, Forgotten::HashKeys);
        let slots_stay = self.copy_backends(folder)?;
        if slots_stay {
            self.copy_services(folder)?;
        }
        note(hashes_stay && slots_stay && self.copy_flows(folder)?, Forgotten::Flows);
        note(self.copy_verified(folder)?, Forgotten::VerifiedSources);
        note(self.copy_blocks(folder)?, Forgotten::BlockedSources);
        note(self.copy_validated(folder)?, Forgotten::ValidatedSources);
        note(self.copy_translations(folder)?, Forgotten::Translations);
        note(hashes_stay && self.copy_limiters(folder)?, Forgotten::LimiterClocks);
        Ok(forgotten)
    }

    /// Once with all else, and once more as the last thing before the exchange: those that began in between. `false` if
    /// some are cut.
    pub(crate) fn copy_translations(&self, folder: &Path) -> Result<bool, MapError> {
        let own = [names::NAT_POLICY, names::NAT_SLOTS, names::NAT_WORDS, names::NAT_INDEX];
        // A slot names its service and its backend by their places.
        let named = [names::SERVICE_NAMES, names::SERVICES, names::FORWARDS, names::POOL_NAMES, names::BACKENDS];
        if !self.has_translations()? {
            return Ok(true);
        }
        if !self.has(&own) || !self.has(&named) {
            return Ok(false);
        }
        let (copied, left_out) = translations::copy(&self.folder, folder)?;
        tracing::debug!(copied, left_out, "connections through NAT are taken over");
        Ok(left_out == 0)
    }

    fn has_translations(&self) -> Result<bool, MapError> {
        if !self.folder.join(names::NAT_WORDS).exists() {
            return Ok(false);
        }
        if !self.has(&[names::NAT_WORDS]) {
            return Ok(true);
        }
        let blocks = table::<NatWords>(&self.folder, names::NAT_WORDS)?.all()?;
        Ok(blocks.iter().flat_map(|block| block.words).any(|word| word != 0))
    }

    /// With their slots, which flows remember, and the tables that lead to them. `false` if they mean something else.
    fn copy_backends(&self, folder: &Path) -> Result<bool, MapError> {
        let maps = [names::SERVICE_NAMES, names::FORWARDS, names::TABLES, names::POOL_NAMES, names::BACKENDS];
        if !self.has(&maps) {
            return Ok(false);
        }
        copy_table::<Name>(&self.folder, folder, names::SERVICE_NAMES)?;
        copy_table::<Name>(&self.folder, folder, names::POOL_NAMES)?;
        copy_table::<BackendEntry>(&self.folder, folder, names::BACKENDS)?;
        copy_table::<ServiceForward>(&self.folder, folder, names::FORWARDS)?;
        let (from, mut to) = (MaglevTables::open(&self.folder)?, MaglevTables::open(folder)?);
        for (number, places) in from.read(&named_tables(&table(folder, names::FORWARDS)?.all()?))? {
            to.set(number, &places)?;
        }
        Ok(true)
    }

    /// Which service's index is which, and so [`Earlier::copy_backends`], comes before.
    fn copy_services(&self, folder: &Path) -> Result<(), MapError> {
        let tables = [names::CONTROL, names::SERVICES, names::RANGES, names::VIP_PREFIXES];
        let limits = [names::LIMITS, names::COOKIE_POLICIES];
        if !self.has(&tables) || !self.has(&limits) {
            return Ok(());
        }
        let from = &self.folder;
        copy_table::<ServiceEntry>(from, folder, names::SERVICES)?;
        copy_table::<ServiceRange>(from, folder, names::RANGES)?;
        copy_vip_prefixes(from, folder)?;
        copy_table::<ServiceLimits>(from, folder, names::LIMITS)?;
        copy_table::<CookiePolicy>(from, folder, names::COOKIE_POLICIES)?;
        copy_table::<Control>(from, folder, names::CONTROL)
    }

    fn copy_flows(&self, folder: &Path) -> Result<bool, MapError> {
        let is_same = self.has(&[names::FLOWS]);
        if is_same {
            copy_table::<FlowBucket>(&self.folder, folder, names::FLOWS)?;
        }
        Ok(is_same)
    }

    fn copy_verified(&self, folder: &Path) -> Result<bool, MapError> {
        let is_same = self.has(&[names::VERIFIED]);
        if is_same {
            copy_sources::<VerifiedSource>(&self.folder, folder, names::VERIFIED)?;
            let mut hint_words = table(folder, names::VERIFIED_HINTS)?;
            for key in source_table::<VerifiedSource>(folder, names::VERIFIED)?.keys()? {
                hints::set(&mut hint_words, Source::from_key(key).verified_hint())?;
            }
        }
        Ok(is_same)
    }

    fn copy_blocks(&self, folder: &Path) -> Result<bool, MapError> {
        let is_same = self.has(&[names::BLOCKS]);
        if is_same {
            copy_sources::<u64>(&self.folder, folder, names::BLOCKS)?;
            let block_hints = block_hints(&source_table::<u64>(folder, names::BLOCKS)?.keys()?);
            let mut control = table::<Control>(folder, names::CONTROL)?;
            control.set(0, &Control { block_hints, ..control.get(0)? })?;
        }
        Ok(is_same)
    }

    fn copy_validated(&self, folder: &Path) -> Result<bool, MapError> {
        let is_same = self.has(&[names::VALIDATED]);
        if is_same {
            copy_sources::<ValidatedSource>(&self.folder, folder, names::VALIDATED)?;
        }
        Ok(is_same)
    }

    fn copy_limiters(&self, folder: &Path) -> Result<bool, MapError> {
        let limiters = [names::SOURCE_LIMITER, names::NETWORK_LIMITER];
        let are_same = self.has(&limiters);
        if are_same {
            limiters.into_iter().try_for_each(|name| copy_table::<LimiterSet>(&self.folder, folder, name))?;
        }
        Ok(are_same)
    }

    /// As the last thing before packets are judged by `maps`: what is counted in between is lost. Services and backends
    /// are known by their names, whatever their indices. `false` if some counter means something else.
    pub(crate) fn copy_counters(&self, maps: &mut Maps) -> Result<bool, MapError> {
        let (totals, services) = (self.copy_totals(maps)?, self.copy_service_counters(maps)?);
        Ok(self.copy_backend_counters(maps)? && services && totals)
    }

    fn copy_totals(&self, maps: &mut Maps) -> Result<bool, MapError> {
        if !self.has(&[names::REASONS, names::WORKER_STATS]) {
            return Ok(false);
        }
        let reasons = cpu_table(&self.folder, names::REASONS)?;
        for index in 0..Reason::COUNTERS as u32 {
            maps.reasons.copy_element(&reasons, index, index)?;
        }
        let workers = cpu_table(&self.folder, names::WORKER_STATS)?;
        for index in 0..names::MAX_WORKERS as u32 {
            maps.worker_stats.copy_element(&workers, index, index)?;
        }
        Ok(true)
    }

    fn copy_service_counters(&self, maps: &mut Maps) -> Result<bool, MapError> {
        if !self.has(&[names::SERVICE_NAMES, names::SERVICE_STATS, names::COOKIE_STATS]) {
            return Ok(false);
        }
        let stats = cpu_table(&self.folder, names::SERVICE_STATS)?;
        let cookies = cpu_table(&self.folder, names::COOKIE_STATS)?;
        let old = service_names(&table::<Name>(&self.folder, names::SERVICE_NAMES)?.all()?);
        for (old, new) in moves(&old, &service_names(&maps.service_names.all()?)) {
            maps.service_stats.copy_element(&stats, old, new)?;
            maps.cookie_stats.copy_element(&cookies, old, new)?;
        }
        Ok(true)
    }

    fn copy_backend_counters(&self, maps: &mut Maps) -> Result<bool, MapError> {
        if !self.has(&[names::POOL_NAMES, names::BACKENDS, names::BACKEND_STATS]) {
            return Ok(false);
        }
        let stats = cpu_table(&self.folder, names::BACKEND_STATS)?;
        let old_pools = table::<Name>(&self.folder, names::POOL_NAMES)?.all()?;
        let old = backend_names(&old_pools, &table::<BackendEntry>(&self.folder, names::BACKENDS)?.all()?);
        for (old, new) in moves(&old, &backend_names(&maps.pool_names.all()?, &maps.backends.all()?)) {
            maps.backend_stats.copy_element(&stats, old, new)?;
        }
        Ok(true)
    }
}

/// Elements of a map by index are as many as before, or the index would mean something else; of one by key there may be
/// more or fewer.
fn has_room(shape: &MapShape, path: &Path) -> Result<bool, LoadError> {
    let info = map_info(path)?;
    let is_keyed = matches!(info.map_type(), Ok(MapType::Hash | MapType::LruHash));
    let is_sized_by_loader = shape.entries == SIZED_BY_LOADER;
    Ok(is_keyed || is_sized_by_loader || info.max_entries() as usize == shape.entries(possible_cpus()?))
}

/// The tables that services lead to, now or for connections from before the last change.
pub(crate) fn named_tables(forwards: &[ServiceForward]) -> Vec<u16> {
    let forwarding = forwards.iter().filter(|forward| forward.forward != Forward::Local.to_number());
    let named = forwarding.flat_map(|forward| [forward.table, forward.previous_table]);
    let named: BTreeSet<u16> = named.filter(|table| usize::from(*table) < MAX_TABLES).collect();
    named.into_iter().collect()
}

fn service_names(names: &[Name]) -> BTreeMap<String, u32> {
    (0..).zip(names).filter_map(|(index, name)| Some((name.as_str()?.to_owned(), index))).collect()
}

type BackendName = (String, IpAddr, u16);

fn backend_names(pools: &[Name], backends: &[BackendEntry]) -> BTreeMap<BackendName, u32> {
    let name = |entry: &BackendEntry| {
        BackendState::from_number(entry.state)?;
        let pool = pools.get(usize::from(entry.pool))?.as_str()?;
        Some((pool.to_owned(), entry.address.into(), entry.port))
    };
    (0..).zip(backends).filter_map(|(slot, entry)| Some((name(entry)?, slot))).collect()
}

/// The old and the new index of everything that has both.
fn moves<Name: Ord>(old: &BTreeMap<Name, u32>, new: &BTreeMap<Name, u32>) -> Vec<(u32, u32)> {
    new.iter().filter_map(|(name, new)| Some((*old.get(name)?, *new))).collect()
}
