//! The end of the L4 tier's tunnels: outer headers are taken away, and the packet inside is judged like any other.
//!
//! Whoever could send a packet in a tunnel could put any source inside, and pass the tier's limits. So it must come from
//! the tier and go to a service, or it is dropped by name. Tunnels to other addresses than this host's are none of our
//! business, nor are any while no tier is configured.

use aya_ebpf::programs::XdpContext;
use lb_common::decapsulation::{self, Inner};
use lb_common::icmp::is_icmp;
use lb_common::parse::{Headers, Network, TCP, Transport, UDP, headers_of, parse_network};
use lb_common::{Reason, SlowPath, Stop};

use crate::maps::{scratch, tunnels};
use crate::packet::{Front, Tags, XdpPacket};
use crate::{service, unusual};

type Outcome = Result<(Reason, u32), Stop>;

/// What a packet without a service comes to: GUE may end here, which is for the program at `path` to find out.
///
/// In fragments it does not, and who finds out that it ends elsewhere does not send it back to where this is asked.
#[inline(always)]
pub(crate) fn unless_gue(headers: &Headers, transport: &Transport, reason: Reason, path: SlowPath) -> Stop {
    if reason as u8 == Reason::NoService as u8 && headers.fragment.is_whole() && is_gue(headers, transport) {
        return Stop::Slow(path);
    }
    Stop::Reason(reason)
}

/// By its port alone; whether it ends here is asked later.
#[inline(always)]
pub(crate) fn is_gue(headers: &Headers, transport: &Transport) -> bool {
    headers.protocol == UDP
        && transport.destination_port != 0
        && tunnels::policy().is_some_and(|policy| policy.gue_port == transport.destination_port as u32)
}

/// Could an IP packet in an IP packet end here?
#[inline(always)]
pub(crate) fn is_ip_in_ip(network: &Network) -> bool {
    decapsulation::is_ip_in_ip(network.protocol) && tunnels::policy().is_some_and(|policy| policy.is_on != 0)
}

/// Stands for an outer packet whose inside cannot be found.
const UNREADABLE: usize = 0;

/// Writes the packet down for [`process`], with where the packet inside begins, and names that.
#[inline(always)]
pub(crate) fn hand_over(network: &Network) -> Stop {
    let transport = Transport {
        offset: if network.fault.is_none() { network.transport_offset } else { UNREADABLE },
        ..unusual::without_ports(network)
    };
    let headers = Headers {
        source: network.source,
        destination: network.destination,
        traffic_class: network.traffic_class,
        link_bytes: network.link_bytes,
        protocol: network.protocol,
        length_bytes: network.length_bytes,
        transport: Ok(transport),
        fragment: network.fragment,
    };
    match scratch::write(&headers, &transport) {
        Some(()) => Stop::Slow(SlowPath::Tunnel),
        None => Stop::Reason(Reason::InternalError),
    }
}

/// Only of packets that [`hand_over`] has written down, or that [`is_gue`].
#[inline(always)]
pub(crate) fn process(context: &XdpContext) -> Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    if headers.protocol == UDP && is_served(&headers, &transport) {
        return Err(Stop::Slow(if headers.fragment.is_whole() { SlowPath::Judge } else { SlowPath::Fragment }));
    }
    if !tunnels::is_own(&headers.destination) {
        return Err(goes_on(&headers));
    }
    if !tunnels::is_in_tier(&headers.source) {
        return Err(Stop::Reason(Reason::TunnelFromOutside));
    }
    if transport.offset == UNREADABLE || !headers.fragment.is_whole() {
        return Err(Stop::Reason(Reason::BadTunnel));
    }
    unpack(context, &headers, &transport)
}

/// A service at that very address and port has its packets, whatever else the port is used for.
#[inline(always)]
fn is_served(headers: &Headers, transport: &Transport) -> bool {
    service::lookup(headers.destination, transport.destination_port, headers.protocol).is_ok()
}

