//! Sampled packets.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The answer of `drops`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Samples {
    pub samples: Vec<PacketSample>,
    /// Where the next excerpt goes on.
    pub next: u64,
    /// Forgotten before they were asked for.
    pub missed: u64,
    /// Of all packets since the maps were made.
    pub account: SampleAccount,
}

/// A packet as it was when XDP was done with it; of a forwarded one the outer headers come first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketSample {
    pub number: u64,
    /// RFC 3339, in UTC.
    pub at: String,
    /// The same in nanoseconds since 1970.
    pub at_unix_ns: u64,
    pub reason: String,
    /// `drop`, `pass`, `transmit` or `redirect`.
    pub verdict: String,
    pub service: Option<String>,
    pub interface: String,
    pub queue: u32,
    pub cpu: u32,
    pub source: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination: Option<IpAddr>,
    pub destination_port: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Of the whole frame.
    pub frame_bytes: u32,
    /// The frame's first bytes, in hexadecimal digits.
    pub captured: String,
}

/// What became of the packets that could have been sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleAccount {
    pub dropped: Sampled,
    pub let_in: Sampled,
}

/// `seen` = `written` + `lost` + `not_chosen`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    pub seen: u64,
    /// Into the ring that the controller reads.
    pub written: u64,
    /// The ring was full.
    pub lost: u64,
    pub not_chosen: u64,
}
