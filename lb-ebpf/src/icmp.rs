//! ICMP to a VIP: pings are answered here, errors find the connection they are about.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use lb_common::hash::Connection;
use lb_common::icmp::{self, Kind};
use lb_common::parse::{Headers, Network, Transport, parse_bare_network};
use lb_common::service::NAT_REPLIES;
use lb_common::{Reason, SlowPath, Stop};

use crate::maps::scratch;
use crate::packet::XdpPacket;
use crate::{admit, flow, forward, maps, nat, service};

type Outcome = Result<(Reason, u32), Stop>;

/// Only of packets that [`parse_bare_network`] reads.
#[inline(always)]
pub(crate) fn process(context: &XdpContext) -> Outcome {
    let mut packet = XdpPacket::whole(context);
    let network = parse_bare_network(&packet)?;
    if !icmp::is_icmp(&network) {
        return Err(Stop::Reason(Reason::NotInspected));
    }
    if service::is_nat_alone(network.destination)? {
        return to_nat_address(&packet, &network);
    }
    if !service::is_vip(network.destination)? {
        return Err(Stop::Reason(Reason::NotInspected));
    }
    if let Some(fault) = network.fault {
        return Err(Stop::Reason(fault));
    }
    let kind = icmp::kind(&packet, &network)?;
    if kind == Kind::Discovery {
        return PASSED;
    }
    admit::icmp(network.source)?;
    match kind {
        Kind::EchoRequest => answer(&mut packet, &network),
        Kind::Error => error(&packet, &network),
        Kind::Discovery | Kind::Other => PASSED,
    }
}

/// To an address of the host: errors may be about what was sent to a backend from it, all else is the host's.
#[inline(always)]
fn to_nat_address(packet: &XdpPacket, network: &Network) -> Outcome {
    let is_error = network.fault.is_none() && icmp::kind(packet, network) == Ok(Kind::Error);
    match if is_error { error(packet, network) } else { PASSED } {
        Err(Stop::Slow(path)) => Err(Stop::Slow(path)),
        _ => Err(Stop::Reason(Reason::NotInspected)),
    }
}

const PASSED: Outcome = Ok((Reason::IcmpPassed, xdp_action::XDP_PASS));

/// Behind IPv4 options or extension headers, and in fragments: for the host to make out, within the same limit.
#[inline(always)]
pub(crate) fn process_unusual(network: &Network) -> Outcome {
    if !service::is_vip(network.destination)? {
        return Err(Stop::Reason(Reason::NotInspected));
    }
    if let Some(fault) = network.fault {
        return Err(Stop::Reason(fault));
    }
    admit::icmp(network.source)?;
    PASSED
}

#[inline(always)]
fn answer(packet: &mut XdpPacket, network: &Network) -> Outcome {
    match icmp::answer_echo(packet, network) {
        Some(()) => Ok((Reason::EchoAnswered, xdp_action::XDP_TX)),
        None => PASSED,
    }
}

/// Notes what the error is about, as if it were a packet of that connection.
#[inline(always)]
fn error(packet: &XdpPacket, network: &Network) -> Outcome {
    icmp::quoted(packet, network, |connection| note(network, connection).ok_or(Reason::InternalError))?;
    Err(Stop::Slow(SlowPath::IcmpError))
}

#[inline(always)]
fn note(network: &Network, connection: &Connection) -> Option<()> {
    let transport = Transport {
        source_port: connection.source_port,
        destination_port: connection.destination_port,
        opens_connection: false,
        closes_connection: false,
        offset: network.transport_offset,
    };
    let headers = Headers {
        source: connection.source,
        destination: connection.destination,
        traffic_class: network.traffic_class,
        link_bytes: network.link_bytes,
        protocol: connection.protocol,
        length_bytes: network.length_bytes,
        transport: Ok(transport),
        fragment: network.fragment,
    };
    scratch::write(&headers, &transport)
}

/// An error goes where the packets of its connection go. If they end here, the kernel's TCP lowers its segments, or gives
/// up; if they go on to a backend, it is the backend's TCP that must.
#[inline(always)]
pub(crate) fn process_error(context: &XdpContext) -> Outcome {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    // Some other conversation of the host, if the address is its own too.
    let Ok(service) = service::lookup(headers.destination, transport.destination_port, headers.protocol) else {
        return PASSED;
    };
    if service.number == NAT_REPLIES {
        scratch::write_admission(NAT_REPLIES, false).ok_or(Reason::InternalError)?;
        return Err(Stop::Slow(SlowPath::NatError));
    }
    let forward = maps::forward(service.number).ok_or(Reason::InternalError)?;
    if nat::is_of(forward) {
        scratch::write_admission(service.number, false).ok_or(Reason::InternalError)?;
        return Err(Stop::Slow(SlowPath::NatError));
    }
    let Some(picked) = flow::undisturbed(forward, &headers, &transport) else {
        return PASSED;
    };
    let action = forward::send(context, forward, &headers, &picked?)?;
    Ok((Reason::IcmpForwarded, action))
}
