//! The maps, and safe ways to read and write them. All raw map pointers are here.
#![expect(unsafe_code, reason = "map elements are reached by raw pointers; the verifier checks every access")]

mod cookies;
mod forget;
pub(crate) mod fragments;
pub(crate) mod limits;
pub(crate) mod lists;
pub(crate) mod nat;
pub(crate) mod samples;
pub(crate) mod scratch;
pub(crate) mod tunnels;
pub(crate) mod verified;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, SockMap};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{SkLookupContext, XdpContext};
use lb_common::address::HINT_WORDS;
use lb_common::maps::{
    FLOW_BUCKETS, MAX_BACKENDS, MAX_BLOCKS, MAX_POOLS, MAX_QUIC_SERVERS, MAX_SERVICES, MAX_TABLES, MAX_WORKERS,
    WORKER_SOCKETS,
};
use lb_common::rate::conform;
use lb_common::service::TABLE_SLOTS;
use lb_common::slow_path::SlowPath;
use lb_common::types::{
    BackendCounters, BackendEntry, Control, FlowBucket, HashKeys, Limit, MaglevTable, Name, QuicServerKey,
    ServiceCounters, ServiceDrops, ServiceEntry, ServiceForward, ServiceRange, VipPrefixEntry, WorkerCounters,
};
use lb_common::vip::{MAX_RANGES, MAX_VIP_PREFIXES, VipPrefixKey};
use lb_common::{Address, DropClass, Reason, Source};

pub(crate) use cookies::*;
pub(crate) use forget::*;

type SourceKey = [u32; 4];

/// `BPF_F_MMAPABLE`. Nobody maps these, but only then do the kernel's elements begin on a page, so that no set, no clock and
/// no bucket lies on two cache lines.
const PAGE_ALIGNED: usize = 1 << 10;

#[btf_map]
static CONTROL: Array<Control, 1> = Array::new();
#[btf_map]
static SERVICES: Array<ServiceEntry, { 2 * TABLE_SLOTS }> = Array::new();
#[btf_map]
static RANGES: Array<ServiceRange, { 2 * MAX_RANGES }> = Array::new();
#[btf_map]
static VIP_PREFIXES: LpmTrie<VipPrefixKey, VipPrefixEntry, { 2 * MAX_VIP_PREFIXES }> = LpmTrie::new();
#[btf_map]
static SERVICE_STATS: PerCpuArray<ServiceCounters, MAX_SERVICES> = PerCpuArray::new();
#[btf_map]
static SERVICE_DROPS: PerCpuArray<ServiceDrops, MAX_SERVICES> = PerCpuArray::new();
#[btf_map]
static BLOCKS: HashMap<SourceKey, u64, MAX_BLOCKS> = HashMap::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { Reason::COUNTERS }> = PerCpuArray::new();
#[btf_map]
static WORKER_STATS: PerCpuArray<WorkerCounters, MAX_WORKERS> = PerCpuArray::new();
#[btf_map]
static SOCKETS: SockMap<WORKER_SOCKETS> = SockMap::new();

#[btf_map]
static FORWARDS: Array<ServiceForward, MAX_SERVICES> = Array::new();
#[btf_map]
static TABLES: Array<MaglevTable, MAX_TABLES> = Array::new();
#[btf_map]
static FLOWS: Array<FlowBucket, FLOW_BUCKETS, PAGE_ALIGNED> = Array::new();
#[btf_map]
static BACKENDS: Array<BackendEntry, MAX_BACKENDS> = Array::new();
#[btf_map]
static BACKEND_STATS: PerCpuArray<BackendCounters, MAX_BACKENDS> = PerCpuArray::new();

#[btf_map]
static QUIC_SERVERS: HashMap<QuicServerKey, u64, MAX_QUIC_SERVERS> = HashMap::new();

// Written and read by user space only; declared here so that they are created, pinned and found again with the rest.
#[btf_map]
static SERVICE_NAMES: Array<Name, MAX_SERVICES> = Array::new();
#[btf_map]
static POOL_NAMES: Array<Name, MAX_POOLS> = Array::new();
#[btf_map]
static KEYS: Array<HashKeys, 1> = Array::new();

/// Filled by user space with the programs of the same object, and pinned by each load in place of the one before: an
/// old program goes on calling the programs that it was loaded with.
#[btf_map]
static SLOW_PATHS: ProgramArray<{ SlowPath::COUNT }> = ProgramArray::new();

