//! The limits, and where one bites the verified sources.
#![expect(unsafe_code, reason = "a function that the verifier judges by itself must have its own name in the object")]

use lb_common::icmp::{LIMITED_AS, SOURCE_LIMIT, TOLD_AS};
use lb_common::maps::{NETWORK_SETS, NEW_FLOWS, SOURCE_SETS};
use lb_common::rate::Dimension::{self, Bytes, Packets, Syns};
use lb_common::rate::set::{self, Place, Tried};
use lb_common::rate::shared;
use lb_common::types::{Control, Limit, RateLimits, ServiceLimits, SharedLimit};
use lb_common::{Reason, Source};

use crate::maps::limits::{self, SetElement};
use crate::maps::{self, verified};

/// What limits ask about a packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// The IP packet's.
    pub(crate) length_bytes: u32,
    pub(crate) opens_connection: bool,
}

/// `Ok` says why the packet may pass. `QUICKLY`: without a call where nothing but packets is limited, and not by network, which
/// is the usual case.
#[inline(always)]
pub(crate) fn admit<const QUICKLY: bool>(
    control: &Control,
    source: &Source,
    service: u16,
    packet: Packet,
) -> Result<Reason, Reason> {
    let over = if QUICKLY {
        let limits = limits::of_service(service).ok_or(Reason::InternalError)?;
        match limits.in_force & ServiceLimits::LIMITS_MORE_THAN_PACKETS {
            0 => by_packets(limits, source, service),
            _ => by_limits(source, service, packet),
        }
    } else {
        by_limits(source, service, packet)
    };
    match over {
        0 if packet.opens_connection && !control.new_flows.is_unlimited() && lb_new_flow() != 0 => {
            rescue(source, service, Reason::NewFlowLimit)
        }
        0 => Ok(Reason::Admitted),
        limited => rescue(source, service, reason(limited)),
    }
}

#[inline(always)]
fn by_limits(source: &Source, service: u16, packet: Packet) -> u64 {
    let [high, low] = source.halves();
    lb_by_limits(high, low, service as u64, (packet.length_bytes as u64) << 1 | packet.opens_connection as u64)
}

/// What [`lb_by_limits`] says where nothing but packets is limited, and not by network: in line, as it is the usual case.
#[inline(always)]
fn by_packets(limits: &ServiceLimits, source: &Source, service: u16) -> u64 {
    let now_ps = maps::limiter_clock_ps();
    if limits.in_force & ServiceLimits::LIMITS_SOURCES != 0 {
        let place = Place::of_hash(source.limiter_hash(maps::source_key(), service), SOURCE_SETS);
        if let Some(set) = limits::source_set(place.set)
            && !packet_conforms_quickly(set, place.tag, &limits.source.packets, now_ps)
        {
            return OF_SOURCE | over_in(Packets);
        }
    }
    if limits.in_force & ServiceLimits::LIMITS_SERVICE != 0
        && !shared_conforms(service as u32, Packets, &limits.service.packets, 1)
    {
        return OF_SERVICE | over_in(Packets);
    }
    0
}

/// For packets that open a flow without being a SYN, whose flow is counted in [`admit`]: only who remembers flows knows
/// them.
#[inline(always)]
pub(crate) fn new_flow(source: &Source, service: u16) -> Result<Reason, Reason> {
    let [high, low] = source.halves();
    match lb_admit_flow(high, low, service as u64) {
        FLOW_ADMITTED => Ok(Reason::Admitted),
        FLOW_PRIORITISED => Ok(Reason::Prioritised),
        FLOW_OVER_ITS_OWN_LIMIT => Err(Reason::VerifiedSourceLimit),
        _ => Err(Reason::NewFlowLimit),
    }
}

const FLOW_ADMITTED: u64 = 0;
const FLOW_PRIORITISED: u64 = 1;
const FLOW_OVER_ITS_OWN_LIMIT: u64 = 2;
const FLOW_REFUSED: u64 = 3;

/// [`new_flow`], as a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_admit_flow(high: u64, low: u64, service: u64) -> u64 {
    if lb_new_flow() == 0 {
        return FLOW_ADMITTED;
    }
    match rescue(&Source::from_halves([high, low]), service as u16, Reason::NewFlowLimit) {
        Ok(_) => FLOW_PRIORITISED,
        Err(Reason::VerifiedSourceLimit) => FLOW_OVER_ITS_OWN_LIMIT,
        Err(_) => FLOW_REFUSED,
    }
}

