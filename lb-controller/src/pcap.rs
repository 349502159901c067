//! Packet captures as tcpdump and Wireshark know them: pcap and pcapng, with Ethernet frames.

mod read;
mod write;

pub use read::{CaptureError, read_frames};
pub use write::{CaptureWriter, Format, Packet};

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

/// pcap with nanoseconds, and with microseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;

/// Block types of pcapng.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// What a section header says of its byte order.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

#[cfg(test)]
mod tests;
