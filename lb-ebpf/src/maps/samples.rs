//! The ring of samples, and what each CPU remembers about them.
#![expect(unsafe_code, reason = "map elements are reached by raw pointers; the verifier checks every access")]

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, xdp_md};
use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use lb_common::Reason;
use lb_common::sample::{SAMPLE_BYTES, SAMPLE_RING_BYTES};
use lb_common::types::{PacketSample, SamplePolicy, Sampler};

use crate::packet::unrelated;

#[btf_map]
static SAMPLE_POLICY: Array<SamplePolicy, 1> = Array::new();
#[btf_map]
static SAMPLER: PerCpuArray<Sampler, { Reason::COUNT }> = PerCpuArray::new();
/// Of the packet on its way to the program that writes samples.
#[btf_map]
static HANDED_OVER: PerCpuArray<[u32; 2], 1> = PerCpuArray::new();
#[btf_map]
static SAMPLES: RingBuf<PacketSample, SAMPLE_RING_BYTES> = RingBuf::new();

#[inline(always)]
pub(crate) fn policy() -> Option<&'static SamplePolicy> {
    SAMPLE_POLICY.get(0)
}

/// Each reason has a sampler of its own: a flood that ends for one hides nothing that ends for another.
#[inline(always)]
pub(crate) fn sampler(reason: u32) -> Option<SamplerElement> {
    SAMPLER.get_ptr_mut(reason).map(SamplerElement)
}

/// How a packet's way ended: a `Reason` as a number, and the XDP action.
pub(crate) struct Judged {
    pub(crate) reason: u32,
    pub(crate) action: u32,
}

/// Tells the program that writes samples what it is about; `None` only if the map is missing.
#[inline(always)]
pub(crate) fn hand_over(judged: Judged) -> Option<()> {
    let words = HANDED_OVER.get_ptr_mut(0)?;
    // SAFETY: a per-CPU element, which never goes away; a tail call is not interrupted by another packet.
    unsafe { *words = [judged.reason, judged.action] };
    Some(())
}

#[inline(always)]
pub(crate) fn handed_over() -> Option<Judged> {
    let words = HANDED_OVER.get_ptr(0)?;
    // SAFETY: as above.
    let [reason, action] = unsafe { *words };
    Some(Judged { reason, action })
}

/// A [`Sampler`] of this CPU. XDP runs are not preempted by another XDP run on the same CPU.
#[derive(Clone, Copy)]
pub(crate) struct SamplerElement(*mut Sampler);

macro_rules! field {
    ($element:expr, $field:ident) => {
        // SAFETY: a field of a per-CPU element, which never goes away.
        unsafe { &mut (*$element.0).$field }
    };
}

impl SamplerElement {
    /// Counts a dropped packet that passes by; `false` if it is time for a look.
    #[inline(always)]
    pub(crate) fn skips_drop(self) -> bool {
        let left = field!(self, drops_to_skip);
        let skips = *left > 0;
        if skips {
            *left -= 1;
        }
        skips
    }

    #[inline(always)]
    pub(crate) fn skip_drops(self, packets: u64) {
        *field!(self, drops_to_skip) = packets;
    }

    #[inline(always)]
    pub(crate) fn skips_look(self) -> bool {
        let left = field!(self, looks_to_skip);
        let skips = *left > 0;
        if skips {
            *left -= 1;
        }
        skips
    }

    #[inline(always)]
    pub(crate) fn skip_looks(self, looks: u64) {
        *field!(self, looks_to_skip) = looks;
    }

    #[inline(always)]
    pub(crate) fn arrival_ps(self) -> u64 {
        *field!(self, arrival_ps)
    }

    #[inline(always)]
    pub(crate) fn set_arrival_ps(self, arrival_ps: u64) {
        *field!(self, arrival_ps) = arrival_ps;
    }

    #[inline(always)]
    fn count(self, is_written: bool) {
        *if is_written { field!(self, written) } else { field!(self, lost) } += 1;
    }
}

/// Writes the packet to the ring, and wakes nobody: who reads looks by itself. A full ring loses it, and that is counted.
#[inline(always)]
pub(crate) fn write(context: &XdpContext, sampler: SamplerElement, judged: &Judged) {
    let Some(mut entry) = SAMPLES.reserve(0) else {
        sampler.count(false);
        return;
    };
    fill(context, judged, entry.as_mut_ptr());
    entry.submit(BPF_RB_NO_WAKEUP as u64);
    sampler.count(true);
}

#[inline(always)]
fn fill(context: &XdpContext, judged: &Judged, sample: *mut PacketSample) {
    let raw = context.as_ptr().cast::<xdp_md>();
    // SAFETY: the helper only reads.
    let frame_bytes = unsafe { bpf_xdp_get_buff_len(raw) } as u32;
    // SAFETY: the sample is reserved memory of its size. The head is written field by field and the bytes cleared, so
    // that no sample carries what was there before.
    unsafe {
        (*sample).monotonic_ns = bpf_ktime_get_ns();
        (*sample).interface = (*raw).ingress_ifindex;
        (*sample).queue = (*raw).rx_queue_index;
        (*sample).frame_bytes = frame_bytes;
        (*sample).reason = judged.reason;
        (*sample).action = judged.action;
        (*sample).cpu = bpf_get_smp_processor_id();
        (*sample).unused = 0;
        ptr::write_bytes((&raw mut (*sample).bytes).cast::<u64>(), 0, SAMPLE_BYTES / 8);
        (*sample).captured_bytes = capture(raw, frame_bytes, (&raw mut (*sample).bytes).cast());
    }
}

/// Copies the frame's first bytes; returns how many.
///
/// # Safety
/// `bytes` has room for [`SAMPLE_BYTES`].
#[inline(always)]
unsafe fn capture(raw: *mut xdp_md, frame_bytes: u32, bytes: *mut u8) -> u32 {
    if frame_bytes as usize >= SAMPLE_BYTES {
        // SAFETY: by this function's contract; the helper checks the packet's bounds itself.
        let failure = unsafe { bpf_xdp_load_bytes(raw, 0, bytes.cast(), SAMPLE_BYTES as u32) };
        return if failure == 0 { SAMPLE_BYTES as u32 } else { 0 };
    }
    // The verifier must see the bound right before the call.
    let length = unrelated(frame_bytes as usize) as u32 & (SAMPLE_BYTES as u32 - 1);
    if length == 0 {
        return 0;
    }
    // SAFETY: as above.
    let failure = unsafe { bpf_xdp_load_bytes(raw, 0, bytes.cast(), length) };
    if failure == 0 { length } else { 0 }
}
