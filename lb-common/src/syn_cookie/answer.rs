//! The SYN-ACK that carries a cookie.

use super::options::SynOptions;
use super::segment::{ACK, SYN, Segment};
use crate::address::Address;
use crate::checksum::sum;
use crate::parse::TCP;

/// What we say of ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub max_segment_bytes: u16,
    /// The scale of our windows, as the kernel will choose it for the connection.
    pub window_scale: u8,
    /// `None` unless the kernel reads our timestamps as they are written here (`net.ipv4.tcp_timestamps` is 2): without
    /// them nothing can carry window scale and selective acknowledgements back to us. Milliseconds otherwise.
    pub timestamp_clock_ms: Option<u32>,
}

/// Words of the TCP header in network order, checksum and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAck {
    pub words: [u32; MOST_TCP_BYTES / 4],
    /// 24, or [`MOST_TCP_BYTES`].
    pub bytes: usize,
}

pub const MOST_TCP_BYTES: usize = 40;
const TCP_BYTES_WITHOUT_TIMESTAMP: usize = 24;
const LARGEST_WINDOW: u32 = 0xffff;
const TIME_TO_LIVE: u32 = 64;

impl SynAck {
    /// `syn` is the segment that is answered, from `client` to `vip`.
    #[inline(always)]
    pub fn new(syn: &Segment, [client, vip]: [&Address; 2], cookie: u32, options: &SynOptions, offer: &Offer) -> Self {
        let mut words = [0; MOST_TCP_BYTES / 4];
        let mut bytes = TCP_BYTES_WITHOUT_TIMESTAMP;
        words[0] = ((syn.destination_port as u32) << 16 | syn.source_port as u32).to_be();
        words[1] = cookie.to_be();
        words[2] = syn.sequence.wrapping_add(1).to_be();
        words[5] = (0x0204_0000 | offer.max_segment_bytes as u32).to_be();
        if let (Some(clock_ms), Some(echo)) = (offer.timestamp_clock_ms, options.timestamp) {
            bytes = MOST_TCP_BYTES;
            // Selective acknowledgements or two times nothing, then the timestamps.
            words[6] = if options.selective_acknowledgements { 0x0402_080a_u32 } else { 0x0101_080a }.to_be();
            words[7] = timestamp(clock_ms, options).to_be();
            words[8] = echo.to_be();
            words[9] = match options.window_scale {
                Some(_) => 0x0103_0300 | offer.window_scale as u32,
                None => 0x0101_0101,
            }
            .to_be();
        }
        words[3] = ((bytes as u32 / 4) << 28 | ((SYN | ACK) as u32) << 16 | LARGEST_WINDOW).to_be();
        let covered = sum(&client.words_of_family()) + sum(&vip.words_of_family()) + sum(&words);
        words[4] = checksum_word(covered + (bytes as u32).to_be() as u64 + (TCP as u32).to_be() as u64);
        Self { words, bytes }
    }
}

/// An IPv4 header from `source` to `destination` without options before a TCP segment of so many bytes: words in network
/// order.
#[inline(always)]
pub fn ipv4_header(source: &Address, destination: &Address, segment_bytes: usize) -> [u32; 5] {
    const DO_NOT_FRAGMENT: u32 = 0x4000;
    let mut words = [
        (0x4500_0000 | (20 + segment_bytes) as u32).to_be(),
        DO_NOT_FRAGMENT.to_be(),
        (TIME_TO_LIVE << 24 | (TCP as u32) << 16).to_be(),
        source.words_be[3],
        destination.words_be[3],
    ];
    // The checksum is the second half of its word.
    words[2] |= checksum_word(sum(&words)).rotate_left(16);
    words
}

/// As [`ipv4_header`], for IPv6 without extension headers.
#[inline(always)]
pub fn ipv6_header(source: &Address, destination: &Address, segment_bytes: usize) -> [u32; 10] {
    let [a, b, c, d] = source.words_be;
    let [e, f, g, h] = destination.words_be;
    let length_and_next = (segment_bytes as u32) << 16 | (TCP as u32) << 8 | TIME_TO_LIVE;
    [0x6000_0000_u32.to_be(), length_and_next.to_be(), a, b, c, d, e, f, g, h]
}

/// The options that only the client remembers, in the low bits of a timestamp that is not in the future: the kernel
/// finds them there when the client repeats it (`cookie_timestamp_decode`).
#[inline(always)]
const fn timestamp(clock_ms: u32, options: &SynOptions) -> u32 {
    const BITS: u32 = 6;
    const NO_SCALE: u32 = 0xf;
    let scale = match options.window_scale {
        Some(scale) => scale as u32,
        None => NO_SCALE,
    };
    let carried = (options.selective_acknowledgements as u32) << 4 | scale;
    let timestamp = clock_ms >> BITS << BITS | carried;
    if timestamp > clock_ms { timestamp.wrapping_sub(1 << BITS) } else { timestamp }
}

/// A word whose first two bytes are the checksum.
#[inline(always)]
const fn checksum_word(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [first, second] = (!(sum as u16)).to_ne_bytes();
    u32::from_ne_bytes([first, second, 0, 0])
}

impl Address {
    /// Words that count in a checksum: an IPv4 address has one.
    #[inline(always)]
    const fn words_of_family(&self) -> [u32; 4] {
        if self.is_v4() { [0, 0, 0, self.words_be[3]] } else { self.words_be }
    }
}
