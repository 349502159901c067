//! Frames that NAT rewrites: nothing but addresses, ports and checksums changes, what is rewritten and rewritten back is
//! what it was, and a frame that is refused was no packet of that kind.
#![no_main]

use std::net::IpAddr;

use lb_common::icmp::{Kind, is_icmp, kind, quoted};
use lb_common::nat::{Ends, ErrorPlace, Place, translate, translate_error};
use lb_common::parse::{Headers, Network, UDP, parse, parse_bare_network};
use libfuzzer_sys::fuzz_target;

fn other(is_v4: bool) -> Ends {
    let [source, destination] = if is_v4 { ["10.9.0.1", "10.9.0.2"] } else { ["2001:db8:9::1", "2001:db8:9::2"] }
        .map(|text| text.parse::<IpAddr>());
    let [source, destination] = [source, destination].map(|address| address.expect("an address").into());
    Ends { source, destination, source_port: 10_000, destination_port: 8080 }
}

fuzz_target!(|frame: &[u8]| {
    if let Ok(headers) = parse(&frame) {
        packet(frame, &headers);
    }
    if let Ok(network) = parse_bare_network(&frame)
        && network.fault.is_none()
        && is_icmp(&network)
        && kind(&frame, &network) == Ok(Kind::Error)
    {
        error(frame, &network);
    }
});

fn packet(frame: &[u8], headers: &Headers) {
    let Ok(transport) = headers.transport else { return };
    let is_v4 = headers.source.is_v4();
    let old = Ends {
        source: headers.source,
        destination: headers.destination,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
    };
    let (ip_offset, protocol) = (headers.link_bytes, headers.protocol);
    let place = Place { ip_offset, is_v4, transport_offset: transport.offset, protocol, has_transport: true };
    let (mut bytes, new) = (frame.to_vec(), other(is_v4));
    translate(bytes.as_mut_slice(), &place, &old, &new).expect("whole headers");
    let again = parse(&bytes.as_slice()).expect("still a packet");
    let ports = again.transport.expect("still with ports");
    assert_eq!((again.source, again.destination), (new.source, new.destination));
    assert_eq!((ports.source_port, ports.destination_port), (new.source_port, new.destination_port));
    assert_eq!((again.length_bytes, again.fragment), (headers.length_bytes, headers.fragment));
    translate(bytes.as_mut_slice(), &place, &new, &old).expect("whole headers");
    assert_same(frame, &bytes, &[ip_offset + 10, transport.offset + if protocol == UDP { 6 } else { 16 }]);
}

fn error(frame: &[u8], network: &Network) {
    let Ok(connection) = quoted(&frame, network, |connection| Ok(*connection)) else { return };
    let (is_v4, icmp_offset) = (network.source.is_v4(), network.transport_offset);
    let header_bytes = if is_v4 { usize::from(frame[icmp_offset + 8] & 0x0f) * 4 } else { 40 };
    let place = ErrorPlace {
        ip_offset: network.link_bytes,
        is_v4,
        icmp_offset,
        transport_offset: icmp_offset + 8 + header_bytes,
        protocol: connection.protocol,
        end_offset: network.end_offset,
    };
    // What is quoted goes the other way than the packets of the connection.
    let old = Ends {
        source: connection.destination,
        destination: connection.source,
        source_port: connection.destination_port,
        destination_port: connection.source_port,
    };
    let outer = Ends { source: network.source, destination: network.destination, ..old };
    let (mut bytes, new) = (frame.to_vec(), other(is_v4));
    translate_error(bytes.as_mut_slice(), &place, [&outer, &new], [&old, &new]).expect("whole headers");
    translate_error(bytes.as_mut_slice(), &place, [&new, &outer], [&new, &old]).expect("whole headers");
    let transport_sum = place.transport_offset + if place.protocol == UDP { 6 } else { 16 };
    let sums = [place.ip_offset + 10, icmp_offset + 2, icmp_offset + 18, transport_sum];
    assert_same(frame, &bytes, &sums);
}

/// But for checksums that were 0 or 0xffff: to who sums, the two are one.
fn assert_same(before: &[u8], after: &[u8], sums: &[usize]) {
    let (mut before, mut after) = (before.to_vec(), after.to_vec());
    for at in sums {
        for bytes in [&mut before, &mut after] {
            if bytes.get(*at..at + 2) == Some(&[0xff, 0xff]) {
                bytes[*at..at + 2].fill(0);
            }
        }
    }
    assert_eq!(before, after);
}