/// The way of a packet that is no tunnel's end and no service's, as if nobody had asked.
#[inline(always)]
fn goes_on(headers: &Headers) -> Stop {
    match headers.protocol {
        // A VIP may be its destination, and its other fragments then follow it.
        UDP if !headers.fragment.is_whole() => Stop::Slow(SlowPath::Fragment),
        UDP => Stop::Reason(Reason::NoService),
        _ => Stop::Reason(Reason::NotInspected),
    }
}

#[inline(always)]
fn unpack(context: &XdpContext, headers: &Headers, transport: &Transport) -> Outcome {
    let mut packet = XdpPacket::whole(context);
    let end = headers.link_bytes + headers.length_bytes as usize;
    let Some(inner) = decapsulation::inner(&packet, headers.protocol, transport.offset, end) else {
        return Err(Stop::Reason(Reason::BadTunnel));
    };
    decapsulation::hand_on_congestion(&mut packet, &inner, headers.traffic_class)?;
    strip(context, &packet, headers.link_bytes, &inner).ok_or(Reason::NoRoom)?;
    tunnels::update(|counters| match headers.protocol {
        UDP => counters.gue_packets += 1,
        _ => counters.ip_packets += 1,
    });
    Err(Stop::Slow(SlowPath::Inner))
}

/// Takes away what is between the Ethernet header, whose VLAN tags stay, and the packet inside.
#[inline(always)]
fn strip(context: &XdpContext, packet: &XdpPacket, link_bytes: usize, inner: &Inner) -> Option<()> {
    let addresses = Front::addresses(packet)?;
    let tags = Tags::read(context, link_bytes);
    // Both tags fit, whether they are there or not: behind them is at least an IP header.
    const MOST_LINK_BYTES: usize = 22;
    let head = Front::shortened(context, inner.offset.checked_sub(link_bytes)?)?.head(MOST_LINK_BYTES)?;
    head.store(0, addresses.0);
    head.store(8, addresses.1);
    tags.write(&head, inner.is_ipv4);
    Some(())
}

/// Reads the headers of what was inside. It is not looked at as a tunnel again.
#[inline(always)]
pub(crate) fn process_inner(context: &XdpContext) -> Outcome {
    let packet = XdpPacket::whole(context);
    let network = parse_network(&packet).map_err(|_| Reason::BadTunnel)?;
    if is_icmp(&network) && network.is_bare() && network.fault.is_none() {
        hand_over(&network);
        return Err(Stop::Slow(SlowPath::InnerService));
    }
    // No tier sends other ICMP, nor anything but TCP and UDP beside it.
    let headers = headers_of(&packet, &network).map_err(|_| Reason::BadTunnel)?;
    let transport = match headers.transport {
        Ok(transport) => transport,
        Err(Reason::FragmentUnknown) => unusual::without_ports(&network),
        Err(reason) => return Err(Stop::Reason(reason)),
    };
    scratch::write(&headers, &transport).ok_or(Reason::InternalError)?;
    scratch::write_unpacked(true).ok_or(Reason::InternalError)?;
    Err(Stop::Slow(SlowPath::InnerService))
}

/// To a service it goes on, to anybody else it does not: a program of its own, because the verifier would look for the
/// service once for each combination of headers.
#[inline(always)]
pub(crate) fn process_inner_service() -> Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let goes_to_service = match headers.protocol {
        TCP | UDP if headers.fragment.is_whole() || headers.fragment.is_first() => is_served(&headers, &transport),
        // Of a later fragment, which follows the first one to its end; and of one that hides its protocol.
        TCP | UDP => service::has_protocol(headers.destination, headers.protocol)?,
        _ => service::is_vip(headers.destination)?,
    };
    if !goes_to_service {
        return Err(Stop::Reason(Reason::TunnelNotToVip));
    }
    Err(Stop::Slow(match headers.protocol {
        TCP | UDP if headers.fragment.is_whole() => SlowPath::Judge,
        TCP | UDP => SlowPath::Fragment,
        _ => SlowPath::Icmp,
    }))
}
