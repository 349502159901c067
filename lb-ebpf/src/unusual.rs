//! Packets whose ports are not where they usually are, or not there.

use aya_ebpf::programs::XdpContext;
use lb_common::icmp::is_icmp;
use lb_common::parse::{Headers, Network, Transport, headers_of, parse_network};
use lb_common::{Reason, SlowPath, Stop};

use crate::maps::scratch;
use crate::packet::XdpPacket;
use crate::{icmp, service, tunnel};

/// Reads all that the fast program left unread, and says who goes on.
#[inline(always)]
pub(crate) fn process(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let packet = XdpPacket::whole(context);
    let network = parse_network(&packet)?;
    if is_icmp(&network) {
        return if network.is_bare() { Err(Stop::Slow(SlowPath::Icmp)) } else { icmp::process_unusual(&network) };
    }
    if tunnel::is_ip_in_ip(&network) {
        return Err(tunnel::hand_over(&network));
    }
    let headers = headers_of(&packet, &network)?;
    let transport = match headers.transport {
        Ok(transport) => transport,
        Err(Reason::FragmentUnknown) => without_ports(&network),
        Err(reason) => return Err(unreadable(&headers, reason)),
    };
    scratch::write(&headers, &transport).ok_or(Reason::InternalError)?;
    scratch::write_unpacked(false).ok_or(Reason::InternalError)?;
    if tunnel::is_gue(&headers, &transport) {
        return Err(Stop::Slow(SlowPath::Tunnel));
    }
    Err(Stop::Slow(if headers.fragment.is_whole() { SlowPath::Judge } else { SlowPath::Fragment }))
}

/// A packet without readable ports is ours to drop only if its destination is a VIP of its protocol.
#[inline(always)]
fn unreadable(headers: &Headers, reason: Reason) -> Stop {
    match service::has_protocol(headers.destination, headers.protocol) {
        Ok(true) => Stop::Reason(reason),
        Ok(false) => Stop::Reason(Reason::NoService),
        Err(error) => Stop::Reason(error),
    }
}

/// What a later fragment says by itself.
#[inline(always)]
pub(crate) fn without_ports(network: &Network) -> Transport {
    Transport {
        source_port: 0,
        destination_port: 0,
        opens_connection: false,
        closes_connection: false,
        offset: network.transport_offset,
    }
}
