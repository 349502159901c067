//! The programs beside the fast one that send and check SYN cookies. Only packets to this host's own workers come here.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::parse::{Headers, Transport};
use lb_common::service::Service;
use lb_common::slow_path::{SlowPath, Stop};
use lb_common::syn_cookie::Segment;
use lb_common::{Reason, Source};

use crate::end::end;
use crate::maps::scratch;
use crate::packet::{ETHERNET_BYTES, Front, XdpPacket};
use crate::syn_cookie::{self, Proof};
use crate::{admit, count, maps, pick, service, way};

/// A SYN that is answered with a cookie, or else goes the way of any other.
#[xdp(frags)]
pub(crate) fn lb_syn_cookie(context: XdpContext) -> u32 {
    end(&context, judge(&context))
}

#[inline(always)]
fn judge(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let syn = Segment::read(&XdpPacket::new(context), &transport).ok_or(Reason::BadTransportHeader)?;
    let (service, _) = service::find(&headers)?;
    let listed = scratch::read_listed().ok_or(Reason::InternalError)?;
    let control = maps::control().ok_or(Reason::InternalError)?;
    let policy = maps::cookie_policy(service.number).ok_or(Reason::InternalError)?;
    maps::charge_batch(service.number, policy).ok_or(Reason::InternalError)?;
    let is_pressed = maps::is_pressed(service.number).ok_or(Reason::InternalError)?;
    let comes_first = maps::forget_flag(is_pressed || policy.is_always());
    let is_answerable = syn_cookie::is_answerable(context, &headers, &transport, &service, &syn).unwrap_or(false);
    let is_answerable = maps::forget_flag(is_answerable && note_way_back(context, &headers).is_some());
    let admission = if is_answerable && comes_first {
        // Before the limits: what is answered spends none.
        admit::standing(control, &Source::of_address(headers.source), listed).and(Err(Reason::SourceLimit))
    } else {
        admit::admit::<false>(control, &headers, &transport, &service, listed)
    };
    let admission = maps::forget_outcome(admission);
    if is_answerable && matches!(admission, Err(limited) if limited.is_exhaustible_limit()) {
        return Err(Stop::Slow(SlowPath::CookieAnswer));
    }
    deliver(&service, &headers, &transport, admission)
}

/// By which way an answer reaches the client of a packet that came through the tier, which does not forward it: by the host's
/// own. `None` while the kernel knows none; then it answers itself, by the way it finds.
#[inline(always)]
fn note_way_back(context: &XdpContext, headers: &Headers) -> Option<()> {
    if scratch::is_unpacked() { scratch::write_way(&way::from_kernel(context, headers.source)?) } else { Some(()) }
}

/// Writes the answer that [`lb_syn_cookie`] has decided on: a program of its own, because judging and answering both
/// fill the stack.
#[xdp(frags)]
pub(crate) fn lb_cookie_answer(context: XdpContext) -> u32 {
    end(&context, answer(&context))
}

#[inline(always)]
fn answer(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let (syn, options) = syn_cookie::read(context, &transport).ok_or(Reason::BadTransportHeader)?;
    let (service, _) = service::find(&headers)?;
    syn_cookie::answer(context, &headers, &syn, &options, &service).ok_or(Reason::NoRoom)?;
    if !scratch::is_unpacked() {
        return Ok((Reason::SynCookieSent, xdp_action::XDP_TX));
    }
    let way = scratch::read_way().ok_or(Reason::InternalError)?;
    way.address(&Front::of(context).head(ETHERNET_BYTES).ok_or(Reason::NoRoom)?);
    Ok((Reason::SynCookieSent, way.take(context)))
}

/// A packet that must belong to a connection or bring back a cookie, or is over a limit and may be proven so.
#[xdp(frags)]
pub(crate) fn lb_cookie_check(context: XdpContext) -> u32 {
    end(&context, check(&context))
}

#[inline(always)]
fn check(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let (service, _) = service::find(&headers)?;
    let listed = scratch::read_listed().ok_or(Reason::InternalError)?;
    let control = maps::control().ok_or(Reason::InternalError)?;
    let segment = Segment::read(&XdpPacket::new(context), &transport).ok_or(Reason::InternalError)?;
    let proof = syn_cookie::proof(context, &headers, &segment);
    let is_pressed = maps::is_pressed(service.number).ok_or(Reason::InternalError)?;
    let admission = if proof == Proof::Nothing && is_pressed {
        // It spends nobody's limit.
        admit::standing(control, &Source::of_address(headers.source), listed).and(Err(Reason::BadSynCookie))
    } else {
        syn_cookie::admit_proven(
            proof,
            &headers,
            &service,
            admit::admit::<false>(control, &headers, &transport, &service, listed),
        )
    };
    let admission = maps::forget_outcome(admission);
    count::cookie(&service, proof, admission);
    deliver(&service, &headers, &transport, admission)
}

/// How the way of a packet to this host's workers ends.
#[inline(always)]
fn deliver(
    service: &Service,
    headers: &Headers,
    transport: &Transport,
    admission: Result<Reason, Reason>,
) -> Result<(Reason, u32), Stop> {
    count::service(service, headers, transport, admission);
    let admitted = admission?;
    let worker = pick::worker(service, headers, transport);
    if transport.opens_connection {
        count::picked(worker);
    }
    Ok((admitted, xdp_action::XDP_PASS))
}
