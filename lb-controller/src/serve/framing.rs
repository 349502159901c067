//! The referee of HTTP/1 framing: reads along with hyper, byte for byte, and is stricter.
//!
//! hyper drops `Content-Length` beside `Transfer-Encoding`, takes bare line feeds, folds equal `Content-Length`
//! headers and skips chunk extensions, all before we see the request. What it forwards is well framed, but a proxy or
//! cache *before* us may have read the same bytes otherwise, and then the bytes after them are somebody else's request
//! (RFC 9112 §11.2). So every request that two readers could end at two places is refused here, before hyper has read
//! its end.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod head;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::stall::StallTimer;
use head::{BodyFraming, HeadReader};

/// Bytes of one chunk-size or trailer line: 16 hexadecimal digits, or a trailer such as a checksum.
const MAX_LINE_BYTES: usize = 4_096;

/// Bytes of all trailers together; nobody needs more than some checksums.
const MAX_TRAILER_BYTES: usize = 16_384;

/// A stream whose reader sees nothing of a doubtful request's end.
#[derive(Debug)]
pub(crate) struct Refereed<Stream> {
    stream: Stream,
    referee: Referee,
    stall: StallTimer,
}

impl<Stream> Refereed<Stream> {
    pub(crate) fn new(stream: Stream) -> Refereed<Stream> {
        Refereed { stream, referee: Referee::default(), stall: StallTimer::default() }
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Refereed<Stream> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Refereed { stream, referee, .. } = self.get_mut();
        if referee.place == Place::Foul {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "ambiguous HTTP/1 framing")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        if let Err(foul) = referee.watch(&buffer.filled()[before..]) {
            buffer.set_filled(before + foul.clean_bytes);
            if foul.in_head && buffer.remaining() > 0 {
                // No head may contain a NUL: hyper answers 400 itself and closes.
                buffer.put_slice(b"\0");
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for Refereed<Stream> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Refereed { stream, stall, .. } = self.get_mut();
        stall.watch(Pin::new(stream).poll_write(context, bytes), context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Refereed { stream, stall, .. } = self.get_mut();
        stall.watch(Pin::new(stream).poll_write_vectored(context, slices), context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Refereed { stream, stall, .. } = self.get_mut();
        stall.watch(Pin::new(stream).poll_flush(context), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Where in the stream of requests the next byte belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    Trailers,
    /// After a request to upgrade. Whether the bytes are a tunnel's only the response can say, and every other response
    /// closes the connection.
    Tunnel,
    Foul,
}

/// The point from which bytes must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Foul {
    /// Bytes of the piece just read that may be passed on.
    clean_bytes: usize,
    /// hyper is reading a head there, and can be made to answer.
    in_head: bool,
}

#[derive(Debug, Default)]
struct Referee {
    place: Place,
    head: HeadReader,
    /// The line in progress, where it was cut off by the end of a read. Bounded by the place it is in.
    line: Vec<u8>,
    trailer_bytes: usize,
}

impl Referee {
    /// Follows `bytes`, which come right after all bytes seen before.
    fn watch(&mut self, bytes: &[u8]) -> Result<(), Foul> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            match self.advance(rest) {
                Ok(taken) => done += taken,
                Err(()) => {
                    let in_head = self.place == Place::Head;
                    self.place = Place::Foul;
                    return Err(Foul { clean_bytes: done, in_head });
                }
            }
        }
        Ok(())
    }

    /// Takes some of `rest`, which is not empty; returns how many bytes.
    fn advance(&mut self, rest: &[u8]) -> Result<usize, ()> {
        match self.place {
            Place::Tunnel => Ok(rest.len()),
            Place::Foul => Err(()),
            Place::Body { left } => Ok(self.skip(left, rest, |left| Place::Body { left }, Place::Head)),
            Place::ChunkData { left } => Ok(self.skip(left, rest, |left| Place::ChunkData { left }, Place::ChunkEnd)),
            Place::Head | Place::ChunkSize | Place::ChunkEnd | Place::Trailers => self.take_line(rest),
        }
    }

    fn skip(&mut self, left: u64, rest: &[u8], more: fn(u64) -> Place, then: Place) -> usize {
        let taken = left.min(rest.len() as u64);
        self.place = if taken == left { then } else { more(left - taken) };
        taken as usize
    }

    fn take_line(&mut self, rest: &[u8]) -> Result<usize, ()> {
        // hyper bounds heads itself and answers 431, so only lines in bodies need a bound of ours.
        let max_bytes = if self.place == Place::Head { usize::MAX } else { MAX_LINE_BYTES };
        let Some(line_feed) = memchr::memchr(b'\n', rest) else {
            if self.line.len() + rest.len() > max_bytes {
                return Err(());
            }
            self.line.extend_from_slice(rest);
            return Ok(rest.len());
        };
        let taken = line_feed + 1;
        if self.line.is_empty() {
            self.end_line(&rest[..taken], rest.len() > taken)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&rest[..taken]);
            self.end_line(&line, rest.len() > taken)?;
            line.clear();
            self.line = line;
        }
        Ok(taken)
    }

    /// `line` includes its line feed. `more` bytes follow it in the same read.
    fn end_line(&mut self, line: &[u8], more: bool) -> Result<(), ()> {
        // RFC 9112 §2.2 allows a bare line feed; readers that do not allow it see another header end.
        let line = line.strip_suffix(b"\r\n").ok_or(())?;
        if memchr::memchr2(b'\r', b'\0', line).is_some() {
            return Err(());
        }
        match self.place {
            Place::Head => match self.head.take_line(line)? {
                None => {}
                // What follows at once cannot be a tunnel's bytes: no response has agreed to one yet.
                Some(BodyFraming::Upgrade) if more => return Err(()),
                Some(BodyFraming::Upgrade) => self.place = Place::Tunnel,
                Some(BodyFraming::Chunked) => self.place = Place::ChunkSize,
                Some(BodyFraming::Length(0)) => self.place = Place::Head,
                Some(BodyFraming::Length(left)) => self.place = Place::Body { left },
            },
            Place::ChunkSize => {
                self.place = match chunk_size(line)? {
                    0 => Place::Trailers,
                    left => Place::ChunkData { left },
                }
            }
            Place::ChunkEnd if line.is_empty() => self.place = Place::ChunkSize,
            Place::Trailers if line.is_empty() => {
                self.trailer_bytes = 0;
                self.place = Place::Head;
            }
            Place::Trailers => {
                self.trailer_bytes += line.len();
                if self.trailer_bytes > MAX_TRAILER_BYTES || line[0].is_ascii_whitespace() {
                    return Err(());
                }
            }
            _ => return Err(()),
        }
        Ok(())
    }
}

/// Hexadecimal digits and nothing else. Chunk extensions carry nothing anybody uses, and readers disagree on where a
/// malformed one ends.
fn chunk_size(line: &[u8]) -> Result<u64, ()> {
    if line.is_empty() || line.len() > 15 || !line.iter().all(u8::is_ascii_hexdigit) {
        return Err(());
    }
    let digits = std::str::from_utf8(line).map_err(|_| ())?;
    u64::from_str_radix(digits, 16).map_err(|_| ())
}

#[cfg(test)]
mod tests;
