//! The bytes of one connection: what came and was not read yet, and what is still to be written.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::encode::{self, BodyFraming};
use crate::serve::stall::StallTimer;

/// Whatever bytes travel on: TLS to a client, TCP or TLS to a backend, memory in tests.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<Stream: AsyncRead + AsyncWrite + Unpin> Io for Stream {}

/// A connection that HTTP is done with, and what came on it already.
pub struct Tunnel {
    pub(crate) stream: Box<dyn Io>,
    pub(crate) early: Bytes,
}

/// What is read at once while nothing is known of what comes: all usual heads.
const HEAD_READ_BYTES: usize = 8 * 1024;

/// What is read at once of a body: four TLS records, so that a system call moves much.
const BODY_READ_BYTES: usize = 64 * 1024;

/// Data up to this size are copied behind what stands before them, which costs less than a second slice to write.
const COPIED_BYTES: usize = 4 * 1024;

pub(super) struct Wire {
    stream: Box<dyn Io>,
    /// Read and not taken yet. Empty and without memory while the connection is idle.
    pub(super) inbox: BytesMut,
    /// To be written first, and what follows it without being copied.
    outbox: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    is_unflushed: bool,
    /// Bytes that the other end has taken so far.
    pub(super) sent_bytes: u64,
    stall: StallTimer,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("early", &self.early).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Io>) -> Wire {
        Wire {
            stream,
            inbox: BytesMut::new(),
            outbox: Vec::new(),
            written: 0,
            data: Bytes::new(),
            tail: b"",
            is_unflushed: false,
            sent_bytes: 0,
            stall: StallTimer::default(),
        }
    }

    pub(super) fn into_tunnel(self) -> Tunnel {
        Tunnel { stream: self.stream, early: self.inbox.freeze() }
    }

    /// Reads something of a head; 0: the other end writes no more.
    pub(super) fn poll_read_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // By way of a buffer that all connections of a thread share: most of them wait here, and none should hold one.
        thread_local!(static BUFFER: RefCell<Box<[MaybeUninit<u8>]>> = RefCell::new(Box::new_uninit_slice(HEAD_READ_BYTES)));
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::uninit(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            self.inbox.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Reads something of a body; 0: the other end writes no more.
    pub(super) fn poll_read_body(
        &mut self,
        left_bytes: Option<u64>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let most = left_bytes.map_or(BODY_READ_BYTES, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if most <= HEAD_READ_BYTES {
            return self.poll_read_head(context);
        }
        self.inbox.reserve(most.min(BODY_READ_BYTES));
        poll_read_buf(Pin::new(&mut self.stream), context, &mut self.inbox)
    }

    /// Where bytes to be written are put together, behind those that wait.
    pub(super) fn outbox(&mut self) -> &mut Vec<u8> {
        self.outbox.extend_from_slice(&self.data);
        self.outbox.extend_from_slice(self.tail);
        (self.data, self.tail) = (Bytes::new(), b"");
        if self.outbox.capacity() == 0 {
            self.outbox.reserve(COPIED_BYTES / 2);
        }
        &mut self.outbox
    }

    /// A piece of a body is to be written behind what waits.
    pub(super) fn put(&mut self, data: Bytes, framing: BodyFraming) {
        // An empty chunk would be the last.
        if data.is_empty() {
            return;
        }
        let outbox = self.outbox();
        let tail = match framing {
            BodyFraming::Chunked => encode::chunk_size(outbox, data.len()),
            BodyFraming::Plain | BodyFraming::UntilClose => b"",
        };
        if data.len() <= COPIED_BYTES {
            outbox.extend_from_slice(&data);
            outbox.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
    }

    /// Whether so much waits to be written that no more should be put together.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.len() - self.written + self.data.len() >= BODY_READ_BYTES
    }

    /// Writes all that waits, and sends it off.
    pub(super) fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(context))?;
        if self.is_unflushed {
            let flush = Pin::new(&mut self.stream).poll_flush(context);
            ready!(self.stall.watch(flush, context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all that waits; what is written after it at once, or [`Wire::poll_shutdown`], sends it off.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outbox.len() || !self.data.is_empty() || !self.tail.is_empty() {
            let parts = [&self.outbox[self.written..], &self.data, self.tail];
            let write = match self.data.is_empty() && self.tail.is_empty() {
                true => Pin::new(&mut self.stream).poll_write(context, parts[0]),
                false => Pin::new(&mut self.stream).poll_write_vectored(context, &parts.map(io::IoSlice::new)),
            };
            let taken = ready!(self.stall.watch(write, context))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent_bytes += taken as u64;
            self.is_unflushed = true;
            let of_outbox = taken.min(self.outbox.len() - self.written);
            let of_data = (taken - of_outbox).min(self.data.len());
            self.written += of_outbox;
            self.data.advance(of_data);
            self.tail = &self.tail[taken - of_outbox - of_data..];
        }
        (self.outbox, self.written, self.data) = (Vec::new(), 0, Bytes::new());
        Poll::Ready(Ok(()))
    }

    /// Reads and forgets what still comes, at most `left` bytes.
    pub(super) fn poll_discard(&mut self, left: &mut usize, context: &mut Context<'_>) -> Poll<()> {
        while *left > 0 {
            self.inbox.clear();
            match ready!(self.poll_read_head(context)) {
                Ok(read @ 1..) => *left = left.saturating_sub(read),
                _ => break,
            }
        }
        Poll::Ready(())
    }

    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A goodbye has to be taken like everything else.
        let shutdown = Pin::new(&mut self.stream).poll_shutdown(context);
        self.stall.watch(shutdown, context)
    }
}
