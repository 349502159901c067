//! Bodies as they stand on the wire: by length, in chunks (RFC 9112 §7.1), or until the connection closes.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::Foul;
use super::head::{LineEnds, read_header, trim_line_end};

/// Bytes of one chunk-size or trailer line: 15 hexadecimal digits, or a trailer such as a checksum.
const MAX_LINE_BYTES: usize = 4_096;

/// Bytes of all trailers together; nobody needs more than some checksums.
const MAX_TRAILER_BYTES: usize = 16_384;

/// What of a body is still to come.
#[derive(Debug)]
pub(super) enum Decoder {
    Length(u64),
    Chunks(Chunks),
    UntilClose,
}

/// Where in a chunked body the next byte belongs.
#[derive(Debug)]
pub(super) enum Chunks {
    Size,
    Data { left: u64 },
    DataEnd,
    Trailers { taken_bytes: usize, trailers: HeaderMap },
    Ended,
}

/// A part of a body.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// What a decoder made of the bytes there are.
#[derive(Debug)]
pub(super) enum Decoded {
    Piece(Piece),
    Ended,
    /// More bytes must come first.
    Hungry,
}

impl Decoder {
    pub(super) fn chunked() -> Decoder {
        Decoder::Chunks(Chunks::Size)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Decoder::Length(0) | Decoder::Chunks(Chunks::Ended))
    }

    /// The bytes still to come, where that is known.
    pub(super) fn left_bytes(&self) -> Option<u64> {
        match self {
            Decoder::Length(left) => Some(*left),
            Decoder::Chunks(Chunks::Ended) => Some(0),
            Decoder::Chunks(_) | Decoder::UntilClose => None,
        }
    }

    /// Takes the next piece out of `inbox`, and nothing that belongs to the next message.
    pub(super) fn next(&mut self, inbox: &mut BytesMut) -> Result<Decoded, Foul> {
        match self {
            Decoder::Length(0) => Ok(Decoded::Ended),
            Decoder::Length(left) => Ok(take_data(left, inbox)),
            Decoder::UntilClose => Ok(take_data(&mut u64::MAX.clone(), inbox)),
            Decoder::Chunks(chunks) => chunks.next(inbox),
        }
    }

    /// The sender has closed the connection: whether the body is whole.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.has_ended() || matches!(self, Decoder::UntilClose)
    }
}

fn take_data(left: &mut u64, inbox: &mut BytesMut) -> Decoded {
    if inbox.is_empty() {
        return Decoded::Hungry;
    }
    let taken = inbox.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= taken as u64;
    Decoded::Piece(Piece::Data(inbox.split_to(taken).freeze()))
}

impl Chunks {
    fn next(&mut self, inbox: &mut BytesMut) -> Result<Decoded, Foul> {
        loop {
            match self {
                Chunks::Ended => return Ok(Decoded::Ended),
                Chunks::Data { left: 0 } => *self = Chunks::DataEnd,
                Chunks::Data { left } => return Ok(take_data(left, inbox)),
                Chunks::Size | Chunks::DataEnd | Chunks::Trailers { .. } => {
                    let Some(line) = take_line(inbox)? else { return Ok(Decoded::Hungry) };
                    if let Some(trailers) = self.take_line(&line)? {
                        return Ok(Decoded::Piece(Piece::Trailers(trailers)));
                    }
                }
            }
        }
    }

    /// Goes on by one line, which has its end; gives the trailers with the last.
    fn take_line(&mut self, line: &Bytes) -> Result<Option<HeaderMap>, Foul> {
        let text = trim_line_end(line, LineEnds::Strict)?;
        match self {
            Chunks::Size => {
                *self = match chunk_size(text)? {
                    0 => Chunks::Trailers { taken_bytes: 0, trailers: HeaderMap::new() },
                    left => Chunks::Data { left },
                }
            }
            Chunks::DataEnd if text.is_empty() => *self = Chunks::Size,
            Chunks::Trailers { trailers, .. } if text.is_empty() => {
                let trailers = std::mem::take(trailers);
                *self = Chunks::Ended;
                return Ok((!trailers.is_empty()).then_some(trailers));
            }
            Chunks::Trailers { taken_bytes, trailers } => {
                *taken_bytes += text.len();
                if *taken_bytes > MAX_TRAILER_BYTES || memchr::memchr2(b'\r', b'\0', text).is_some() {
                    return Err(Foul::Malformed);
                }
                let (name, value) = read_header(line, 0, text)?;
                trailers.append(name, value);
            }
            _ => return Err(Foul::Malformed),
        }
        Ok(None)
    }
}

/// A whole line with its end, if there is one.
fn take_line(inbox: &mut BytesMut) -> Result<Option<Bytes>, Foul> {
    let visible = &inbox[..inbox.len().min(MAX_LINE_BYTES + 2)];
    match memchr::memchr(b'\n', visible) {
        Some(line_feed) => Ok(Some(inbox.split_to(line_feed + 1).freeze())),
        None if visible.len() > MAX_LINE_BYTES => Err(Foul::Malformed),
        None => Ok(None),
    }
}

/// Hexadecimal digits and nothing else. Chunk extensions carry nothing anybody uses, and readers disagree on where a
/// malformed one ends.
fn chunk_size(line: &[u8]) -> Result<u64, Foul> {
    if line.is_empty() || line.len() > 15 || !line.iter().all(u8::is_ascii_hexdigit) {
        return Err(Foul::Malformed);
    }
    let digits = std::str::from_utf8(line).map_err(|_| Foul::Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Foul::Malformed)
}

/// Frees what a body has left behind: an idle connection keeps no buffer.
pub(super) fn release(inbox: &mut BytesMut) {
    if inbox.is_empty() {
        *inbox = BytesMut::new();
    } else if inbox.capacity() > 4 * inbox.len().max(1024) {
        // Its beginning was taken out of a large read.
        *inbox = BytesMut::from(&**inbox);
    }
    debug_assert!(inbox.remaining() == inbox.len());
}
