//! Frames: the parser reads nothing beyond the end, believes nothing beyond the datagram, and an address that is no
//! IPv6 address never passes as one. The quick reading is the whole one, a fragment lies inside the longest datagram, and
//! an ICMP error names no connection but one of its own destination. What is read whole a packet library reads alike.
#![no_main]

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::icmp::{is_icmp, kind, quoted};
use lb_common::parse::{Packet, TCP, UDP, parse, parse_bare_network, parse_network, parse_ordinary};
use libfuzzer_sys::fuzz_target;

/// Notes the end of the furthest bytes that were asked for and given.
struct Watched<'a> {
    frame: &'a [u8],
    furthest: Cell<usize>,
}

impl Packet for Watched<'_> {
    fn length_bytes(&self) -> usize {
        self.frame.len()
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let value = self.frame.load(offset)?;
        self.furthest.set(self.furthest.get().max(offset + size_of::<T>()));
        Some(value)
    }
}

/// Source and destination with their ports, the protocol, and whether it is a SYN without ACK.
type Reading = ([(IpAddr, u16); 2], u8, bool);

/// `None` of what the library does not read, or takes for something else than TCP and UDP.
fn read_by_library(frame: &[u8]) -> Option<Reading> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            (Ipv4Addr::from(ip.header().source()).into(), Ipv4Addr::from(ip.header().destination()).into())
        }
        NetSlice::Ipv6(ip) => {
            (Ipv6Addr::from(ip.header().source()).into(), Ipv6Addr::from(ip.header().destination()).into())
        }
        NetSlice::Arp(_) => return None,
    };
    let (ports, protocol, opens) = match packet.transport? {
        TransportSlice::Tcp(tcp) => ([tcp.source_port(), tcp.destination_port()], TCP, tcp.syn() && !tcp.ack()),
        TransportSlice::Udp(udp) => ([udp.source_port(), udp.destination_port()], UDP, false),
        _ => return None,
    };
    Some(([(source, ports[0]), (destination, ports[1])], protocol, opens))
}

fuzz_target!(|frame: &[u8]| {
    let watched = Watched { frame, furthest: Cell::new(0) };
    let parsed = parse(&watched);
    assert!(watched.furthest.get() <= frame.len(), "read beyond the end");
    assert_eq!(parse(&frame), parsed, "the same bytes mean the same");

    if let Ok(quick) = parse_ordinary(&frame) {
        assert_eq!(Ok(quick), parsed);
    }
    if let Ok(network) = parse_network(&frame)
        && network.fault.is_none()
        && !network.fragment.is_whole()
    {
        let bytes = network.end_offset - network.transport_offset;
        assert!(usize::from(network.fragment.start_units) * 8 + bytes <= usize::from(u16::MAX));
        assert!(network.fragment.start_units < network.fragment.end_units);
    }
    if let Ok(network) = parse_bare_network(&frame)
        && network.fault.is_none()
        && is_icmp(&network)
        && kind(&watched, &network).is_ok()
        && let Ok(connection) = quoted(&watched, &network, |connection| Ok(*connection))
    {
        assert_eq!(connection.destination, network.destination);
        assert!(matches!(connection.protocol, TCP | UDP));
    }
    assert!(watched.furthest.get() <= frame.len(), "read beyond the end");

    let Ok(headers) = parsed else { return };
    assert!(matches!(headers.protocol, TCP | UDP));
    assert_eq!(headers.source.is_v4(), headers.destination.is_v4(), "one packet has one version");
    let Ok(transport) = headers.transport else { return };
    assert!(headers.length_bytes as usize <= frame.len());
    assert!(headers.protocol == TCP || !transport.opens_connection);

    if headers.fragment.is_whole() {
        let ends = [(headers.source, transport.source_port), (headers.destination, transport.destination_port)];
        let ours = (ends.map(|(address, port)| (address.into(), port)), headers.protocol, transport.opens_connection);
        assert_eq!(Some(ours), read_by_library(frame));
    }

    // Ethernet padding is nobody's word.
    let padded = [frame, &[0xff; 46]].concat();
    assert_eq!(parse(&padded.as_slice()), Ok(headers));
});
