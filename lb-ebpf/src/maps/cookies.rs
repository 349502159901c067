//! What SYN cookies remember: pressure by service, freshness by listening socket, and the sources that proved theirs.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::Source;
use lb_common::maps::{MAX_SERVICES, MAX_VALIDATED, WORKER_SOCKETS};
use lb_common::syn_cookie::Offer;
use lb_common::types::{CookieCounters, CookiePolicy, CookieStamp, CookieState, Limit, ValidatedSource};

use super::{SourceKey, charge, limiter_clock_ns, monotonic_ns};

#[btf_map]
static COOKIE_POLICIES: Array<CookiePolicy, MAX_SERVICES> = Array::new();
#[btf_map]
static COOKIE_STATES: Array<CookieState, MAX_SERVICES> = Array::new();
#[btf_map]
static COOKIE_STATS: PerCpuArray<CookieCounters, MAX_SERVICES> = PerCpuArray::new();
#[btf_map]
static VALIDATED: LruHashMap<SourceKey, ValidatedSource, MAX_VALIDATED> = LruHashMap::new();

// Fresh with each load, and not pinned: the sockets that they speak of are the loading process's own.
#[btf_map]
static COOKIE_STAMPS: Array<CookieStamp, WORKER_SOCKETS> = Array::new();
#[btf_map]
static SOCKET_SEARCH: PerCpuArray<u32, 1> = PerCpuArray::new();

#[unsafe(no_mangle)]
static COOKIE_SEGMENT_BYTES: Global<u16> = Global::new(1460);
#[unsafe(no_mangle)]
static COOKIE_WINDOW_SCALE: Global<u8> = Global::new(7);
#[unsafe(no_mangle)]
static COOKIE_TIMESTAMPS: Global<u8> = Global::new(0);

const SECOND_NS: u64 = 1_000_000_000;
/// Pressure ends this long after the last moment above the threshold.
const PRESSURE_HOLD_NS: u64 = 5 * SECOND_NS;
/// A client that waits longer before it acknowledges has its ACK judged like any other.
const ANSWERED_HOLD_NS: u64 = 20 * SECOND_NS;
/// The kernel takes cookies for two minutes after it was told that they are about.
const STAMP_VALID_NS: u64 = 60 * SECOND_NS;
/// How long a cookie vouches for its source.
const VALIDATED_NS: u64 = 600 * SECOND_NS;
const IPV6_HEADER_EXTRA_BYTES: u16 = 20;

/// Why the kernel's sk_lookup program runs on this CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketSearch {
    /// For a packet.
    Packet = 0,
    /// Because we asked for a connection; listeners are of no interest.
    Connection = 1,
    /// Because we asked for the listener that a packet would get.
    Listener = 2,
}

#[inline(always)]
pub(crate) fn cookie_policy(service: u16) -> Option<&'static CookiePolicy> {
    COOKIE_POLICIES.get(service as u32)
}

/// `ipv6` headers are longer; the timestamps' clock is asked only if somebody will read it.
#[inline(always)]
pub(crate) fn cookie_offer(ipv6: bool, with_timestamp: bool) -> Offer {
    let extra_bytes = if ipv6 { IPV6_HEADER_EXTRA_BYTES } else { 0 };
    let timestamp_clock_ms =
        if COOKIE_TIMESTAMPS.load() != 0 && with_timestamp { Some((monotonic_ns() / 1_000_000) as u32) } else { None };
    Offer {
        max_segment_bytes: COOKIE_SEGMENT_BYTES.load() - extra_bytes,
        window_scale: COOKIE_WINDOW_SCALE.load(),
        timestamp_clock_ms,
    }
}

/// Counts a SYN: `true` if it is the last of this CPU's batch, to be followed by [`charge_batch`].
#[inline(always)]
pub(crate) fn count_syn(service: u16, policy: &CookiePolicy) -> Option<bool> {
    let counters = COOKIE_STATS.get_ptr_mut(service as u32)?;
    // SAFETY: a per-CPU element; XDP runs are not preempted by another XDP run on the same CPU.
    let seen_syns = unsafe {
        (*counters).seen_syns += 1;
        (*counters).seen_syns
    };
    Some(seen_syns & policy.batch_mask as u64 == 0)
}

