//! Frames of h2 (RFC 9113 §4.1), well or badly formed, and what the edge answers to them.

use std::collections::VecDeque;

use super::client::Raw;
use super::edge::Edge;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
    /// A request without a body in one frame.
    pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;
}

/// Error codes (RFC 9113 §7).
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(crate) const STREAM_CLOSED: u32 = 0x5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 0x6;
    pub(crate) const REFUSED_STREAM: u32 = 0x7;
    pub(crate) const CANCEL: u32 = 0x8;
    pub(crate) const COMPRESSION_ERROR: u32 = 0x9;
}

/// One frame with any contents, even such as it may not have.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One setting (RFC 9113 §6.5.1).
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A field line, literal and not indexed (RFC 7541 §6.2.2), for texts of less than 16 KiB.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(&mut bytes, 7, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// RFC 7541 §5.1; the bits before the prefix are zero.
fn integer(bytes: &mut Vec<u8>, prefix_bits: u32, value: usize) {
    let most = (1 << prefix_bits) - 1;
    if value < most {
        return bytes.push(value as u8);
    }
    bytes.push(most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// The fields of a request, then `more`.
pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "https"), (":authority", "shop.example"), (":path", path)];
    fields(&[&usual[..], more].concat())
}

pub(crate) fn fields(lines: &[(&str, &str)]) -> Vec<u8> {
    lines.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A frame that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    /// The error that ends a stream or the connection.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap()))
    }

    /// Of a response, where it is the first on its connection: then its status comes first and is not in the table.
    pub(crate) fn status(&self) -> Option<u16> {
        if self.kind != kind::HEADERS {
            return None;
        }
        // A table made smaller is said first.
        let updates = self.payload.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
        match self.payload[updates..] {
            [byte @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)]),
            // A name from the table of known ones, a value of Huffman's digits.
            [0x48, length, ref rest @ ..] if length & 0x80 != 0 => Some(digits(&rest[..usize::from(length & 0x7f)])),
            [0x48, 3, ref rest @ ..] => std::str::from_utf8(&rest[..3]).unwrap().parse().ok(),
            _ => None,
        }
    }
}

/// Digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))).collect();
    let number = |range: &[u16]| range.iter().fold(0, |sum, bit| sum * 2 + bit);
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let short = number(&bits[at..at + 5]);
        let (digit, length) = if short < 3 { (short, 5) } else { (number(&bits[at..at + 6]) - 0b01_1001 + 3, 6) };
        (at, value) = (at + length, value * 10 + digit);
    }
    value
}

/// A connection on which a test writes frames and reads them.
pub(crate) struct Frames {
    raw: Raw,
    read: VecDeque<u8>,
    /// The edge has closed.
    pub(crate) has_ended: bool,
}

impl Frames {
    /// Both sides have said what they can.
    pub(crate) fn connect(edge: &Edge) -> Frames {
        let mut frames = Frames::connect_saying(edge, [PREFACE, &frame(kind::SETTINGS, 0, 0, [])].concat());
        frames.write(frame(kind::SETTINGS, flag::ACK, 0, []));
        frames
    }

    /// `bytes` are the first that are sent.
    pub(crate) fn connect_saying(edge: &Edge, bytes: impl AsRef<[u8]>) -> Frames {
        let mut raw = Raw::connect_h2(edge);
        raw.write(bytes);
        Frames { raw, read: VecDeque::new(), has_ended: false }
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.raw.write(bytes);
    }

    /// The next frame; none once the edge has closed.
    pub(crate) fn next(&mut self) -> Option<Received> {
        let header: Vec<u8> = self.take(9)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
        Some(Received { kind: header[3], flags: header[4], stream, payload: self.take(length)? })
    }

    /// The next frame for which `is_wanted` holds.
    pub(crate) fn find(&mut self, is_wanted: impl Fn(&Received) -> bool) -> Option<Received> {
        std::iter::from_fn(|| self.next()).find(is_wanted)
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            let more = self.raw.read_some();
            self.has_ended |= more.is_empty();
            if more.is_empty() {
                return None;
            }
            self.read.extend(more);
        }
        Some(self.read.drain(..length).collect())
    }
}
