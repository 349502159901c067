//! The limits and their state.
#![expect(unsafe_code, reason = "map elements are reached by raw pointers; the verifier checks every access")]

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::maps::{MAX_SERVICES, NETWORK_SETS, SHARED_LIMITS, SOURCE_SETS};
use lb_common::rate::Dimension;
use lb_common::rate::set::{Set, WAYS};
use lb_common::rate::shared::{self, Clock, Reserve};
use lb_common::types::{LimiterSet, ServiceLimits, SharedClocks, SharedLimit, SharedReserves};

use super::{PAGE_ALIGNED, compare_and_swap, forget_number, limiter_clock_ps};

#[btf_map]
static LIMITS: Array<ServiceLimits, MAX_SERVICES> = Array::new();
#[btf_map]
static SHARED_CLOCKS: Array<SharedClocks, SHARED_LIMITS, PAGE_ALIGNED> = Array::new();
#[btf_map]
static SHARED_RESERVES: PerCpuArray<SharedReserves, SHARED_LIMITS> = PerCpuArray::new();
#[btf_map]
static SOURCE_LIMITER: Array<LimiterSet, SOURCE_SETS, PAGE_ALIGNED> = Array::new();
#[btf_map]
static NETWORK_LIMITER: Array<LimiterSet, NETWORK_SETS, PAGE_ALIGNED> = Array::new();

#[inline(always)]
pub(crate) fn of_service(service: u16) -> Option<&'static ServiceLimits> {
    LIMITS.get(service as u32)
}

#[inline(always)]
pub(crate) fn source_set(index: u32) -> Option<SetElement> {
    SOURCE_LIMITER.get_ptr_mut(index).map(SetElement)
}

#[inline(always)]
pub(crate) fn network_set(index: u32) -> Option<SetElement> {
    NETWORK_LIMITER.get_ptr_mut(index).map(SetElement)
}

/// This CPU's reserve of a shared limit.
#[inline(always)]
pub(crate) fn reserve(index: u32, dimension: Dimension) -> Option<ReserveElement> {
    let reserves = SHARED_RESERVES.get_ptr_mut(index)?;
    // SAFETY: fields of an element, which never goes away.
    Some(ReserveElement(unsafe {
        match dimension {
            Dimension::Packets => &raw mut (*reserves).packets,
            Dimension::Syns => &raw mut (*reserves).syns,
            Dimension::Bytes => &raw mut (*reserves).bytes,
        }
    }))
}

/// The clock of a shared limit. Only who has spent his reserve asks for it.
#[inline(always)]
fn clock(index: u32, dimension: Dimension) -> Option<ClockElement> {
    let clocks = SHARED_CLOCKS.get_ptr_mut(index)?;
    // SAFETY: fields of an element, which never goes away.
    Some(ClockElement(unsafe {
        match dimension {
            Dimension::Packets => &raw mut (*clocks).packets_ps,
            Dimension::Syns => &raw mut (*clocks).syns_ps,
            Dimension::Bytes => &raw mut (*clocks).bytes_ps,
        }
    }))
}

/// An element of a limiter.
#[derive(Clone, Copy)]
pub(crate) struct SetElement(*mut LimiterSet);

impl SetElement {
    #[inline(always)]
    fn entry(&self, way: u32) -> *mut u64 {
        // SAFETY: inside the element: the mask keeps what the callers promise, and shows it to the verifier.
        unsafe { self.0.cast::<u64>().add((way & (WAYS - 1)) as usize) }
    }
}

impl Set for SetElement {
    #[inline(always)]
    fn load(&self, way: u32) -> u64 {
        // SAFETY: an element of an array map never goes away; an aligned u64 is never read half-written.
        unsafe { self.entry(way).read_volatile() }
    }

    #[inline(always)]
    fn store(&self, way: u32, entry: u64) {
        // SAFETY: as in `load`.
        unsafe { self.entry(Self::unrelated(way as u64) as u32).write_volatile(entry) }
    }

    #[inline(always)]
    fn exchange(&self, way: u32, seen: u64, entry: u64) -> u64 {
        // SAFETY: as in `load`.
        unsafe { compare_and_swap(self.entry(Self::unrelated(way as u64) as u32), seen, entry) }
    }

    #[inline(always)]
    fn forgotten(way: u32) -> u32 {
        forget_number(way as u64) as u32
    }

    #[inline(always)]
    fn unrelated(number: u64) -> u64 {
        let mut number = number;
        // SAFETY: one instruction that moves a register to itself.
        unsafe {
            core::arch::asm!("{number} = {number}", number = inout(reg) number, options(nomem, nostack, preserves_flags));
        }
        number
    }
}

/// A field of [`SharedClocks`].
#[derive(Clone, Copy)]
pub(crate) struct ClockElement(*mut u64);

impl Clock for ClockElement {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: an element of an array map never goes away; an aligned u64 is never read half-written.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn exchange(&self, seen: u64, next: u64) -> u64 {
        // SAFETY: as in `load`.
        unsafe { compare_and_swap(self.0, seen, next) }
    }
}

/// What [`shared::take`] takes from the clock. Out of line: once in a batch, and the verifier need not follow each of its
/// ways to the packet's end. Five numbers at most can be passed, and the limit is three of them.
#[inline(always)]
pub(crate) fn take(index: u32, dimension: Dimension, limit: &SharedLimit, units: u64) -> u64 {
    take_from(index << 2 | dimension as u32, limit, units)
}

#[inline(never)]
fn take_from(clock_of: u32, limit: &SharedLimit, units: u64) -> u64 {
    let dimension = match clock_of & 3 {
        0 => Dimension::Packets,
        1 => Dimension::Syns,
        _ => Dimension::Bytes,
    };
    match clock(clock_of >> 2, dimension) {
        Some(clock) => shared::take(&clock, limit, units, limiter_clock_ps()),
        None => units,
    }
}

/// A field of [`SharedReserves`].
pub(crate) struct ReserveElement(*mut u64);

impl Reserve for ReserveElement {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: a per-CPU element; XDP runs are not preempted by another XDP run on the same CPU.
        unsafe { *self.0 }
    }

    #[inline(always)]
    fn store(&self, units: u64) {
        // SAFETY: as in `load`.
        unsafe { *self.0 = units }
    }
}
