//! NAT in both directions: which connection has which port of ours, and for how long.
//!
//! A connection has a *slot*: what its packets are rewritten to, in both directions. Two keys lead to it, one as the
//! client's packets name it and one as the backend's do. Beside the slot is its *word*, which all CPUs change by
//! comparing and swapping, and which alone decides whose the slot is:
//!
//! - Whoever finds a slot by a key swaps the present time into its word before reading the slot. From then on nobody can
//!   take it over for as long as the shortest timeout, so that what is read belongs together; only then the slot is
//!   compared with the key.
//! - Whoever looks for room takes a slot that is free, or whose time is over, by swapping [`HELD`] into its word. A slot
//!   whose connection lives is never taken, whatever the pressure.
//!
//! So nothing has to sweep: what is over is removed by whoever needs its place.

mod rewrite;

use crate::hash::Connection;
use crate::types::{NatKey, NatPolicy, NatSlot};

pub use rewrite::{Ends, ErrorPlace, Place, translate, translate_error};

/// Connections that fit unless the configuration says otherwise.
pub const DEFAULT_CAPACITY: usize = 1 << 16;
/// More would be more than the kernel gives one map, or a machine its memory: 1.7 GB.
pub const MAX_CAPACITY: usize = 1 << 24;
/// Words of one element of `NAT_WORDS`. Capacities are multiples of it.
pub const BLOCK_WORDS: usize = 64;
/// Blocks that a new connection looks for room in. With nine of ten slots taken it finds none once in 700,000 times, and
/// its repetition looks elsewhere.
pub const BLOCKS_TRIED: u32 = 2;
/// Ports that a new connection asks for: with half of a backend's ports taken, one of 65,536 finds none.
pub const PORTS_TRIED: u32 = 16;
/// Addresses of one family that packets to backends may come from.
pub const MAX_ADDRESSES: usize = 8;
/// Ports where replies come in, unless the configuration says otherwise: below those that Linux gives its own
/// connections, above those of most servers.
pub const DEFAULT_PORTS: (u16, u16) = (10_000, 32_767);

/// Of the value that a key leads to: the key is the backend's.
pub const IS_REPLY: u32 = 1 << 31;

/// The clock's steps: 1.07 s.
pub const STEP_BITS: u32 = 30;

/// A connection that nobody has proven to want: neither a backend's answer nor the client's answer to that.
pub const UNPROVEN_SECONDS: u32 = 10;
/// After a RST, which whoever guesses ports may have forged: packets that go on coming keep the connection.
const RESET_SECONDS: u32 = 10;
/// After both FINs: the peer that closed first stays in TIME-WAIT for 60 s on Linux, and its port must not come back
/// with another connection's numbers.
const CLOSED_SECONDS: u32 = 60;
/// After one FIN: the other side may have more to say.
const HALF_CLOSED_SECONDS: u32 = 120;

/// What is set in the upper half of a word; in the lower half is the time of the last packet.
///
/// The slot is somebody's.
pub const HELD: u64 = 1 << 32;
/// Both keys lead to it, or will in a moment.
pub const READY: u64 = 1 << 33;
pub const IS_TCP: u64 = 1 << 34;
/// The backend has answered.
pub const ANSWERED: u64 = 1 << 35;
/// Of TCP: the client has acknowledged that answer, so that its address is not forged.
pub const CONFIRMED: u64 = 1 << 36;
pub const CLIENT_FIN: u64 = 1 << 37;
pub const BACKEND_FIN: u64 = 1 << 38;
pub const RESET: u64 = 1 << 39;

const TIME_MASK: u64 = u32::MAX as u64;
const BOTH_FINS: u64 = CLIENT_FIN | BACKEND_FIN;

/// Steps that cover `seconds`.
pub const fn steps_of(seconds: u32) -> u32 {
    ((seconds as u64 * 1_000_000_000) >> STEP_BITS) as u32 + 1
}

/// How long the connection of a word may be silent.
#[inline(always)]
const fn timeout_steps(word: u64, policy: &NatPolicy) -> u32 {
    if word & READY == 0 {
        return const { steps_of(UNPROVEN_SECONDS) };
    }
    if word & IS_TCP == 0 {
        return if word & ANSWERED != 0 { policy.udp_idle_steps } else { const { steps_of(UNPROVEN_SECONDS) } };
    }
    if word & RESET != 0 {
        return const { steps_of(RESET_SECONDS) };
    }
    if word & CONFIRMED == 0 {
        return const { steps_of(UNPROVEN_SECONDS) };
    }
    match word & BOTH_FINS {
        0 => policy.tcp_idle_steps,
        BOTH_FINS => const { steps_of(CLOSED_SECONDS) },
        _ => const { steps_of(HALF_CLOSED_SECONDS) },
    }
}

/// May the slot of this word be taken?
#[inline(always)]
pub const fn is_free(word: u64, now_steps: u32, policy: &NatPolicy) -> bool {
    // Another CPU's clock may be a step ahead: that is no age at all.
    let age_steps = now_steps.wrapping_sub(word as u32) as i32;
    word & HELD == 0 || age_steps > timeout_steps(word, policy) as i32
}

/// The word with the time of a packet.
#[inline(always)]
pub const fn touched(word: u64, now_steps: u32) -> u64 {
    word & !TIME_MASK | now_steps as u64
}

#[inline(always)]
pub const fn is_ready(word: u64) -> bool {
    word & READY != 0
}

