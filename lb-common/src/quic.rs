//! Which server a QUIC packet is for, read from its connection id: draft-ietf-quic-load-balancers, unencrypted encoding.
//!
//! A server puts its own id behind the first byte of each connection id that it issues. That byte begins with three bits
//! that say which configuration the id was made by, so that one can follow another while both are in use.

mod server_id;

use core::cmp::Ordering;

use crate::parse::Packet;
use crate::types::QuicServerKey;

pub use server_id::{BadServerId, ServerId};

/// Values of the three bits that stand for a configuration; the last, 7, says that the id leads nowhere (§3.1).
pub const CONFIG_IDS: usize = 7;

/// A server id and at least four bytes of nonce fit into the 20 bytes of a connection id behind its first (§5).
pub const MOST_SERVER_ID_BYTES: usize = 15;
const LEAST_NONCE_BYTES: usize = 4;
const MOST_CONNECTION_ID_BYTES: usize = 20;

const UDP_BYTES: usize = 8;
const LONG_HEADER: u8 = 0x80;
/// First byte, version, and length of the connection id.
const BEFORE_LONG_ID_BYTES: usize = 6;
/// Behind the first byte of a connection id no packet that a client sends is shorter: rest of the id, packet number and
/// 16 bytes of authentication tag (RFC 9001 §5.3).
const LEAST_REST_BYTES: usize = 16;

/// The bytes of the server id in each configuration, four bits each; 0 in one that there is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerIdLengths(pub u32);

impl ServerIdLengths {
    const BITS: u32 = 4;

    /// `config_id` below [`CONFIG_IDS`], `bytes` at most [`MOST_SERVER_ID_BYTES`].
    #[must_use]
    pub const fn with(self, config_id: u8, bytes: u8) -> Self {
        let shift = config_id as u32 % CONFIG_IDS as u32 * Self::BITS;
        Self(self.0 & !(0xf << shift) | (bytes as u32 & 0xf) << shift)
    }

    #[inline(always)]
    pub const fn bytes(self, config_id: u8) -> usize {
        (self.0 >> ((config_id as u32 & 7) * Self::BITS)) as usize & MOST_SERVER_ID_BYTES
    }

    /// Each configuration that there is, with its length.
    pub fn iter(self) -> impl Iterator<Item = (u8, u8)> {
        (0..CONFIG_IDS as u8).map(move |id| (id, self.bytes(id) as u8)).filter(|(_, bytes)| *bytes > 0)
    }
}

/// The server that the UDP datagram with its header at `offset` is for, among those of `pool`. `None` if its connection
/// id was made by no known configuration: by a client, for its first packets, or by nobody.
#[inline(always)]
pub fn server(packet: &impl Packet, offset: usize, lengths: ServerIdLengths, pool: u16) -> Option<QuicServerKey> {
    let datagram_bytes = u16::from_be(packet.load::<u16>(offset + 4)?) as usize;
    let payload = offset + UDP_BYTES;
    let is_long = packet.load::<u8>(payload)? & LONG_HEADER != 0;
    let before_bytes = if is_long { BEFORE_LONG_ID_BYTES } else { 1 };
    let id = payload + before_bytes;
    if UDP_BYTES + before_bytes + 1 + LEAST_REST_BYTES > datagram_bytes {
        return None;
    }
    // A short header does not say how long its id is: as long as we expect, if there is as much.
    let id_bytes = if is_long { long_id_bytes(packet, payload)? } else { datagram_bytes - UDP_BYTES - before_bytes };
    let config_id = packet.load::<u8>(id)? >> 5;
    let server_bytes = lengths.bytes(config_id);
    let is_cut_off = UDP_BYTES + before_bytes + id_bytes > datagram_bytes;
    if server_bytes == 0 || is_cut_off || id_bytes < 1 + server_bytes + LEAST_NONCE_BYTES {
        return None;
    }
    // All that there can be at once, as a loop over its bytes would be many ways for the verifier.
    let rest = packet.load::<[u64; LEAST_REST_BYTES / 8]>(id + 1)?;
    Some(key(rest, server_bytes, pool))
}

/// `None` where there can be none of ours: version negotiation is for servers to send, and ids longer than 20 bytes are of
/// no version that is known (RFC 9000 §17.2).
#[inline(always)]
fn long_id_bytes(packet: &impl Packet, payload: usize) -> Option<usize> {
    let version = packet.load::<u32>(payload + 1)?;
    let id_bytes = packet.load::<u8>(payload + BEFORE_LONG_ID_BYTES - 1)? as usize;
    (version != 0 && id_bytes <= MOST_CONNECTION_ID_BYTES).then_some(id_bytes)
}

/// Of the first `server_bytes` of 16 bytes, 1 to 15.
#[inline(always)]
const fn key([low, high]: [u64; 2], server_bytes: usize, pool: u16) -> QuicServerKey {
    let bits = server_bytes as u32 * 8;
    let low_mask = if bits >= 64 { u64::MAX } else { (1 << (bits & 63)) - 1 };
    let high_mask = if bits > 64 { (1 << ((bits - 64) & 63)) - 1 } else { 0 };
    let id_le = [u64::from_le(low) & low_mask, u64::from_le(high) & high_mask];
    QuicServerKey { id_le, pool: pool as u32, id_bytes: server_bytes as u32 }
}

/// In any order, as long as it is one.
impl Ord for QuicServerKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = |key: &Self| (key.pool, key.id_bytes, key.id_le);
        parts(self).cmp(&parts(other))
    }
}

impl PartialOrd for QuicServerKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
