//! Whose tunnels end on this host, and at which of its addresses.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::Address;
use lb_common::maps::{MAX_OWN_ADDRESSES, MAX_TIER_PREFIXES};
use lb_common::types::{TunnelCounters, TunnelPolicy};

#[btf_map]
static TUNNEL_POLICY: Array<TunnelPolicy, 1> = Array::new();
#[btf_map]
static TUNNEL_STATS: PerCpuArray<TunnelCounters, 1> = PerCpuArray::new();
#[btf_map]
static TIER: LpmTrie<Address, u64, MAX_TIER_PREFIXES> = LpmTrie::new();
#[btf_map]
static OWN_ADDRESSES: HashMap<[u32; 4], u64, MAX_OWN_ADDRESSES> = HashMap::new();

const ADDRESS_BITS: u32 = 128;

#[inline(always)]
pub(crate) fn policy() -> Option<&'static TunnelPolicy> {
    TUNNEL_POLICY.get(0)
}

#[inline(always)]
pub(crate) fn is_in_tier(address: &Address) -> bool {
    TIER.get(&Key::new(ADDRESS_BITS, *address)).is_some()
}

#[inline(always)]
pub(crate) fn is_own(address: &Address) -> bool {
    OWN_ADDRESSES.get_ptr(&address.words_be).is_some()
}

#[inline(always)]
pub(crate) fn update(update: impl FnOnce(&mut TunnelCounters)) {
    if let Some(counters) = TUNNEL_STATS.get_ptr_mut(0) {
        // SAFETY: a per-CPU element; XDP runs are not preempted by another XDP run on the same CPU.
        update(unsafe { &mut *counters });
    }
}