/// A SYN would begin another connection: this one has come to its end, or never came to be.
#[inline(always)]
pub const fn gives_way_to_syn(word: u64) -> bool {
    word & (BOTH_FINS | RESET) != 0 || word & CONFIRMED == 0
}

/// The word of a connection of which the first packet was seen.
#[inline(always)]
pub const fn begun(is_tcp: bool, now_steps: u32) -> u64 {
    HELD | READY | if is_tcp { IS_TCP } else { 0 } | now_steps as u64
}

/// Bits of a TCP header's flags.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Numbers of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
}

/// How far behind the backend's first number a client's first acknowledgement may be, after what the backend sent at
/// once. Whoever has not seen the number guesses it once in 65,536 times.
const CONFIRMING_WINDOW: u32 = 1 << 16;

/// The word after a segment of the client. `backend_sequence` is the first number of the backend.
#[inline(always)]
pub const fn after_client(word: u64, segment: &Segment, backend_sequence: u32) -> u64 {
    let mut word = word;
    if segment.flags & SYN != 0 {
        return if gives_way_to_syn(word) { word & !(ANSWERED | CONFIRMED | BOTH_FINS | RESET) } else { word };
    }
    if segment.flags & ACK != 0 && word & ANSWERED != 0 {
        let ahead = segment.acknowledgement.wrapping_sub(backend_sequence);
        if 0 < ahead && ahead <= CONFIRMING_WINDOW {
            word |= CONFIRMED;
        }
    }
    if segment.flags & FIN != 0 {
        word |= CLIENT_FIN;
    }
    if segment.flags & RST != 0 {
        word |= RESET;
    }
    word
}

/// The word after a segment of the backend.
#[inline(always)]
pub const fn after_backend(word: u64, segment: &Segment) -> u64 {
    let mut word = word;
    if segment.is_answer() {
        word |= ANSWERED;
    }
    if segment.flags & FIN != 0 {
        word |= BACKEND_FIN;
    }
    if segment.flags & RST != 0 {
        word |= RESET;
    }
    word
}

impl Segment {
    /// SYN and ACK: what a backend takes a connection with.
    #[inline(always)]
    pub const fn is_answer(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }
}

impl NatKey {
    #[inline(always)]
    pub const fn of(connection: &Connection) -> Self {
        let Connection { source, destination, source_port, destination_port, protocol } = *connection;
        Self { source, destination, source_port, destination_port, protocol, unused: [0; 3] }
    }

    /// All words at once: the compiler would compare bytes.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (self.source.halves(), self.destination.halves());
        let ([e, f], [g, h]) = (other.source.halves(), other.destination.halves());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (ports_of(self) ^ ports_of(other)) == 0
    }
}

#[inline(always)]
const fn ports_of(key: &NatKey) -> u64 {
    key.source_port as u64 | (key.destination_port as u64) << 16 | (key.protocol as u64) << 32
}

impl NatSlot {
    /// As the client's packets name the connection.
    #[inline(always)]
    pub const fn client_key(&self) -> NatKey {
        NatKey {
            source: self.client,
            destination: self.vip,
            source_port: self.client_port,
            destination_port: self.vip_port,
            protocol: self.protocol,
            unused: [0; 3],
        }
    }

    /// As the backend's packets name it.
    #[inline(always)]
    pub const fn reply_key(&self) -> NatKey {
        NatKey {
            source: self.backend,
            destination: self.nat,
            source_port: self.backend_port,
            destination_port: self.nat_port,
            protocol: self.protocol,
            unused: [0; 3],
        }
    }

    /// Ends of packets as the client sends them, and as the backend gets them.
    #[inline(always)]
    pub const fn client_ends(&self) -> Ends {
        Ends {
            source: self.client,
            destination: self.vip,
            source_port: self.client_port,
            destination_port: self.vip_port,
        }
    }

    #[inline(always)]
    pub const fn backend_ends(&self) -> Ends {
        Ends {
            source: self.nat,
            destination: self.backend,
            source_port: self.nat_port,
            destination_port: self.backend_port,
        }
    }
}

impl NatPolicy {
    /// Until user space says otherwise there is no room.
    pub const NONE: Self = Self {
        blocks: 0,
        first_port: 0,
        last_port: 0,
        tcp_idle_steps: 0,
        udp_idle_steps: 0,
        addresses_count: [0; 2],
        unused: 0,
        addresses: [[crate::Address { words_be: [0; 4] }; MAX_ADDRESSES]; 2],
    };

    /// The port that a connection asks for at its `attempt`. All ports are as likely, for whoever does not know the
    /// hash.
    #[inline(always)]
    pub const fn port(&self, hash: u64, attempt: u32) -> u16 {
        let ports = self.last_port as u64 - self.first_port as u64 + 1;
        let hash = (hash ^ attempt as u64).wrapping_mul(ODD);
        self.first_port + (((hash >> 32) * ports) >> 32) as u16
    }

    /// The block of words where a connection looks for room at its `attempt`: elsewhere as time goes by, so that a
    /// packet that found none is not sent again in vain.
    #[inline(always)]
    pub const fn block(&self, hash: u64, attempt: u32, now_steps: u32) -> u32 {
        let hash = (hash.rotate_left(17) ^ (attempt as u64) << 32 ^ now_steps as u64).wrapping_mul(ODD);
        (((hash >> 32) * self.blocks as u64) >> 32) as u32
    }
}

/// As in [`crate::address`].
const ODD: u64 = 0xd6e8_feb8_6659_fd93;

#[cfg(test)]
mod tests;