/// Charges the batch that the SYN just counted completed, if it did, to the clock that all CPUs share.
#[inline(always)]
pub(crate) fn charge_batch(service: u16, policy: &CookiePolicy) -> Option<()> {
    let counters = COOKIE_STATS.get_ptr(service as u32)?;
    let state = COOKIE_STATES.get_ptr_mut(service as u32)?;
    // SAFETY: as in `count_syn`; and an element of an array map never goes away, and its words are aligned.
    unsafe {
        if (*counters).seen_syns & policy.batch_mask as u64 == 0
            && !charge(&raw mut (*state).pressure_arrival_ps, &policy.pressure)
        {
            extend(&raw mut (*state).pressure_until_ns, PRESSURE_HOLD_NS);
        }
    }
    Some(())
}

#[inline(always)]
pub(crate) fn is_pressed(service: u16) -> Option<bool> {
    let state = COOKIE_STATES.get_ptr(service as u32)?;
    // SAFETY: an element of an array map never goes away; an aligned u64 is never read half-written.
    let until_ns = unsafe { (&raw const (*state).pressure_until_ns).read_volatile() };
    Some(until_ns != 0 && limiter_clock_ns() < until_ns)
}

/// May ACKs bring cookies back?
#[inline(always)]
pub(crate) fn awaits_cookies(service: u16) -> Option<bool> {
    let state = COOKIE_STATES.get_ptr(service as u32)?;
    // SAFETY: as in `is_pressed`.
    let until_ns = unsafe { (&raw const (*state).answered_until_ns).read_volatile() };
    Some(until_ns != 0 && limiter_clock_ns() < until_ns)
}

/// A SYN was answered.
#[inline(always)]
pub(crate) fn await_cookies(service: u16) -> Option<()> {
    let state = COOKIE_STATES.get_ptr_mut(service as u32)?;
    // SAFETY: an element of an array map never goes away, and its words are aligned.
    unsafe { extend(&raw mut (*state).answered_until_ns, ANSWERED_HOLD_NS) };
    Some(())
}

/// Moves an end to `hold_ns` from now. Once a tick at most: the word is on a line that all CPUs read.
///
/// # Safety
/// `until_ns` points to an aligned u64 in a map element.
#[inline(always)]
unsafe fn extend(until_ns: *mut u64, hold_ns: u64) {
    let wanted_ns = limiter_clock_ns() + hold_ns;
    // SAFETY: by this function's contract.
    unsafe {
        if until_ns.read_volatile() != wanted_ns {
            until_ns.write_volatile(wanted_ns);
        }
    }
}

#[inline(always)]
pub(crate) fn update_cookies(service: u16, update: impl FnOnce(&mut CookieCounters)) {
    if let Some(counters) = COOKIE_STATS.get_ptr_mut(service as u32) {
        // SAFETY: as in `count_syn`.
        update(unsafe { &mut *counters });
    }
}

/// Does the kernel take cookies for the listening socket at `index`? Once a second, and as long as it does not once a
/// tick, `tell` tells it that they are about.
#[inline(always)]
pub(crate) fn takes_cookies(service: u16, index: u32, tell: impl FnOnce() -> bool) -> Option<bool> {
    let stamp = COOKIE_STAMPS.get_ptr_mut(index)?;
    let now_ns = limiter_clock_ns();
    // SAFETY: an element of an array map never goes away, and its words are aligned.
    let (stamped_ns, tried_ns) =
        unsafe { ((&raw const (*stamp).stamped_ns).read_volatile(), (&raw const (*stamp).tried_ns).read_volatile()) };
    let is_fresh = stamped_ns != 0 && now_ns - stamped_ns < STAMP_VALID_NS;
    let is_due = if is_fresh { now_ns - tried_ns >= SECOND_NS } else { now_ns != tried_ns };
    if !is_due {
        return Some(is_fresh);
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*stamp).tried_ns).write_volatile(now_ns) };
    if !tell() {
        return Some(is_fresh);
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*stamp).stamped_ns).write_volatile(now_ns) };
    let state = COOKIE_STATES.get_ptr_mut(service as u32)?;
    // SAFETY: as above.
    unsafe { (&raw mut (*state).last_answered_ns).write_volatile(monotonic_ns()) };
    Some(true)
}

