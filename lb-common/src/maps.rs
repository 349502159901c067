//! Names and capacities of the maps, and the hash that stands for their layout.

mod meaning;

pub use meaning::meaning;

use crate::fragment::FRAGMENT_SETS;
use crate::lists;
use crate::sample::SAMPLE_RING_BYTES;
use crate::service::TABLE_SLOTS;
use crate::types::{
    BackendCounters, BackendEntry, Control, CookieCounters, CookiePolicy, CookieState, DEFINITIONS, FlowBucket,
    FragmentSet, HashKeys, LimiterSet, ListFacts, MaglevTable, Name, NatCounters, NatKey, NatPolicy, NatSlot, NatWords,
    QuicServerKey, SamplePolicy, Sampler, ServiceCounters, ServiceDrops, ServiceEntry, ServiceForward, ServiceLimits,
    ServiceRange, SharedClocks, SharedReserves, TunnelCounters, TunnelPolicy, ValidatedSource, VerifiedSource,
    VipPrefixEntry, WorkerCounters,
};
use crate::verdict::{NAMES, Reason};
use crate::vip::{MAX_RANGES, MAX_VIP_PREFIXES, VipPrefixKey};

/// Services (named groups of VIP:port) of one instance.
pub const MAX_SERVICES: usize = 256;
/// Worker sockets of one service and address family.
pub const MAX_WORKERS: usize = 64;
/// Of all pools together. A Maglev table has four places for each, and a flow's word 16 bits for its number.
pub const MAX_BACKENDS: usize = 16_384;
pub const MAX_POOLS: usize = 256;
/// Server ids of QUIC services: one for each backend, and while one configuration follows another two.
pub const MAX_QUIC_SERVERS: usize = 2 * MAX_BACKENDS;
/// Maglev tables that exist at once: those in use, and while a change is recent those before it. Services with equal
/// backends share one.
pub const MAX_TABLES: usize = 256;
/// Places of a Maglev table: a prime, and a hundred times the backends that share it evenly within 1 %.
pub const MAGLEV_SIZE: usize = 65_537;
/// Elements that a table has in its map, where each is a multiple of eight bytes long.
pub const MAGLEV_TABLE_LENGTH: usize = 65_540;
/// Buckets of the flow cache, for each CPU: 4 MiB. The map has as many times that as there may be CPUs, one CPU's after
/// the other's: the kernel's own per-CPU maps first fetch where an element is, and in a flood that is a second line from
/// far away.
pub const FLOW_BUCKETS: usize = 1 << 16;
/// Blocked sources: few, because each one is a decision of the L7 side and a lock-out risk. A full list sets at most 6 % of
/// the bits of [`crate::source::Source::block_hint`].
pub const MAX_BLOCKS: usize = 4096;
/// Sources whose step-up is remembered; the least recently used one gives way.
pub const MAX_VERIFIED: usize = 65_536;
/// Sources that brought back a SYN cookie; the least recently used one gives way.
pub const MAX_VALIDATED: usize = 65_536;
/// Words of [`crate::source::Source::verified_hint`]: 2^19 bits, of which a full table sets one in eight.
pub const VERIFIED_HINT_WORDS: usize = 8192;
/// Sets of the limiter of sources, 2 MiB: small enough for the caches, and random sources cannot make it forget one
/// that is over its limit while `flood_pps / (SOURCE_SETS * WAYS)` stays below that limit.
pub const SOURCE_SETS: usize = 1 << 16;
/// Sets of the limiter of networks.
pub const NETWORK_SETS: usize = 1 << 14;
/// Clocks of shared limits: one for each service, and the last for new flows of all services.
pub const SHARED_LIMITS: usize = MAX_SERVICES + 1;
pub const NEW_FLOWS: u32 = MAX_SERVICES as u32;
/// Prefixes whose tunnels end on this host.
pub const MAX_TIER_PREFIXES: usize = 256;
/// Addresses of this host's interfaces.
pub const MAX_OWN_ADDRESSES: usize = 1024;
/// One socket for each service, family and worker.
pub const WORKER_SOCKETS: usize = MAX_SERVICES * FAMILIES * MAX_WORKERS;
const FAMILIES: usize = 2;

/// Index into `WORKER_SOCKETS`; `None` outside the capacities.
#[inline(always)]
pub const fn worker_socket_index(service: u16, ipv6: bool, worker: u16) -> Option<u32> {
    if service as usize >= MAX_SERVICES || worker as usize >= MAX_WORKERS {
        return None;
    }
    let row = service as usize * FAMILIES + ipv6 as usize;
    Some((row * MAX_WORKERS + worker as usize) as u32)
}

/// What a map must look like to be re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// The map's symbol in the eBPF object and its file name among the pins.
    pub name: &'static str,
    /// The type of an element as written below.
    pub value: &'static str,
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Of [`FLOWS`] for each CPU; or [`SIZED_BY_LOADER`].
    pub entries: usize,
}