/// What [`lb_by_limits`] returned, which is not 0.
#[inline(always)]
const fn reason(limited: u64) -> Reason {
    const GROUPS: [[Reason; 3]; 3] = [
        [Reason::SourceLimit, Reason::SourceSynLimit, Reason::SourceByteLimit],
        [Reason::NetworkLimit, Reason::NetworkSynLimit, Reason::NetworkByteLimit],
        [Reason::ServiceLimit, Reason::ServiceSynLimit, Reason::ServiceByteLimit],
    ];
    let [sources, networks, service] = GROUPS;
    let (group, dimension) = (limited & !DIMENSION_MASK, limited & DIMENSION_MASK);
    let [packets, syns, bytes] = match group {
        OF_SOURCE => sources,
        OF_NETWORK => networks,
        _ => service,
    };
    match dimension {
        1 => packets,
        2 => syns,
        _ => bytes,
    }
}

const DIMENSION_MASK: u64 = 3;
const OF_SOURCE: u64 = 1 << 2;
const OF_NETWORK: u64 = 2 << 2;
const OF_SERVICE: u64 = 3 << 2;

/// 0 if the packet is within all limits, else a number for [`reason`]. `packet` is twice its bytes, plus 1 for a SYN.
///
/// The widest limit last: what one source is refused must not use up what its neighbours share with it.
///
/// Global, as all functions here that are never inlined: the verifier looks at such a function once and by itself. The
/// many ways through it, each continued by all the ways through the rest of the program, would be more than it takes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_by_limits(high: u64, low: u64, service: u64, packet: u64) -> u64 {
    let source = Source::from_halves([high, low]);
    let in_force = limits::of_service(service as u16).map_or(0, |limits| limits.in_force);
    if in_force & ServiceLimits::LIMITS_SOURCES != 0 {
        let over = source_limits(source.limiter_hash(maps::source_key(), service as u16), service, packet);
        if over != 0 {
            return OF_SOURCE | over;
        }
    }
    if in_force & ServiceLimits::LIMITS_NETWORKS != 0 {
        let over = network_limits(source.network_hash(maps::source_key(), service as u16), service, packet);
        if over != 0 {
            return OF_NETWORK | over;
        }
    }
    if in_force & ServiceLimits::LIMITS_SERVICE != 0 {
        let over = service_limits(service, packet);
        if over != 0 {
            return OF_SERVICE | over;
        }
    }
    0
}

/// What the functions below return for a packet over a limit; else 0.
#[inline(always)]
const fn over_in(dimension: Dimension) -> u64 {
    1 + dimension as u64
}

#[inline(always)]
fn source_limits(hash: u64, service: u64, packet: u64) -> u64 {
    let place = Place::of_hash(hash, SOURCE_SETS);
    let (Some(limits), Some(set)) = (limits::of_service(service as u16), limits::source_set(place.set)) else {
        return 0;
    };
    each(set, place.tag, &limits.source, packet)
}

#[inline(always)]
fn network_limits(hash: u64, service: u64, packet: u64) -> u64 {
    let place = Place::of_hash(hash, NETWORK_SETS);
    let (Some(limits), Some(set)) = (limits::of_service(service as u16), limits::network_set(place.set)) else {
        return 0;
    };
    each(set, place.tag, &limits.network, packet)
}

#[inline(always)]
fn service_limits(service: u64, packet: u64) -> u64 {
    let Some(limits) = limits::of_service(service as u16) else { return 0 };
    let (limits, service) = (&limits.service, service as u16 as u32);
    if packet & 1 != 0 && !shared_conforms(service, Syns, &limits.syns, 1) {
        return over_in(Syns);
    }
    if !shared_conforms(service, Packets, &limits.packets, 1) {
        return over_in(Packets);
    }
    if !shared_conforms(service, Bytes, &limits.bytes, packet >> 1) {
        return over_in(Bytes);
    }
    0
}

/// 0, or 1 if there are too many new flows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_new_flow() -> u64 {
    let Some(control) = maps::control() else { return 0 };
    (!shared_conforms(NEW_FLOWS, Syns, &control.new_flows, 1)) as u64
}

