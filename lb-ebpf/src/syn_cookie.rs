//! SYN cookies: who is sent to them, how a SYN is answered, and what a packet must show meanwhile.

use aya_ebpf::programs::XdpContext;
use lb_common::maps::worker_socket_index;
use lb_common::parse::{Headers, TCP, Transport};
use lb_common::service::Service;
use lb_common::slow_path::{SlowPath, Stop};
use lb_common::syn_cookie::{OptionWalk, SHORTEST_FRAME_BYTES, Segment, SynAck, TCP_BYTES, ipv4_header, ipv6_header};
use lb_common::{Reason, Source};

use crate::packet::{self, Front, XdpPacket};
use crate::{kernel_tcp, maps, pick};

/// Before the limits: a SYN that will be answered has cost nobody anything yet, so that a flood of them exhausts no
/// limit.
#[inline(always)]
pub(crate) fn under_pressure(headers: &Headers, transport: &Transport, service: &Service) -> Result<(), Stop> {
    if headers.protocol != TCP {
        return Ok(());
    }
    if !transport.opens_connection {
        let is_pressed = maps::is_pressed(service.number).ok_or(Reason::InternalError)?;
        return if is_pressed { Err(Stop::Slow(SlowPath::CookieCheck)) } else { Ok(()) };
    }
    let policy = maps::cookie_policy(service.number).ok_or(Reason::InternalError)?;
    if !policy.is_on() {
        return Ok(());
    }
    let ends_batch = maps::count_syn(service.number, policy).ok_or(Reason::InternalError)?;
    let is_pressed = maps::is_pressed(service.number).ok_or(Reason::InternalError)?;
    if ends_batch || is_pressed || policy.is_always() { Err(Stop::Slow(SlowPath::SynCookie)) } else { Ok(()) }
}

/// Behind the limits: one that others may have exhausted in the source's name is no reason to drop its packet unheard.
#[inline(always)]
pub(crate) fn over_limit(
    headers: &Headers,
    transport: &Transport,
    service: &Service,
    limited: Reason,
) -> Result<(), Stop> {
    if headers.protocol != TCP || !limited.is_exhaustible_limit() {
        return Ok(());
    }
    if !transport.opens_connection {
        let may_be_proven = maps::awaits_cookies(service.number).ok_or(Reason::InternalError)?;
        return if may_be_proven { Err(Stop::Slow(SlowPath::CookieCheck)) } else { Ok(()) };
    }
    let policy = maps::cookie_policy(service.number).ok_or(Reason::InternalError)?;
    if policy.is_on() { Err(Stop::Slow(SlowPath::SynCookie)) } else { Ok(()) }
}

/// To be read before anything else is known of the packet: the verifier walks through all options once for each way that
/// leads here.
#[inline(always)]
pub(crate) fn read(context: &XdpContext, transport: &Transport) -> Option<(Segment, OptionWalk)> {
    let syn = Segment::read(&XdpPacket::new(context), transport)?;
    let words = packet::copy(context, syn.offset + TCP_BYTES, syn.header_bytes - TCP_BYTES)?;
    Some((syn, kernel_tcp::read_options(OptionWalk::new(words, syn.header_bytes))))
}

/// Can the SYN be answered with a cookie? Otherwise it goes the way of any other.
#[inline(always)]
pub(crate) fn is_answerable(
    context: &XdpContext,
    headers: &Headers,
    transport: &Transport,
    service: &Service,
    syn: &Segment,
) -> Option<bool> {
    let worker = pick::worker(service, headers, transport).unwrap_or(0);
    let socket = worker_socket_index(service.number, !headers.source.is_v4(), worker)?;
    let tell = || kernel_tcp::announce_cookies(context, headers, syn);
    let takes_cookies = syn.is_plain_syn() && maps::takes_cookies(service.number, socket, tell)?;
    // The kernel must see a SYN that repeats a connection's ports: it knows whether that is over.
    Some(takes_cookies && !kernel_tcp::has_connection(context, headers, syn))
}