impl MapShape {
    /// With as many CPUs as there may ever be.
    pub fn entries(&self, possible_cpus: usize) -> usize {
        if self.name == FLOWS { self.entries * possible_cpus } else { self.entries }
    }
}

/// Stands for a number of entries that the configuration decides when the map is made, and that any number is right for.
pub const SIZED_BY_LOADER: usize = 0;

macro_rules! pinned_maps {
    ($($constant:ident $name:literal $key_bytes:expr, $value:ty, $entries:expr;)+) => {
        $(pub const $constant: &str = $name;)+

        /// Every map that outlives the controller.
        pub const PINNED: &[MapShape] = &[$(
            MapShape {
                name: $name,
                value: stringify!($value),
                key_bytes: $key_bytes,
                value_bytes: size_of::<$value>(),
                entries: $entries,
            },
        )+];
    };
}

const INDEX_BYTES: usize = size_of::<u32>();
/// The kernel's own field before the key of a longest-prefix match: how many bits of it count.
const LPM_LENGTH_BYTES: usize = size_of::<u32>();
const SOURCE_BYTES: usize = size_of::<crate::source::Source>();

pinned_maps! {
    CONTROL "CONTROL" INDEX_BYTES, Control, 1;
    SERVICES "SERVICES" INDEX_BYTES, ServiceEntry, 2 * TABLE_SLOTS;
    RANGES "RANGES" INDEX_BYTES, ServiceRange, 2 * MAX_RANGES;
    VIP_PREFIXES "VIP_PREFIXES" LPM_LENGTH_BYTES + size_of::<VipPrefixKey>(), VipPrefixEntry, 2 * MAX_VIP_PREFIXES;
    LIMITS "LIMITS" INDEX_BYTES, ServiceLimits, MAX_SERVICES;
    SHARED_CLOCKS "SHARED_CLOCKS" INDEX_BYTES, SharedClocks, SHARED_LIMITS;
    SHARED_RESERVES "SHARED_RESERVES" INDEX_BYTES, SharedReserves, SHARED_LIMITS;
    SERVICE_NAMES "SERVICE_NAMES" INDEX_BYTES, Name, MAX_SERVICES;
    SERVICE_STATS "SERVICE_STATS" INDEX_BYTES, ServiceCounters, MAX_SERVICES;
    SOURCE_LIMITER "SOURCE_LIMITER" INDEX_BYTES, LimiterSet, SOURCE_SETS;
    NETWORK_LIMITER "NETWORK_LIMITER" INDEX_BYTES, LimiterSet, NETWORK_SETS;
    VERIFIED "VERIFIED" SOURCE_BYTES, VerifiedSource, MAX_VERIFIED;
    VERIFIED_HINTS "VERIFIED_HINTS" INDEX_BYTES, u64, VERIFIED_HINT_WORDS;
    COOKIE_POLICIES "COOKIE_POLICIES" INDEX_BYTES, CookiePolicy, MAX_SERVICES;
    COOKIE_STATES "COOKIE_STATES" INDEX_BYTES, CookieState, MAX_SERVICES;
    COOKIE_STATS "COOKIE_STATS" INDEX_BYTES, CookieCounters, MAX_SERVICES;
    VALIDATED "VALIDATED" SOURCE_BYTES, ValidatedSource, MAX_VALIDATED;
    BLOCKS "BLOCKS" SOURCE_BYTES, u64, MAX_BLOCKS;
    FORWARDS "FORWARDS" INDEX_BYTES, ServiceForward, MAX_SERVICES;
    TABLES "TABLES" INDEX_BYTES, MaglevTable, MAX_TABLES;
    FLOWS "FLOWS" INDEX_BYTES, FlowBucket, FLOW_BUCKETS;
    BACKEND_STATS "BACKEND_STATS" INDEX_BYTES, BackendCounters, MAX_BACKENDS;
    BACKENDS "BACKENDS" INDEX_BYTES, BackendEntry, MAX_BACKENDS;
    POOL_NAMES "POOL_NAMES" INDEX_BYTES, Name, MAX_POOLS;
    REASONS "REASONS" INDEX_BYTES, u64, Reason::COUNTERS;
    WORKER_STATS "WORKER_STATS" INDEX_BYTES, WorkerCounters, MAX_WORKERS;
    SOCKETS "SOCKETS" INDEX_BYTES, u32, WORKER_SOCKETS;
    KEYS "KEYS" INDEX_BYTES, HashKeys, 1;
    LIST_ROOTS "LIST_ROOTS" INDEX_BYTES, u32, lists::FAMILIES;
    LIST_TABLES "LIST_TABLES" INDEX_BYTES, u32, lists::TABLES;
    LIST_FACTS "LIST_FACTS" INDEX_BYTES, ListFacts, lists::FAMILIES;
    QUIC_SERVERS "QUIC_SERVERS" size_of::<QuicServerKey>(), u64, MAX_QUIC_SERVERS;
    TUNNEL_POLICY "TUNNEL_POLICY" INDEX_BYTES, TunnelPolicy, 1;
    TUNNEL_STATS "TUNNEL_STATS" INDEX_BYTES, TunnelCounters, 1;
    TIER "TIER" LPM_LENGTH_BYTES + size_of::<crate::Address>(), u64, MAX_TIER_PREFIXES;
    OWN_ADDRESSES "OWN_ADDRESSES" SOURCE_BYTES, u64, MAX_OWN_ADDRESSES;
    NAT_POLICY "NAT_POLICY" INDEX_BYTES, NatPolicy, 1;
    NAT_SLOTS "NAT_SLOTS" INDEX_BYTES, NatSlot, SIZED_BY_LOADER;
    NAT_WORDS "NAT_WORDS" INDEX_BYTES, NatWords, SIZED_BY_LOADER;
    NAT_INDEX "NAT_INDEX" size_of::<NatKey>(), u32, SIZED_BY_LOADER;
    NAT_STATS "NAT_STATS" INDEX_BYTES, NatCounters, MAX_SERVICES;
    FRAGMENTS "FRAGMENTS" INDEX_BYTES, FragmentSet, FRAGMENT_SETS;
    SERVICE_DROPS "SERVICE_DROPS" INDEX_BYTES, ServiceDrops, MAX_SERVICES;
    SAMPLE_POLICY "SAMPLE_POLICY" INDEX_BYTES, SamplePolicy, 1;
    SAMPLER "SAMPLER" INDEX_BYTES, Sampler, Reason::COUNT;
    SAMPLES "SAMPLES" 0, (), SAMPLE_RING_BYTES;
}

