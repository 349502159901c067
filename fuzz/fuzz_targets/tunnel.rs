//! Tunnel packets: what is taken out lies inside what the outer header answers for, is no tunnel again as far as its own
//! header says, and once it stands behind an Ethernet header it reads as the packet that was seen inside.
#![no_main]

use lb_common::decapsulation::{inner, is_ip_in_ip};
use lb_common::parse::{UDP, parse_network};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let Ok(network) = parse_network(&frame) else { return };
    if network.fault.is_some() || !(is_ip_in_ip(network.protocol) || network.protocol == UDP) {
        return;
    }
    let Some(inner) = inner(&frame, network.protocol, network.transport_offset, network.end_offset) else { return };
    assert!(inner.offset >= network.transport_offset && inner.offset < network.end_offset);
    let ether_type: [u8; 2] = if inner.is_ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let left = [&frame[..12], &ether_type, &frame[inner.offset..]].concat();
    // Of IPv6, mapped addresses are refused there.
    let Ok(read) = parse_network(&left.as_slice()) else {
        assert!(!inner.is_ipv4);
        return;
    };
    assert_eq!(read.source.is_v4(), inner.is_ipv4);
    assert_eq!(read.traffic_class, inner.traffic_class);
    assert!(inner.offset + read.length_bytes as usize <= network.end_offset, "it ends where the outer packet does");
    assert!(!is_ip_in_ip(frame[inner.offset + if inner.is_ipv4 { 9 } else { 6 }]));
});