/// Goes on in another program; returns only if that is missing.
///
/// One call for each program, with its index written there: to those the kernel jumps directly. A call whose index is a
/// variable costs 20 ns more, an indirect jump behind a retpoline.
#[inline(always)]
pub(crate) fn go_on_in(context: &XdpContext, path: SlowPath) {
    match path {
        SlowPath::Unusual => go_on_at::<{ SlowPath::Unusual.index() }>(context),
        SlowPath::Fragment => go_on_at::<{ SlowPath::Fragment.index() }>(context),
        SlowPath::Judge => go_on_at::<{ SlowPath::Judge.index() }>(context),
        SlowPath::Tunnel => go_on_at::<{ SlowPath::Tunnel.index() }>(context),
        SlowPath::Inner => go_on_at::<{ SlowPath::Inner.index() }>(context),
        SlowPath::InnerService => go_on_at::<{ SlowPath::InnerService.index() }>(context),
        SlowPath::Forward => go_on_at::<{ SlowPath::Forward.index() }>(context),
        SlowPath::Icmp => go_on_at::<{ SlowPath::Icmp.index() }>(context),
        SlowPath::IcmpError => go_on_at::<{ SlowPath::IcmpError.index() }>(context),
        SlowPath::SynCookie => go_on_at::<{ SlowPath::SynCookie.index() }>(context),
        SlowPath::CookieAnswer => go_on_at::<{ SlowPath::CookieAnswer.index() }>(context),
        SlowPath::CookieCheck => go_on_at::<{ SlowPath::CookieCheck.index() }>(context),
        SlowPath::Sample => go_on_at::<{ SlowPath::Sample.index() }>(context),
        SlowPath::TooBig => go_on_at::<{ SlowPath::TooBig.index() }>(context),
        SlowPath::Mss => go_on_at::<{ SlowPath::Mss.index() }>(context),
        SlowPath::Quic => go_on_at::<{ SlowPath::Quic.index() }>(context),
        SlowPath::Nat => go_on_at::<{ SlowPath::Nat.index() }>(context),
        SlowPath::NatNew => go_on_at::<{ SlowPath::NatNew.index() }>(context),
        SlowPath::NatReply => go_on_at::<{ SlowPath::NatReply.index() }>(context),
        SlowPath::NatError => go_on_at::<{ SlowPath::NatError.index() }>(context),
    }
}

#[inline(always)]
fn go_on_at<const INDEX: u32>(context: &XdpContext) {
    // SAFETY: nothing here waits to be dropped.
    unsafe { SLOW_PATHS.tail_call(context, INDEX) }
    // SAFETY: one instruction that writes a register nobody reads. The compiler makes one call of several that only
    // differ in a number, but not of several that are followed by something else each.
    unsafe {
        core::arch::asm!("{unused} = {index}", unused = out(reg) _, index = const INDEX, options(nomem, nostack));
    }
}

/// Constants that user space sets before loading; the verifier folds them into the program.
#[unsafe(no_mangle)]
static CONNECTION_KEY: Global<[u64; 2]> = Global::new([0; 2]);
#[unsafe(no_mangle)]
static SOURCE_KEY: Global<[u64; 2]> = Global::new([0; 2]);
#[unsafe(no_mangle)]
static TICK_NS: Global<u64> = Global::new(1);

#[inline(always)]
pub(crate) fn connection_key() -> [u64; 2] {
    CONNECTION_KEY.load()
}

#[inline(always)]
pub(crate) fn source_key() -> [u64; 2] {
    SOURCE_KEY.load()
}

/// Nanoseconds in steps of a tick, from an origin of its own: for limits only. The jiffies counter is one inlined
/// load; the coarse clock steps as rarely and costs a call.
#[inline(always)]
pub(crate) fn limiter_clock_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }.wrapping_mul(TICK_NS.load())
}

/// [`limiter_clock_ns`] in picoseconds, which wrap around.
#[inline(always)]
pub(crate) fn limiter_clock_ps() -> u64 {
    limiter_clock_ns().wrapping_mul(1000)
}

/// [`limiter_clock_ns`] in steps of 1.07 seconds, which cost no division.
#[inline(always)]
pub(crate) fn limiter_clock_seconds() -> u32 {
    (limiter_clock_ns() >> 30) as u32
}

/// `CLOCK_MONOTONIC`, to compare with the times that user space writes. A call: off the fast path only.
#[inline(always)]
pub(crate) fn monotonic_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

#[inline(always)]
pub(crate) fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}

#[inline(always)]
pub(crate) fn service_entry(table: u32, slot: usize) -> Option<&'static ServiceEntry> {
    SERVICES.get(table * TABLE_SLOTS as u32 + slot as u32)
}

