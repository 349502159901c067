//! The packet's way on to a backend: an outer header if the service wants one, the Ethernet header of the next hop, and
//! out of the interface that leads there.

use aya_ebpf::programs::XdpContext;
use lb_common::encapsulation::{IPV4_BYTES, IPV6_BYTES, Inside, UDP_BYTES, outer_ipv4, outer_ipv6, outer_udp};
use lb_common::parse::{Headers, Transport, UDP};
use lb_common::types::{BackendEntry, Forward, ServiceForward};
use lb_common::{Reason, SlowPath, Stop};

use crate::flow::Picked;
use crate::packet::{ETHERNET_BYTES, Front, Head, Tags};
use crate::{count, too_big, way};

/// What services ask of few packets, or few services of all theirs, is done on the same way by programs of their own.
/// `is_lowered`: it has been through [`SlowPath::Mss`].
#[inline(always)]
pub(crate) fn divert(
    forward: &ServiceForward,
    headers: &Headers,
    transport: &Transport,
    is_lowered: bool,
) -> Result<(), Stop> {
    // One branch for all the others.
    if forward.max_segment_bytes as u32 | forward.quic_server_id_lengths == 0 {
        return Ok(());
    }
    if transport.opens_connection && forward.max_segment_bytes != 0 && !is_lowered {
        return Err(Stop::Slow(SlowPath::Mss));
    }
    if forward.quic_server_id_lengths != 0 && headers.protocol == UDP && headers.fragment.is_whole() {
        return Err(Stop::Slow(SlowPath::Quic));
    }
    Ok(())
}

/// The rest of an admitted packet's way, once its backend is picked: the XDP action.
#[inline(always)]
pub(crate) fn finish(
    context: &XdpContext,
    service: u16,
    forward: &ServiceForward,
    headers: &Headers,
    transport: &Transport,
    picked: &Picked,
) -> Result<u32, Stop> {
    let action = send(context, forward, headers, picked)
        .inspect_err(count::undelivered(service))
        .map_err(|reason| too_big::tell(reason, headers, transport))?;
    count::forwarded(picked, headers);
    Ok(action)
}

/// Sends the packet to its backend: the XDP action, or why it cannot be sent.
#[inline(always)]
pub(crate) fn send(
    context: &XdpContext,
    forward: &ServiceForward,
    headers: &Headers,
    picked: &Picked,
) -> Result<u32, Reason> {
    let way = way::to(context, picked.backend)?;
    let head = match (forward.forward, picked.backend.address.is_v4()) {
        (L2, _) => as_it_is(context, headers, picked.backend)?,
        (GUE, true) => encapsulate::<true, true>(context, forward, headers, picked)?,
        (GUE, false) => encapsulate::<false, true>(context, forward, headers, picked)?,
        (_, true) => encapsulate::<true, false>(context, forward, headers, picked)?,
        (_, false) => encapsulate::<false, false>(context, forward, headers, picked)?,
    };
    way.address(&head);
    Ok(way.take(context))
}

/// The largest packet that the way to the backend takes once it has its outer headers.
#[inline(always)]
pub(crate) fn fits_bytes(forward: &ServiceForward, backend: &BackendEntry) -> Result<u16, Reason> {
    let outer_bytes = match forward.forward {
        L2 => 0,
        kind => outer_bytes(backend.address.is_v4(), kind == GUE),
    };
    match (forward.forward, backend.mtu_bytes) {
        // The kernel alone knows the way, and its interface drops what is too large for it.
        (L2, 0) => Ok(u16::MAX),
        // Nor is it known what would stand in an outer header.
        (_, 0) => Err(Reason::NoWayToBackend),
        (_, mtu_bytes) => Ok(mtu_bytes.saturating_sub(outer_bytes as u16)),
    }
}

#[inline(always)]
const fn outer_bytes(is_ipv4: bool, is_gue: bool) -> usize {
    (if is_ipv4 { IPV4_BYTES } else { IPV6_BYTES }) + (if is_gue { UDP_BYTES } else { 0 })
}

const L2: u8 = Forward::L2.to_number();
const GUE: u8 = Forward::Gue.to_number();

#[inline(always)]
fn as_it_is(context: &XdpContext, headers: &Headers, backend: &BackendEntry) -> Result<Head, Reason> {
    if backend.mtu_bytes != 0 {
        check_fits(headers, backend, 0)?;
    }
    Front::of(context).head(ETHERNET_BYTES).ok_or(Reason::NoRoom)
}

#[inline(always)]
fn check_fits(headers: &Headers, backend: &BackendEntry, outer_bytes: usize) -> Result<(), Reason> {
    if headers.length_bytes + outer_bytes as u32 <= backend.mtu_bytes as u32 {
        return Ok(());
    }
    Err(too_big::noted(backend.mtu_bytes.saturating_sub(outer_bytes as u16)))
}

/// Puts the outer headers between the Ethernet header, whose VLAN tags stay, and the packet. Each kind of them on a way of its
/// own, on which the compiler knows all lengths.
#[inline(always)]
fn encapsulate<const IS_IPV4: bool, const IS_GUE: bool>(
    context: &XdpContext,
    forward: &ServiceForward,
    headers: &Headers,
    picked: &Picked,
) -> Result<Head, Reason> {
    let backend = picked.backend;
    let outer_bytes = outer_bytes(IS_IPV4, IS_GUE);
    if backend.mtu_bytes == 0 {
        return Err(Reason::NoWayToBackend);
    }
    check_fits(headers, backend, outer_bytes)?;
    let inside = Inside {
        is_ipv4: headers.source.is_v4(),
        length_bytes: headers.length_bytes,
        traffic_class: headers.traffic_class,
        gue_port: IS_GUE.then_some(forward.gue_port),
        hash: picked.hash,
    };
    let tags = Tags::read(context, headers.link_bytes);
    let front = Front::grown(context, outer_bytes).ok_or(Reason::NoRoom)?;
    write::<IS_IPV4>(&front, &tags, backend, &inside).ok_or(Reason::NoRoom)
}

#[inline(always)]
fn write<const IS_IPV4: bool>(front: &Front, tags: &Tags, backend: &BackendEntry, inside: &Inside) -> Option<Head> {
    let link_bytes = tags.link_bytes();
    if IS_IPV4 {
        let head = front.head(link_bytes + IPV4_BYTES)?;
        tags.write(&head, true);
        let (words, last) = outer_ipv4(backend.tunnel_source, backend.address, backend.outer_sum, inside);
        head.store(link_bytes, words[0]);
        head.store(link_bytes + 8, words[1]);
        head.store(link_bytes + 16, last);
        write_udp(front, link_bytes + IPV4_BYTES, inside)?;
        return Some(head);
    }
    let head = front.head(link_bytes + IPV6_BYTES)?;
    tags.write(&head, false);
    for (index, word) in outer_ipv6(backend.tunnel_source, backend.address, inside).into_iter().enumerate() {
        head.store(link_bytes + 8 * index, word);
    }
    write_udp(front, link_bytes + IPV6_BYTES, inside)?;
    Some(head)
}

#[inline(always)]
fn write_udp(front: &Front, offset: usize, inside: &Inside) -> Option<()> {
    if let Some(port) = inside.gue_port {
        front.head(offset + UDP_BYTES)?.store(offset, outer_udp(port, inside));
    }
    Some(())
}
