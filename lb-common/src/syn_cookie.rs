//! SYN cookies (RFC 4987 §3.6): a SYN is answered without remembering it, and whoever answers the answer has proven
//! that its address is its own.
//!
//! The kernel makes and checks the cookies, so that a connection begun here is its own from the third packet on.

mod answer;
mod options;
mod pressure;
mod segment;

pub use answer::{MOST_TCP_BYTES, Offer, SynAck, ipv4_header, ipv6_header};
pub use options::{MOST_STEPS, OPTION_BUFFER_BYTES, OptionWalk, SynOptions, TCP_BYTES};
pub use pressure::SynCookies;
pub use segment::Segment;

/// Bytes of an Ethernet frame without its checksum: some senders do not fill up what is shorter.
pub const SHORTEST_FRAME_BYTES: usize = 60;

#[cfg(test)]
mod tests;
