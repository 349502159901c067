//! May the packet pass: lists and blocks first, then the limits.
#![expect(unsafe_code, reason = "a function that the verifier judges by itself must have its own name in the object")]

use lb_common::parse::{Headers, Transport};
use lb_common::service::Service;
use lb_common::types::Control;
use lb_common::{Address, Listed, Reason, Source};

use crate::limits::{self, Packet};
use crate::{lists, maps};

/// `Ok` says why the packet may pass: under the limits, or over one and verified. A source that a list allows is never
/// blocked; limits hold for it too, or whoever forges its address could flood the service. `QUICKLY` in the fast program, which
/// has room on its stack for that.
#[inline(always)]
pub(crate) fn admit<const QUICKLY: bool>(
    control: &Control,
    headers: &Headers,
    transport: &Transport,
    service: &Service,
    listed: Listed,
) -> Result<Reason, Reason> {
    let source = Source::of_address(headers.source);
    standing(control, &source, listed)?;
    let packet = Packet { length_bytes: headers.length_bytes, opens_connection: transport.opens_connection };
    limits::admit::<QUICKLY>(control, &source, service.number, packet)
}

/// What is decided of a source beforehand, whatever its packets cost.
#[inline(always)]
pub(crate) fn standing(control: &Control, source: &Source, listed: Listed) -> Result<(), Reason> {
    match listed {
        Listed::Denied => Err(Reason::DeniedByList),
        Listed::Unlisted => blocks(control, source),
        Listed::Allowed => Ok(()),
    }
}

/// ICMP to a VIP, which belongs to no service: its sources have a limit of their own. Lists hold for it too, or who is
/// denied could still ask, and tell backends that their clients are gone.
#[inline(always)]
pub(crate) fn icmp(address: Address) -> Result<(), Reason> {
    let control = maps::control().ok_or(Reason::InternalError)?;
    let source = Source::of_address(address);
    standing(control, &source, lists::look_up(control, address))?;
    limits::icmp(&source)
}

#[inline(always)]
fn blocks(control: &Control, source: &Source) -> Result<(), Reason> {
    if !maps::has_hint(&control.block_hints, source.block_hint()) {
        return Ok(());
    }
    let [high, low] = source.halves();
    if lb_is_blocked(high, low) == 0 { Ok(()) } else { Err(Reason::Blocked) }
}

/// Global, for the reason given at [`crate::limits`]: 1 if a block of the source is in force, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_is_blocked(high: u64, low: u64) -> u64 {
    match maps::blocked_until_ns(&Source::from_halves([high, low])) {
        Some(until_ns) => (until_ns > maps::monotonic_ns()) as u64,
        None => 0,
    }
}