/// Remembers that `source` brought `cookie` back, and charges the connection that it begins to the source's proven
/// limit: `true` if it conforms. The first data may overtake the kernel's work on the ACK before it, and bring the same
/// cookie again: it is charged once.
#[inline(always)]
pub(crate) fn validate(source: &Source, cookie: u64, limit: &Limit) -> bool {
    let now_ns = limiter_clock_ns();
    if VALIDATED.get_ptr(source.key()).is_none() {
        let entry = ValidatedSource {
            valid_until_ns: now_ns + VALIDATED_NS,
            connection_arrival_ps: 0,
            packet_arrival_ps: 0,
            last_cookie: 0,
        };
        // An LRU map is never full; two CPUs that insert at once lose one connection's charge.
        let _ = VALIDATED.insert(source.key(), &entry, 0);
    }
    let Some(entry) = VALIDATED.get_ptr_mut(source.key()) else {
        return true;
    };
    // SAFETY: the element stays readable for the program's run. The LRU may give it to another source meanwhile: then
    // one connection is charged to a neighbour.
    unsafe {
        (&raw mut (*entry).valid_until_ns).write_volatile(now_ns + VALIDATED_NS);
        let last_cookie = &raw mut (*entry).last_cookie;
        if limit.is_unlimited() || last_cookie.read_volatile() == cookie {
            return true;
        }
        let conforms = charge(&raw mut (*entry).connection_arrival_ps, limit);
        if conforms {
            last_cookie.write_volatile(cookie);
        }
        conforms
    }
}

/// Charges a packet of an existing connection to the source's proven limit. `None` if the source proved nothing.
#[inline(always)]
pub(crate) fn charge_validated(source: &Source, limit: &Limit) -> Option<bool> {
    let entry = VALIDATED.get_ptr_mut(source.key())?;
    // SAFETY: as in `validate`.
    unsafe {
        if (&raw const (*entry).valid_until_ns).read_volatile() <= limiter_clock_ns() {
            return None;
        }
        Some(limit.is_unlimited() || charge(&raw mut (*entry).packet_arrival_ps, limit))
    }
}

/// Charges a packet whose source is proven to the service's limit of those.
#[inline(always)]
pub(crate) fn charge_proven_service(service: u16, limit: &Limit) -> Option<bool> {
    let state = COOKIE_STATES.get_ptr_mut(service as u32)?;
    // SAFETY: an element of an array map never goes away, and its words are aligned.
    Some(limit.is_unlimited() || unsafe { charge(&raw mut (*state).proven_arrival_ps, limit) })
}

/// Runs `search`, which asks the kernel for a socket, so that our program at sk_lookup knows why it is run.
#[inline(always)]
pub(crate) fn with_search<T>(why: SocketSearch, search: impl FnOnce() -> T) -> Option<T> {
    let place = SOCKET_SEARCH.get_ptr_mut(0)?;
    // SAFETY: a per-CPU element; the search runs on this CPU, and no other packet does meanwhile.
    unsafe { place.write_volatile(why as u32) };
    let found = search();
    // SAFETY: as above.
    unsafe { place.write_volatile(SocketSearch::Packet as u32) };
    Some(found)
}

#[inline(always)]
pub(crate) fn socket_search() -> SocketSearch {
    // SAFETY: as in `with_search`.
    match SOCKET_SEARCH.get_ptr(0).map(|why| unsafe { why.read_volatile() }) {
        Some(1) => SocketSearch::Connection,
        Some(2) => SocketSearch::Listener,
        _ => SocketSearch::Packet,
    }
}
