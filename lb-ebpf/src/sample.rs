//! A few packets are written down for people to look at. Here is who is looked at, and the program that looks.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::rate::conform;
use lb_common::sample::{LOOK_EVERY, SKIPPED_BETWEEN_LOOKS};
use lb_common::types::SamplePolicy;
use lb_common::{Reason, SlowPath};

use crate::maps;
use crate::maps::samples::{self, Judged, SamplerElement};

/// Goes on in the program that looks at a dropped packet, or does not return to say that it is time to. Of a packet that
/// passes by a counter goes down, and no more.
#[inline(always)]
pub(crate) fn dropped(context: &XdpContext, reason: Reason) {
    match samples::sampler(reason as u32) {
        Some(sampler) if !sampler.skips_drop() => hand_over(context, reason, xdp_action::XDP_DROP),
        _ => {}
    }
}

/// The same of a packet that was not dropped, the `packets`-th of its reason on this CPU. No map is touched unless it is
/// one of those that are looked at.
#[inline(always)]
pub(crate) fn let_in(context: &XdpContext, reason: Reason, action: u32, packets: u64) {
    if packets & (LOOK_EVERY - 1) == 0 && reason.is_ours() {
        hand_over(context, reason, action);
    }
}

#[inline(always)]
fn hand_over(context: &XdpContext, reason: Reason, action: u32) {
    if samples::hand_over(Judged { reason: reason as u32, action }).is_some() {
        maps::go_on_in(context, SlowPath::Sample);
    }
}

/// Writes the packet down if the policy and the rate allow it, and ends its way as was decided before.
#[xdp(frags)]
pub(crate) fn lb_sample(context: XdpContext) -> u32 {
    let Some(judged) = samples::handed_over() else { return xdp_action::XDP_PASS };
    if let Some(sampler) = samples::sampler(judged.reason) {
        look(&context, sampler, &judged);
    }
    judged.action
}

#[inline(always)]
fn look(context: &XdpContext, sampler: SamplerElement, judged: &Judged) {
    let Some(policy) = samples::policy() else { return };
    if judged.action == xdp_action::XDP_DROP {
        sampler.skip_drops(look_at_drop(context, sampler, policy, judged));
    } else if policy.let_in_looks != 0 && !sampler.skips_look() {
        sampler.skip_looks(policy.let_in_looks - 1);
        if is_within_rate(sampler, policy) {
            samples::write(context, sampler, judged);
        }
    }
}

/// Returns how many dropped packets pass by until the next look.
#[inline(always)]
fn look_at_drop(context: &XdpContext, sampler: SamplerElement, policy: &SamplePolicy, judged: &Judged) -> u64 {
    if !is_within_rate(sampler, policy) {
        return SKIPPED_BETWEEN_LOOKS;
    }
    samples::write(context, sampler, judged);
    0
}

#[inline(always)]
fn is_within_rate(sampler: SamplerElement, policy: &SamplePolicy) -> bool {
    if policy.rate.cost_ps == 0 {
        return false;
    }
    match conform(&policy.rate, sampler.arrival_ps(), maps::limiter_clock_ps()) {
        Some(arrival_ps) => {
            sampler.set_arrival_ps(arrival_ps);
            true
        }
        None => false,
    }
}
