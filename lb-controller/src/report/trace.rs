//! What would become of packets.

use serde::{Deserialize, Serialize};

/// The answer of `trace`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Trace {
    /// Where the packets are said to have come in; `None`: by no interface in particular.
    pub interface: Option<String>,
    /// Whose flows were looked at.
    pub cpu: usize,
    /// In their order: each finds what those before it have left.
    pub packets: Vec<TracedPacket>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TracedPacket {
    /// `192.0.2.1:40000 > 198.51.100.10:443 tcp`, or what else is known.
    pub summary: String,
    /// `drop`, `pass`, `transmit` or `redirect`.
    pub verdict: String,
    pub reason: String,
    pub reason_text: String,
    pub service: Option<String>,
    /// `ADDRESS:PORT` of the backend that it went to.
    pub backend: Option<String>,
    pub steps: Vec<TraceStep>,
    /// In hexadecimal digits, as the packet came and as it left.
    pub frame: String,
    pub frame_out: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    pub step: String,
    /// `passed`, `stopped` where the way ended, `skipped` where nothing was to be done, or `not reached`.
    pub outcome: String,
    pub detail: String,
}