/// Turns a SYN into the SYN-ACK that carries a cookie. `None` if the frame has no room for it.
#[inline(always)]
pub(crate) fn answer(
    context: &XdpContext,
    headers: &Headers,
    syn: &Segment,
    options: &OptionWalk,
    service: &Service,
) -> Option<()> {
    let options = options.found();
    let cookie = kernel_tcp::cookie(headers, syn, &options)?;
    let offer = maps::cookie_offer(!headers.source.is_v4(), options.timestamp.is_some());
    let ends = [&headers.source, &headers.destination];
    let syn_ack = SynAck::new(syn, ends, cookie, &options, &offer);
    write(context, headers, &syn_ack)?;
    maps::await_cookies(service.number)?;
    maps::update_cookies(service.number, |counters| counters.answered_syns += 1);
    Some(())
}

/// Writes the answer over the packet: the Ethernet header's tags stay, IP options go.
#[inline(always)]
fn write(context: &XdpContext, headers: &Headers, syn_ack: &SynAck) -> Option<()> {
    let ip_bytes = if headers.source.is_v4() { 20 } else { 40 };
    let frame_bytes = headers.link_bytes + ip_bytes + syn_ack.bytes;
    let frame_bytes = if frame_bytes < SHORTEST_FRAME_BYTES { SHORTEST_FRAME_BYTES } else { frame_bytes };
    let front = Front::resized(context, frame_bytes)?;
    front.swap_ethernet_addresses(&XdpPacket::new(context))?;
    let [client, vip] = [&headers.source, &headers.destination];
    if headers.source.is_v4() {
        front.store_words(headers.link_bytes, &ipv4_header(vip, client, syn_ack.bytes))?;
        write_segment(&front, headers.link_bytes + 20, syn_ack)
    } else {
        front.store_words(headers.link_bytes, &ipv6_header(vip, client, syn_ack.bytes))?;
        write_segment(&front, headers.link_bytes + 40, syn_ack)
    }
}

#[inline(always)]
fn write_segment(front: &Front, offset: usize, syn_ack: &SynAck) -> Option<()> {
    let [a, b, c, d, e, f, ..] = syn_ack.words;
    if syn_ack.bytes == size_of_val(&syn_ack.words) {
        front.store_words(offset, &syn_ack.words)
    } else {
        front.store_words(offset, &[a, b, c, d, e, f])
    }
}

/// What a packet that opens no connection shows for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The kernel knows its connection.
    Connection,
    /// It acknowledges this cookie of ours, so that its source is who it says.
    Cookie(u64),
    Nothing,
}

#[inline(always)]
pub(crate) fn proof(context: &XdpContext, headers: &Headers, segment: &Segment) -> Proof {
    if kernel_tcp::has_connection(context, headers, segment) {
        Proof::Connection
    } else if segment.may_bring_cookie() && kernel_tcp::brings_cookie(headers, segment) {
        Proof::Cookie((segment.acknowledgement as u64) << 32 | segment.source_port as u64)
    } else {
        Proof::Nothing
    }
}

/// A connection begun with a cookie was charged to no limit of its source yet. And over a limit, what is proven has a
/// limit as high of its own, which nobody can exhaust in its name.
#[inline(always)]
pub(crate) fn admit_proven(
    proof: Proof,
    headers: &Headers,
    service: &Service,
    admission: Result<Reason, Reason>,
) -> Result<Reason, Reason> {
    let limits = maps::limits::of_service(service.number).ok_or(Reason::InternalError)?;
    let source = Source::of_address(headers.source);
    if matches!(admission, Err(refused) if !refused.is_exhaustible_limit()) {
        return admission;
    }
    let is_within = match proof {
        Proof::Cookie(cookie) if !maps::validate(&source, cookie, limits.source.of_connections()) => {
            return Err(Reason::SourceLimit);
        }
        Proof::Cookie(_) => true,
        Proof::Connection if admission.is_err() => {
            maps::charge_validated(&source, &limits.source.packets).unwrap_or(false)
        }
        _ => false,
    };
    match admission {
        Err(_)
            if is_within
                && maps::charge_proven_service(service.number, &limits.service.packets.limit()).unwrap_or(false) =>
        {
            Ok(Reason::ProvenByCookie)
        }
        _ => admission,
    }
}