#[inline(always)]
pub(crate) fn service_range(table: u32, index: u16) -> Option<&'static ServiceRange> {
    RANGES.get(table * MAX_RANGES as u32 + index as u32)
}

/// What stands for the longest prefix around an address. A call: only where prefixes are configured.
#[inline(always)]
pub(crate) fn vip_prefix(table: u32, address: &Address) -> Option<Address> {
    let key = Key::new(VipPrefixKey::WHOLE_BITS, VipPrefixKey { table, address: *address });
    VIP_PREFIXES.get(&key).map(|entry| entry.stand_in)
}

/// `false` of nearly everything that is not in the set behind the hints. The mask shows the verifier that the word is there.
#[inline(always)]
pub(crate) fn has_hint(hints: &[u64; HINT_WORDS], (word, bit): (u32, u64)) -> bool {
    hints[word as usize & (HINT_WORDS - 1)] & bit != 0
}

/// When the block of this source ends, in [`monotonic_ns`] time.
#[inline(always)]
pub(crate) fn blocked_until_ns(source: &Source) -> Option<u64> {
    let until_ns = BLOCKS.get_ptr(source.key())?;
    // SAFETY: the element stays readable for the program's run; an aligned u64 is never read half-written.
    Some(unsafe { until_ns.read_volatile() })
}

/// Adds one to a packet's outcome and returns this CPU's new count.
#[inline(always)]
pub(crate) fn count_outcome(reason: Reason) -> u64 {
    let Some(counter) = REASONS.get_ptr_mut(reason.counter(reason.class())) else {
        return 0;
    };
    // SAFETY: a per-CPU element; XDP runs are not preempted by another XDP run on the same CPU.
    unsafe {
        *counter += 1;
        *counter
    }
}

#[inline(always)]
pub(crate) fn update_service(service: u16, update: impl FnOnce(&mut ServiceCounters)) {
    if let Some(counters) = SERVICE_STATS.get_ptr_mut(service as u32) {
        // SAFETY: as in `count_outcome`.
        update(unsafe { &mut *counters });
    }
}

/// Adds one to a service's drops of the reason's class.
#[inline(always)]
pub(crate) fn count_drop(service: u16, reason: Reason) {
    if let Some(drops) = SERVICE_DROPS.get_ptr_mut(service as u32) {
        // The mask shows the verifier that the class is inside the element.
        let class = reason.drop_class() as usize & (DropClass::COUNT - 1);
        // SAFETY: as in `count_outcome`.
        unsafe { (*drops).packets[class] += 1 };
    }
}

#[inline(always)]
pub(crate) fn update_worker(worker: u16, update: impl FnOnce(&mut WorkerCounters)) {
    if let Some(counters) = WORKER_STATS.get_ptr_mut(worker as u32) {
        // SAFETY: as in `count_outcome`. sk_lookup and XDP write different fields.
        update(unsafe { &mut *counters });
    }
}

#[inline(always)]
pub(crate) fn forward(service: u16) -> Option<&'static ServiceForward> {
    FORWARDS.get(service as u32)
}

/// The backend at a place of a Maglev table. User space writes a table only while no packet is led to it.
#[inline(always)]
pub(crate) fn table_backend(table: u16, place: usize) -> Option<u16> {
    let table = TABLES.get(table as u32)?;
    table.backends.get(place).copied()
}

#[inline(always)]
pub(crate) fn backend(backend: u16) -> Option<&'static BackendEntry> {
    BACKENDS.get(backend as u32)
}

/// The backend with a server id.
#[inline(always)]
pub(crate) fn quic_server(key: &QuicServerKey) -> Option<u16> {
    let number = QUIC_SERVERS.get_ptr(key)?;
    // SAFETY: the element stays readable for the program's run; an aligned u64 is never read half-written.
    Some(unsafe { number.read_volatile() } as u16)
}

/// The next hop's Ethernet address and ours, one after the other as in a frame.
#[inline(always)]
pub(crate) fn link_addresses(backend: &BackendEntry) -> (u64, u32) {
    let start = (&raw const *backend).cast::<u8>();
    let offset = core::mem::offset_of!(BackendEntry, next_hop_mac);
    const { assert!(core::mem::offset_of!(BackendEntry, own_mac) == core::mem::offset_of!(BackendEntry, next_hop_mac) + 6) };
    // SAFETY: the two fields stand together, twelve bytes inside the element.
    unsafe { (start.add(offset).cast::<u64>().read_unaligned(), start.add(offset + 8).cast::<u32>().read_unaligned()) }
}

