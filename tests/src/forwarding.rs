//! Services with backends on a link of their own, for program runs; and what a forwarded frame must look like, put
//! together here anew from the standards, so that a slip in the code under test is not repeated.

use std::net::IpAddr;

use lb_datapath::{BackendState, Desired, DesiredBackend, DesiredService, Forward, Ports, Protocols, Verdict};

use crate::netns::Namespace;
use crate::packet::checksum;
use crate::program::{Bench, Judged, with_bench_in};

/// Where the backends are.
pub const INTERFACE: &str = "way";
/// Of [`INTERFACE`]: backends answer to it.
pub const OWN_4: [u8; 4] = [10, 1, 0, 1];
pub const OWN_6: &str = "2001:db8:b::1";
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0xbb, 1];
pub const MTU_BYTES: usize = 1600;

pub const VIPS: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];

const ETHERNET_BYTES: usize = 14;
const ADDRESSES_BYTES: usize = 12;

/// The Ethernet address of the backend whose address ends with `number`, which is 2 to 9.
pub const fn mac_of(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xbb, number]
}

/// The backend with `number` in one family, with its port for checks.
pub fn backend(number: u8, is_ipv4: bool) -> String {
    if is_ipv4 { format!("10.1.0.{number}:80") } else { format!("[2001:db8:b::{number}]:80") }
}

/// TCP and UDP of every port of [`VIPS`], sent on in this way to these backends of one pool.
pub fn desired(forward: Forward, backends: &[(String, BackendState)]) -> Desired {
    let service = DesiredService {
        name: String::from("web"),
        vips: VIPS.iter().map(|vip| vip.parse().expect("a VIP")).collect(),
        ports: Ports::Any,
        protocols: Protocols::BOTH,
        forward,
        pool: Some(String::from("app")),
        ..DesiredService::default()
    };
    Desired { services: vec![service], backends: backends.iter().map(in_pool).collect(), ..Desired::default() }
}

fn in_pool((address, state): &(String, BackendState)) -> DesiredBackend {
    let address = address.parse().expect("an address");
    DesiredBackend { pool: String::from("app"), address, weight: 1, state: *state }
}

/// Loads the programs in a namespace whose neighbours on [`INTERFACE`] are the backends with the numbers 2 to 9.
pub fn with_backends(desired: Desired, test: impl FnOnce(&mut Bench) + Send + 'static) {
    let (edge, peer) = (Namespace::new(), Namespace::new());
    edge.connect(INTERFACE, &peer, "uplink");
    edge.ip(&format!("link set {INTERFACE} address {} mtu {MTU_BYTES}", text(OWN_MAC)));
    edge.ip(&format!("address add {}/24 dev {INTERFACE}", IpAddr::from(OWN_4)));
    edge.ip(&format!("address add {OWN_6}/64 dev {INTERFACE} nodad"));
    for number in 2..=9 {
        for address in [format!("10.1.0.{number}"), format!("2001:db8:b::{number}")] {
            edge.ip(&format!("neighbour add {address} dev {INTERFACE} lladdr {} nud permanent", text(mac_of(number))));
        }
    }
    with_bench_in(&edge, &[], desired, test);
    drop(peer);
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a forwarded packet moves: of the service `web`, and of its backend.
pub fn forwarded_to(backend: &str, ip_bytes: usize, opens_connection: bool, is_new: bool) -> Judged {
    let [packets, bytes, new] = ["packets", "bytes", "new"].map(|what| format!("backend {backend} {what}"));
    let mut judged = Judged::let_into("web", ip_bytes).with(&[(&packets, 1), (&bytes, ip_bytes as u64)]);
    judged.verdict = Verdict::Redirect;
    let judged = if opens_connection { judged.with(&[("service web syns", 1)]) } else { judged };
    if is_new { judged.with(&[(&new, 1)]) } else { judged }
}

/// How a packet travels to the backend with `number`.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// UDP destination port of GUE, if that is between.
    pub gue_port: Option<u16>,
    /// Of the outer header, and of the backend's address.
    pub is_ipv4: bool,
    pub number: u8,
}

/// What the frame must become whose Ethernet header has `link_bytes` and whose inner packet has `ip_bytes` and this traffic
/// class. What depends on a secret hash, GUE's source port or the flow label, is taken from `sent`.
pub fn encapsulated(tunnel: Tunnel, frame: &[u8], traffic_class: u8, sent: &[u8]) -> Vec<u8> {
    let link_bytes = link_bytes(frame);
    let inner = &frame[link_bytes..];
    let ip_bytes = ip_bytes(inner);
    let outer_start = link_bytes;
    let ip_header_bytes = if tunnel.is_ipv4 { 20 } else { 40 };
    let protocol = match (tunnel.gue_port, inner[0] >> 4) {
        (Some(_), _) => 17,
        (None, 4) => 4,
        (None, _) => 41,
    };
    let udp = tunnel.gue_port.map_or(Vec::new(), |port| {
        let source_port = &sent[outer_start + ip_header_bytes..][..2];
        let length = (8 + ip_bytes as u16).to_be_bytes();
        [source_port, &port.to_be_bytes(), &length, &[0, 0]].concat()
    });
    let payload_bytes = udp.len() + ip_bytes;
    let (ether_type, header) = if tunnel.is_ipv4 {
        (0x0800_u16, ipv4_header(tunnel.number, protocol, traffic_class, payload_bytes))
    } else {
        let label = &sent[outer_start + 1..outer_start + 4];
        (0x86dd, ipv6_header(tunnel.number, protocol, traffic_class, payload_bytes, label))
    };
    let tags = &frame[ADDRESSES_BYTES..link_bytes - 2];
    [&mac_of(tunnel.number)[..], &OWN_MAC, tags, &ether_type.to_be_bytes(), &header, &udp, inner].concat()
}

/// The same packet to the Ethernet address of the backend with `number`.
pub fn readdressed(number: u8, frame: &[u8]) -> Vec<u8> {
    [&mac_of(number)[..], &OWN_MAC, &frame[ADDRESSES_BYTES..]].concat()
}

/// RFC 791, with "don't fragment" and without identification (RFC 6864 §4.1).
fn ipv4_header(number: u8, protocol: u8, traffic_class: u8, payload_bytes: usize) -> Vec<u8> {
    let mut header = vec![0x45, traffic_class];
    header.extend((20 + payload_bytes as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(OWN_4);
    header.extend([10, 1, 0, number]);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

/// RFC 8200, with the 20 bits of `label`'s 24.
fn ipv6_header(number: u8, protocol: u8, traffic_class: u8, payload_bytes: usize, label: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60 | traffic_class >> 4, traffic_class << 4 | label[0] & 0x0f, label[1], label[2]];
    header.extend((payload_bytes as u16).to_be_bytes());
    header.extend([protocol, 64]);
    for address in [OWN_6.to_owned(), format!("2001:db8:b::{number}")] {
        let address: std::net::Ipv6Addr = address.parse().expect("an address");
        header.extend(address.octets());
    }
    header
}

/// Of the Ethernet header with its tags.
pub fn link_bytes(frame: &[u8]) -> usize {
    let mut at = ADDRESSES_BYTES;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    at + ETHERNET_BYTES - ADDRESSES_BYTES
}

/// Of the packet by its own header's account: padding behind it does not count.
pub fn ip_bytes(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    }
}
