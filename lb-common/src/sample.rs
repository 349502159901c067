//! Which packets are written down for people to look at, and what can be read out of such a sample.
//!
//! Dropped packets are looked at one by one until a CPU has written as many of the reason as it may; then only every so many-th is. Of
//! packets let in every [`LOOK_EVERY`]th is looked at, chosen by the counter that is counted up anyway, so that the
//! others pay nothing.

use crate::address::Address;
use crate::parse::{self, Packet};
use crate::types::{Limit, PacketSample, SamplePolicy};

/// The first bytes of a frame that a sample holds: Ethernet with two tags, IPv6 with some extension headers, TCP with all
/// its options.
pub const SAMPLE_BYTES: usize = 128;
/// Some 6,000 samples.
pub const SAMPLE_RING_BYTES: usize = 1 << 20;
/// Of packets let in, for each reason and CPU, one in so many is looked at: a power of two.
pub const LOOK_EVERY: u64 = 64;
/// Dropped packets between two looks while no more may be written, or none at all: a look costs about as much as judging a
/// packet, and so soon a changed policy takes effect.
pub const SKIPPED_BETWEEN_LOOKS: u64 = 255;

impl SamplePolicy {
    pub const OFF: Self = Self { rate: Limit { cost_ps: 0, tolerance_ps: 0 }, let_in_looks: 0 };
}

impl PacketSample {
    /// The frame's first bytes.
    pub fn captured(&self) -> &[u8] {
        &self.bytes[..(self.captured_bytes as usize).min(SAMPLE_BYTES)]
    }
}

/// The first bytes of a frame that is longer: what lies beyond them cannot be read.
pub struct Captured<'a> {
    pub bytes: &'a [u8],
    pub frame_bytes: usize,
}

impl Packet for Captured<'_> {
    fn length_bytes(&self) -> usize {
        self.frame_bytes.max(self.bytes.len())
    }

    fn load<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        self.bytes.load(offset)
    }
}

/// Who sent a packet to whom, as far as its headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: Address,
    pub destination: Address,
    /// IP protocol number; `None` if the headers before it could not be walked.
    pub protocol: Option<u8>,
    /// Of the source and the destination; `None` of what has none, and of fragments after the first.
    pub ports: Option<(u16, u16)>,
}

/// `None` of what is not IP, or has not even addresses.
pub fn ends(packet: &impl Packet) -> Option<Ends> {
    let Ok(network) = parse::parse_network(packet) else {
        let (source, destination) = parse::parse_addresses(packet)?;
        return Some(Ends { source, destination, protocol: None, ports: None });
    };
    let headers = parse::headers_of(packet, &network).ok();
    let transport = headers.and_then(|headers| headers.transport.ok());
    Some(Ends {
        source: network.source,
        destination: network.destination,
        protocol: (!network.hides_protocol()).then_some(network.protocol),
        ports: transport.map(|transport| (transport.source_port, transport.destination_port)),
    })
}

#[cfg(test)]
mod tests;