/// This CPU's flows of a bucket.
#[inline(always)]
pub(crate) fn flows(bucket: u32) -> Option<&'static mut FlowBucket> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let bucket = FLOWS.get_ptr_mut(cpu * FLOW_BUCKETS as u32 | bucket)?;
    // SAFETY: this CPU's own; XDP runs are not preempted by another XDP run on the same CPU, and each asks once. What is
    // read here is not used: it begins to fetch the cache line.
    unsafe {
        (&raw const (*bucket).words[0]).read_volatile();
        Some(&mut *bucket)
    }
}

#[inline(always)]
pub(crate) fn update_backend(backend: u16, update: impl FnOnce(&mut BackendCounters)) {
    if let Some(counters) = BACKEND_STATS.get_ptr_mut(backend as u32) {
        // SAFETY: as in `count_outcome`.
        update(unsafe { &mut *counters });
    }
}

/// Makes the socket at `index` the one that gets the connection; `false` if there is none.
#[inline(always)]
pub(crate) fn assign_socket(context: &SkLookupContext, index: u32) -> bool {
    SOCKETS.redirect_sk_lookup(context, index, 0).is_ok()
}

/// What sk_lookup knows of the packet, as the kernel keeps it: addresses in network order, `local_port` in host order.
pub(crate) struct Lookup {
    pub(crate) is_ipv6: bool,
    pub(crate) protocol: u8,
    pub(crate) remote_words_be: [u32; 4],
    pub(crate) remote_port_be: u16,
    pub(crate) local_words_be: [u32; 4],
    pub(crate) local_port: u16,
}

const AF_INET6: u32 = 10;

/// IPv4 addresses are left in the last word, the others zero.
///
/// Each field is read by itself and whatever the family: the kernel rewrites a load only at its fixed offset, and the
/// compiler would otherwise make one load of two behind a computed pointer. Of the other family it reads zeros.
#[inline(always)]
pub(crate) fn lookup(context: &SkLookupContext) -> Lookup {
    macro_rules! field {
        ($($field:tt)+) => {
            // SAFETY: the context is readable for the program's run.
            unsafe { (&raw const (*context.lookup).$($field)+).read_volatile() }
        };
    }
    let remote_ip4 = field!(remote_ip4);
    let local_ip4 = field!(local_ip4);
    let mut remote_words_be =
        [field!(remote_ip6[0]), field!(remote_ip6[1]), field!(remote_ip6[2]), field!(remote_ip6[3])];
    let mut local_words_be = [field!(local_ip6[0]), field!(local_ip6[1]), field!(local_ip6[2]), field!(local_ip6[3])];
    let is_ipv6 = field!(family) == AF_INET6;
    if !is_ipv6 {
        remote_words_be = [0, 0, 0, remote_ip4];
        local_words_be = [0, 0, 0, local_ip4];
    }
    Lookup {
        is_ipv6,
        protocol: field!(protocol) as u8,
        remote_words_be,
        remote_port_be: field!(remote_port),
        local_words_be,
        local_port: field!(local_port) as u16,
    }
}

/// Charges a packet to a limit whose state other CPUs write too: `true` if it conforms.
///
/// After [`MAX_RACES`] lost races the packet conforms uncharged: it competes with as many that were charged, so the
/// error is a fraction of the rate, and waiting longer would hand an attacker the CPU.
///
/// # Safety
/// `clock` points to an aligned u64 in a map element.
#[inline(always)]
unsafe fn charge(clock: *mut u64, limit: &Limit) -> bool {
    const MAX_RACES: u32 = 4;
    let now_ps = limiter_clock_ps();
    // SAFETY: by this function's contract.
    let mut seen_ps = unsafe { clock.read_volatile() };
    let mut races = 0;
    while races < MAX_RACES {
        let Some(next_ps) = conform(limit, seen_ps, now_ps) else {
            return false;
        };
        // SAFETY: by this function's contract.
        let found_ps = unsafe { compare_and_swap(clock, seen_ps, next_ps) };
        if found_ps == seen_ps {
            return true;
        }
        seen_ps = found_ps;
        races += 1;
    }
    true
}

/// Returns what was there before. The compiler offers no atomic of this width for the target.
///
/// # Safety
/// `place` points to an aligned u64 in a map element.
#[inline(always)]
unsafe fn compare_and_swap(place: *mut u64, expected: u64, new: u64) -> u64 {
    let mut found = expected;
    // SAFETY: one instruction, which the verifier checks as a read and a write of 8 bytes at `place`.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inout("r0") found,
            options(nostack),
        );
    }
    found
}