/// What [`verified::charge`] says, as a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_rescue(high: u64, low: u64, service: u64) -> u64 {
    let Some(limits) = limits::of_service(service as u16) else { return UNVERIFIED };
    match verified::charge(&Source::from_halves([high, low]), &limits.verified) {
        None => UNVERIFIED,
        Some(false) => OVER_ITS_OWN_LIMIT,
        Some(true) => WITHIN_ITS_OWN_LIMIT,
    }
}

const UNVERIFIED: u64 = 0;
const OVER_ITS_OWN_LIMIT: u64 = 1;
const WITHIN_ITS_OWN_LIMIT: u64 = 2;

/// A verified source passes over any limit, up to one of its own: that is what a forged packet from its address can
/// gain at most.
#[inline(always)]
fn rescue(source: &Source, service: u16, limited: Reason) -> Result<Reason, Reason> {
    if !verified::may_be(source) {
        return Err(limited);
    }
    let [high, low] = source.halves();
    match lb_rescue(high, low, service as u64) {
        WITHIN_ITS_OWN_LIMIT => Ok(Reason::Prioritised),
        OVER_ITS_OWN_LIMIT => Err(Reason::VerifiedSourceLimit),
        _ => Err(limited),
    }
}

/// The limits of one source, or of one network.
#[inline(always)]
fn each(set: SetElement, tag: u64, limits: &RateLimits, packet: u64) -> u64 {
    if packet & 1 != 0 && !limits.syns.is_unlimited() && !syn_conforms(set, tag, &limits.syns) {
        return over_in(Syns);
    }
    if !limits.packets.is_unlimited() && !packet_conforms(set, tag, &limits.packets) {
        return over_in(Packets);
    }
    if !limits.bytes.is_unlimited() && !bytes_conform(set, tag, &limits.bytes, packet >> 1) {
        return over_in(Bytes);
    }
    0
}

/// [`packet_conforms`] without a call for a source that is not near its limit.
#[inline(always)]
fn packet_conforms_quickly(set: SetElement, tag: u64, limit: &Limit, now_ps: u64) -> bool {
    match set::try_charge(&set, tag, Packets, limit, 1, now_ps) {
        Tried::Conforms => true,
        Tried::Over => false,
        Tried::Contended(..) => packet_conforms(set, tag, limit),
    }
}

// The target passes five numbers to a function at most, and a limit is two of them: the time is asked for again.

#[inline(never)]
fn packet_conforms(set: SetElement, tag: u64, limit: &Limit) -> bool {
    set::charge(&set, tag, Packets, limit, 1, maps::limiter_clock_ps())
}

#[inline(never)]
fn syn_conforms(set: SetElement, tag: u64, limit: &Limit) -> bool {
    set::charge(&set, tag, Syns, limit, 1, maps::limiter_clock_ps())
}

#[inline(never)]
fn bytes_conform(set: SetElement, tag: u64, limit: &Limit, bytes: u64) -> bool {
    set::charge(&set, tag, Bytes, limit, bytes, maps::limiter_clock_ps())
}

#[inline(always)]
fn shared_conforms(index: u32, dimension: Dimension, limit: &SharedLimit, units: u64) -> bool {
    if limit.is_unlimited() {
        return true;
    }
    match limits::reserve(index, dimension) {
        Some(reserve) if shared::spend(&reserve, units) => true,
        Some(reserve) => shared::refill(&reserve, limits::take(index, dimension, limit, units), units),
        None => true,
    }
}

/// ICMP to a VIP.
#[inline(always)]
pub(crate) fn icmp(source: &Source) -> Result<(), Reason> {
    match lb_icmp_limit(source.limiter_hash(maps::source_key(), LIMITED_AS)) {
        0 => Ok(()),
        _ => Err(Reason::IcmpLimit),
    }
}

/// ICMP from a VIP: may the source be told something?
#[inline(always)]
pub(crate) fn may_be_told(source: &Source) -> bool {
    lb_icmp_limit(source.limiter_hash(maps::source_key(), TOLD_AS)) == 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_icmp_limit(hash: u64) -> u64 {
    let place = Place::of_hash(hash, SOURCE_SETS);
    let Some(set) = limits::source_set(place.set) else { return 0 };
    (!packet_conforms(set, place.tag, &SOURCE_LIMIT)) as u64
}