/// Changes whenever the bytes in a pinned map would mean something else: another field, type, capacity or reason.
///
/// It names the folder of the pins, because the kernel re-opens a pinned map without comparing its layout.
pub const LAYOUT: u64 = layout();

const fn layout() -> u64 {
    let mut hash = mix_text(FNV_OFFSET, lists::LAYOUT);
    let mut index = 0;
    while index < PINNED.len() {
        let map = &PINNED[index];
        hash = mix_text(hash, map.name);
        hash = mix_number(mix_number(mix_number(hash, map.key_bytes), map.value_bytes), map.entries);
        index += 1;
    }
    index = 0;
    while index < DEFINITIONS.len() {
        hash = mix_text(hash, DEFINITIONS[index]);
        index += 1;
    }
    index = 0;
    while index < NAMES.len() {
        hash = mix_text(hash, NAMES[index]);
        index += 1;
    }
    hash
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

const fn mix_byte(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(FNV_PRIME)
}

const fn mix_text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        hash = mix_byte(hash, bytes[index]);
        index += 1;
    }
    // A separator no UTF-8 text contains, so that moving a letter from one name to the next changes the hash.
    mix_byte(hash, 0xff)
}

const fn mix_number(mut hash: u64, number: usize) -> u64 {
    let bytes = (number as u64).to_le_bytes();
    let mut index = 0;
    while index < bytes.len() {
        hash = mix_byte(hash, bytes[index]);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_service_family_and_worker_has_a_socket_index_of_its_own() {
        let mut seen = HashSet::new();
        for service in 0..MAX_SERVICES as u16 {
            for (ipv6, worker) in (0..MAX_WORKERS as u16).flat_map(|worker| [(false, worker), (true, worker)]) {
                let index = worker_socket_index(service, ipv6, worker).expect("inside the capacities");
                assert!((index as usize) < WORKER_SOCKETS);
                assert!(seen.insert(index), "service {service} ipv6 {ipv6} worker {worker}");
            }
        }
        assert_eq!(worker_socket_index(MAX_SERVICES as u16, false, 0), None);
        assert_eq!(worker_socket_index(0, false, MAX_WORKERS as u16), None);
    }

    #[test]
    fn moving_a_letter_between_neighbouring_names_changes_the_layout() {
        let one = mix_text(mix_text(FNV_OFFSET, "ab"), "c");
        let other = mix_text(mix_text(FNV_OFFSET, "a"), "bc");
        assert_ne!(one, other);
    }

    #[test]
    fn a_field_renamed_or_moved_without_a_change_of_size_is_seen_by_the_layout() {
        let control = DEFINITIONS.iter().find(|text| text.starts_with("Control ")).expect("defined");
        assert!(
            control.starts_with("Control active_table:u32 backends_end:u32 any_vip_prefixes:[u32; 2] seeds:[u64; 2]"),
            "{control}"
        );
    }
}
