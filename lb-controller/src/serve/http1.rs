//! HTTP/1.1 (RFC 9112), read once. Who parses a request twice gets two readings of it one day; here the bytes that end a
//! request are found by the reader whose reading is judged and forwarded (decision 46).
//!
//! A connection has no buffer while it is idle. A body is asked for piece by piece, and nothing is read that nobody asked
//! for, so a slow reader slows its writer down.

pub(crate) mod body;
mod chunks;
pub(crate) mod client;
mod encode;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod head;
mod response_head;
pub(crate) mod server;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use wire::{Io, Tunnel};

/// Line and headers of one message. Room for large cookies and tokens; more is 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Headers of one message; more is 431.
const MAX_HEADERS: usize = 100;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foul {
    /// Two readers could take it for two different ones, or it is none.
    Malformed,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// The head exceeds [`MAX_HEAD_BYTES`] or [`MAX_HEADERS`].
    HeadTooLarge,
}
