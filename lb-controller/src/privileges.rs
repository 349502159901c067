//! Least privilege after start.
//!
//! Capabilities belong to threads, so this runs on the main thread after everything privileged is open and before any
//! other thread starts; they all inherit what is left.

use anyhow::Context;
use caps::{CapSet, Capability, CapsHashSet};

/// What a running edge still needs: routes for VIPs that a new configuration adds, and reading certificates and
/// configuration that belong to other users. Map updates go through open descriptors and need none.
const KEPT: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_DAC_READ_SEARCH];

/// What only the reconciler's thread keeps: each new deny or allow list is a new map.
const OF_THE_RECONCILER: Capability = Capability::CAP_BPF;

/// Gives up every capability but [`KEPT`] and that of the reconciler, for good: no program started from here can regain
/// them.
pub fn drop_all_but_needed() -> anyhow::Result<()> {
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    let held = caps::read(None, CapSet::Permitted).context("cannot read the process's capabilities")?;
    let kept = KEPT.into_iter().chain([OF_THE_RECONCILER]);
    let kept: CapsHashSet = kept.filter(|capability| held.contains(capability)).collect();
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)
                .with_context(|| format!("cannot drop {capability} from the bounding set"))?;
        }
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let wanted = if matches!(set, CapSet::Inheritable) { CapsHashSet::new() } else { kept.clone() };
        caps::set(None, set, &wanted).with_context(|| format!("cannot reduce the {set:?} capabilities"))?;
    }
    Ok(())
}

/// To be called once the reconciler's thread runs and before any other thread starts: none of those that read what
/// strangers send may use bpf(2).
pub fn drop_what_the_reconciler_keeps() -> anyhow::Result<()> {
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::drop(None, set, OF_THE_RECONCILER)
            .with_context(|| format!("cannot drop {OF_THE_RECONCILER} from the {set:?} capabilities"))?;
    }
    Ok(())
}
