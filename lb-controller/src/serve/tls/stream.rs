//! The client's side of TLS, written out when somebody says so. What tokio-rustls has for this writes each message as it is
//! made; here the tickets that end a handshake leave with the first response, and the goodbye with the last, and each of
//! them would be a system call and a packet of its own.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use lb_policy::UnixSeconds;
use rustls::{CommonState, HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::beginning;
use super::records::{MOST_KEPT_BYTES, Records};

/// What is read at once: a record at least, for a part of one is worth nothing; at most what a body's reader takes.
const LEAST_READ_BYTES: usize = 18 * 1024;
const MOST_READ_BYTES: usize = 64 * 1024;

/// What may wait to be written, so that a system call moves much: the 64 KiB that bodies are read by, and what stands around
/// them.
const MOST_WAITING_BYTES: usize = 72 * 1024;

/// With less room than this, what waits is written first: a record that fills it would be mostly wrapping.
const LEAST_ROOM_BYTES: usize = 8 * 1024;

thread_local!(
    /// Where sockets put what comes. Nothing stays in it.
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST_KEPT_BYTES + MOST_READ_BYTES].into());
);

/// One client's connection after its handshake.
pub(in crate::serve) struct TlsStream {
    tcp: TcpStream,
    records: Records,
}

impl TlsStream {
    /// Goes through a handshake, of which `hello` has come.
    ///
    /// Errors: the client spoke no TLS that we take, which it was told, or the connection broke.
    pub(in crate::serve) async fn accept(
        tcp: TcpStream,
        mut hello: Vec<u8>,
        config: Arc<ServerConfig>,
    ) -> io::Result<TlsStream> {
        let mut stream = TlsStream { tcp, records: Records::new(config).map_err(invalid)? };
        let mut beginning = None;
        poll_fn(|context| {
            Poll::Ready(beginning::within(&mut beginning, || stream.understand(&mut hello, &mut nowhere(), context)))
        })
        .await?;
        poll_fn(|context| stream.poll_handshake(&mut beginning, context)).await?;
        stream.records.outbox.settle();
        Ok(stream)
    }

    fn poll_handshake(
        &mut self,
        beginning: &mut Option<UnixSeconds>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.is_handshaking() {
            ready!(self.poll_write_out(context))?;
            if self.handshake_kind() != Some(HandshakeKind::Resumed) {
                // Whatever session a ticket was of, it is not gone on with.
                *beginning = None;
            }
            let read = beginning::within(beginning, || self.poll_receive(&mut nowhere(), context));
            // Whoever says goodbye with the last message of the handshake may have said something before.
            if ready!(read)? == 0 || self.records.has_ended && self.is_handshaking() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        // With TLS 1.3 only tickets are left, for which nobody waits; with TLS 1.2 the client waits for our last message.
        match self.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Poll::Ready(Ok(())),
            _ => self.poll_write_out(context),
        }
    }

    /// Reads what came, and understands it, into `buffer` first; 0: the other end writes no more.
    fn poll_receive(&mut self, buffer: &mut ReadBuf<'_>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        INCOMING.with_borrow_mut(|incoming| {
            let kept = self.records.kept().len();
            let most = buffer.remaining().clamp(LEAST_READ_BYTES, MOST_READ_BYTES);
            let mut room = ReadBuf::new(&mut incoming[kept..kept + most]);
            ready!(Pin::new(&mut self.tcp).poll_read(context, &mut room))?;
            let read = room.filled().len();
            incoming[..kept].copy_from_slice(self.records.kept());
            self.understand(&mut incoming[..kept + read], buffer, context)?;
            Poll::Ready(Ok(read))
        })
    }

    fn understand(
        &mut self,
        incoming: &mut [u8],
        buffer: &mut ReadBuf<'_>,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        self.records.receive(incoming, |bytes| put(buffer, bytes)).map_err(|error| {
            // Tells the client why, if it takes it at once.
            let _ = self.poll_write_out(context);
            invalid(error)
        })
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.records.outbox.waiting().is_empty() {
            let write = Pin::new(&mut self.tcp).poll_write(context, self.records.outbox.waiting());
            match write {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => self.records.outbox.advance(written?),
                Poll::Pending => {
                    self.records.outbox.settle();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How much of something to write may be taken.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.records.outbox.waiting().len() > MOST_WAITING_BYTES - LEAST_ROOM_BYTES {
            ready!(self.poll_write_out(context))?;
        }
        Poll::Ready(Ok(MOST_WAITING_BYTES - self.records.outbox.waiting().len()))
    }
}

/// What was agreed on.
impl Deref for TlsStream {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        &self.records.session
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let room = buffer.remaining();
        stream.records.take(|bytes| put(buffer, bytes));
        // Nothing is understood of a record whose end is still to come.
        while buffer.remaining() == room && room > 0 && !stream.records.has_ended {
            let read = stream.poll_receive(buffer, context);
            if read.is_pending() {
                stream.records.outbox.settle();
            }
            if ready!(read)? == 0 {
                // Without a goodbye, which a network may have cut off.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let room = ready!(stream.poll_room(context))?;
        let mut left = room;
        let taken = slices.iter().map(|slice| {
            let taken = &slice[..slice.len().min(left)];
            left -= taken.len();
            taken
        });
        stream.records.say_all(taken).map_err(invalid)?;
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_write_out(context)
    }

    /// Says that nothing more will come, after what was written.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        // To whom that is no TLS, it is not said.
        let _ = stream.records.say_goodbye();
        ready!(stream.poll_write_out(context))?;
        Pin::new(&mut stream.tcp).poll_shutdown(context)
    }
}

/// Puts as much of `bytes` as there is room for; how much that is.
fn put(buffer: &mut ReadBuf<'_>, bytes: &[u8]) -> usize {
    let taken = bytes.len().min(buffer.remaining());
    buffer.put_slice(&bytes[..taken]);
    taken
}

/// For who wants nothing of what comes yet.
fn nowhere() -> ReadBuf<'static> {
    ReadBuf::new(&mut [])
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
