//! Headers for backends.

use std::net::{IpAddr, SocketAddr};

use super::{Ends, SIGNATURE_V2};
use crate::config::ProxyVersion;

/// Before the bytes of a client.
pub fn of_client(version: ProxyVersion, ends: Ends) -> Vec<u8> {
    let Ends { source, destination } = of_one_family(ends);
    match version {
        ProxyVersion::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        ProxyVersion::V2 => {
            let mut header = SIGNATURE_V2.to_vec();
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.extend([0x21, 0x11, 0, 12]);
                    header.extend([from.octets(), to.octets()].concat());
                }
                (from, to) => {
                    header.extend([0x21, 0x21, 0, 36]);
                    header.extend([mapped(from), mapped(to)].concat());
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            header
        }
    }
}

/// Before bytes of our own, such as a health check's: `LOCAL`, and in version 1 the word that comes nearest.
pub fn of_nobody(version: ProxyVersion) -> &'static [u8] {
    match version {
        ProxyVersion::V1 => b"PROXY UNKNOWN\r\n",
        ProxyVersion::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

/// One header has addresses of one family. Of two, the IPv4 one goes in its mapped form.
fn of_one_family(ends: Ends) -> Ends {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (source, destination) = (canonical(ends.source), canonical(ends.destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return Ends { source, destination };
    }
    let wide = |end: SocketAddr| SocketAddr::new(mapped(end.ip()).into(), end.port());
    Ends { source: wide(source), destination: wide(destination) }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
