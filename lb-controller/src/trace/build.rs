//! A frame from a few words.

use std::net::{IpAddr, SocketAddr};

/// What a packet is to be like.
#[derive(Clone, Debug)]
pub struct Described {
    pub from: SocketAddr,
    /// Of the same family.
    pub to: SocketAddr,
    /// `None`: UDP.
    pub tcp: Option<Flags>,
    pub payload_bytes: usize,
}

/// Of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;

/// The Ethernet frame of such a packet, with right checksums; `None` if the addresses are of two families, or the packet
/// would be longer than IP allows.
pub fn frame(described: &Described) -> Option<Vec<u8>> {
    let segment = segment(described)?;
    let protocol = if described.tcp.is_some() { TCP } else { UDP };
    // Locally administered addresses: nobody's.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match (described.from.ip(), described.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(segment.len() + 20).ok()?.to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            frame.extend([0x08, 0x00]);
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(u16::try_from(segment.len()).ok()?.to_be_bytes());
            frame.extend([protocol, HOP_LIMIT]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => return None,
    }
    frame.extend(segment);
    Some(frame)
}

fn segment(described: &Described) -> Option<Vec<u8>> {
    let mut segment = Vec::new();
    segment.extend(described.from.port().to_be_bytes());
    segment.extend(described.to.port().to_be_bytes());
    let sum_at = match described.tcp {
        Some(flags) => {
            segment.extend([0, 0, 0, 1, 0, 0, 0, u8::from(flags.ack)]);
            segment.extend([0x50, bits(flags), 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        None => {
            segment.extend(u16::try_from(described.payload_bytes + 8).ok()?.to_be_bytes());
            segment.extend([0, 0]);
            6
        }
    };
    segment.resize(segment.len() + described.payload_bytes, 0);
    let protocol = if described.tcp.is_some() { TCP } else { UDP };
    let length = u32::try_from(segment.len()).ok()?.to_be_bytes();
    let (from, to) = (octets(described.from.ip()), octets(described.to.ip()));
    let mut sum = checksum(&[&from, &to, &length, &[0, protocol], &segment]);
    // In UDP 0 says that there is none (RFC 768).
    if described.tcp.is_none() && sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    segment[sum_at..sum_at + 2].copy_from_slice(&sum);
    Some(segment)
}

fn bits(flags: Flags) -> u8 {
    u8::from(flags.fin) | u8::from(flags.syn) << 1 | u8::from(flags.rst) << 2 | u8::from(flags.ack) << 4
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071) of parts, each of even length but the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
    (!lb_common::checksum::fold(words.sum())).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(from: &str, to: &str, tcp: Option<Flags>, payload_bytes: usize) -> Described {
        let address = |text: &str| text.parse().expect("an address and port");
        Described { from: address(from), to: address(to), tcp, payload_bytes }
    }

    #[test]
    fn a_packet_is_read_as_it_was_described() {
        let syn = Some(Flags { syn: true, ..Flags::default() });
        for (from, to, tcp, payload_bytes) in [
            ("192.0.2.1:1234", "198.51.100.10:443", syn, 0),
            ("[2001:db8::1]:1234", "[2001:db8:100::10]:443", syn, 33),
            ("192.0.2.1:1234", "198.51.100.10:443", None, 1400),
            ("[2001:db8::1]:1234", "[2001:db8:100::10]:443", None, 7),
        ] {
            let described = described(from, to, tcp, payload_bytes);
            let frame = frame(&described).expect("a frame");
            let headers = lb_common::parse::parse(&&frame[..]).expect("IP");
            let transport = headers.transport.expect("ports");
            assert_eq!(SocketAddr::new(headers.source.into(), transport.source_port), described.from, "{from}");
            assert_eq!(SocketAddr::new(headers.destination.into(), transport.destination_port), described.to, "{from}");
            assert_eq!(headers.protocol, if tcp.is_some() { TCP } else { UDP }, "{from}");
            assert_eq!(transport.opens_connection, tcp.is_some(), "{from}");
            assert_eq!(frame.len(), 14 + headers.length_bytes as usize, "{from}");
        }
    }

    #[test]
    fn checksums_are_right() {
        let frame = frame(&described("192.0.2.1:1234", "198.51.100.10:443", None, 5)).expect("a frame");
        assert_eq!(checksum(&[&frame[14..34]]), [0, 0], "of the IP header");
        let pseudo = [&frame[26..34], &[0, 0, 0, 13, 0, UDP]].concat();
        assert_eq!(checksum(&[&pseudo, &frame[34..]]), [0, 0], "of the datagram");
    }

    #[test]
    fn what_cannot_be_a_packet_is_none() {
        assert!(frame(&described("192.0.2.1:1", "[2001:db8::1]:2", None, 0)).is_none());
        assert!(frame(&described("192.0.2.1:1", "192.0.2.2:2", None, 70_000)).is_none());
        assert!(frame(&described("192.0.2.1:1", "192.0.2.2:2", Some(Flags::default()), 65_500)).is_none());
    }
}
