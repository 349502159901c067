//! The byte stream beneath an h2 connection: frames out are gathered into one write, frames in are counted.

mod flood;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::stall::StallTimer;
use flood::FloodGuard;

/// Bytes gathered before a write is forced: four TLS records.
const MAX_GATHERED_BYTES: usize = 64 * 1024;

/// First size of the buffer: a TLS record. It is given back when empty, since most connections are idle most of the
/// time.
const FIRST_BUFFER_BYTES: usize = 16 * 1024;

/// A stream whose flushes do nothing. hyper flushes after every frame that a stream's task made ready, and each flush
/// would be a TLS record and a system call of its own; [`Gathering::poll_driving`] writes once after each poll of the
/// connection instead.
#[derive(Debug)]
pub(crate) struct Gathering<Stream>(Rc<RefCell<Inner<Stream>>>);

#[derive(Debug)]
struct Inner<Stream> {
    stream: Stream,
    gathered: BytesMut,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    flood: FloodGuard,
    stall: StallTimer,
}

impl<Stream: AsyncRead + AsyncWrite + Unpin> Gathering<Stream> {
    pub(crate) fn new(stream: Stream) -> Gathering<Stream> {
        Gathering(Rc::new(RefCell::new(Inner {
            stream,
            gathered: BytesMut::new(),
            unflushed: false,
            flood: FloodGuard::new(),
            stall: StallTimer::default(),
        })))
    }

    /// A second handle, for [`Gathering::poll_driving`].
    pub(crate) fn handle(&self) -> Gathering<Stream> {
        Gathering(self.0.clone())
    }

    /// Polls `connection`, which writes to another handle of this stream, and writes out what it left there.
    pub(crate) fn poll_driving<Connection: Future>(
        &self,
        connection: Pin<&mut Connection>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Connection::Output>> {
        let served = connection.poll(context);
        match self.0.borrow_mut().write_out(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Not all is written: this task is woken when there is room.
            _ => served.map(Ok),
        }
    }
}

impl<Stream: AsyncWrite + Unpin> Inner<Stream> {
    fn write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Inner { stream, gathered, unflushed, stall, .. } = self;
        while !gathered.is_empty() {
            let written = stall.watch(Pin::new(&mut *stream).poll_write(context, gathered), context);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => gathered.advance(written),
            }
            *unflushed = true;
        }
        if *unflushed {
            ready!(stall.watch(Pin::new(stream).poll_flush(context), context))?;
            *unflushed = false;
            *gathered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= MAX_GATHERED_BYTES {
            ready!(self.write_out(context))?;
        }
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(FIRST_BUFFER_BYTES.max(length));
        }
        for slice in slices {
            self.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Gathering<Stream> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Inner { stream, flood, .. } = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        ready!(pin!(stream).poll_read(context, buffer))?;
        Poll::Ready(flood.watch(&buffer.filled()[before..]))
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for Gathering<Stream> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().gather(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().gather(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: see [`Gathering`].
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.write_out(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}
