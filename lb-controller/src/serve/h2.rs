//! The byte stream beneath an h2 connection: frames out are gathered into one write, frames in are counted.

pub(crate) mod channel;
pub(crate) mod exchange;
mod flood;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::stall::StallTimer;
use flood::{Flood, FloodGuard};

/// Bytes gathered before a write is forced: four TLS records.
const MAX_GATHERED_BYTES: usize = 64 * 1024;

thread_local! {
    /// A buffer for whichever connection writes next. None has one of its own while it writes nothing, since most are idle
    /// most of the time.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// RFC 9113 §6.8 and §7.
const GOAWAY: u8 = 0x7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// For a client that breaks the rules to read why its connection ends, and what it may send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// A stream whose flushes do nothing. hyper flushes after every frame that a stream's task made ready, and each flush
/// would be a TLS record and a system call of its own; [`Gathering::poll_driving`] writes once after each poll of the
/// connection instead.
#[derive(Debug)]
pub(crate) struct Gathering<Stream>(Rc<RefCell<Inner<Stream>>>);

#[derive(Debug)]
struct Inner<Stream> {
    stream: Stream,
    gathered: Vec<u8>,
    /// Of what is gathered.
    written: usize,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    /// Of clients; a backend that asks for much work is not the attacker.
    flood: Option<FloodGuard>,
    is_flooded: bool,
    linger_bytes: usize,
    heard_bytes: u64,
    stall: StallTimer,
}

impl<Stream: AsyncRead + AsyncWrite + Unpin> Gathering<Stream> {
    /// To a client.
    pub(crate) fn new(stream: Stream) -> Gathering<Stream> {
        Gathering::guarded(stream, Some(FloodGuard::new()))
    }

    /// To a backend.
    pub(crate) fn of_backend(stream: Stream) -> Gathering<Stream> {
        Gathering::guarded(stream, None)
    }

    fn guarded(stream: Stream, flood: Option<FloodGuard>) -> Gathering<Stream> {
        Gathering(Rc::new(RefCell::new(Inner {
            stream,
            gathered: Vec::new(),
            written: 0,
            unflushed: false,
            flood,
            is_flooded: false,
            linger_bytes: LINGER_BYTES,
            heard_bytes: 0,
            stall: StallTimer::default(),
        })))
    }

    /// A second handle, for [`Gathering::poll_driving`].
    pub(crate) fn handle(&self) -> Gathering<Stream> {
        Gathering(self.0.clone())
    }

    /// The client sent more frames than there is a reason for, and was told so.
    pub(crate) fn is_flooded(&self) -> bool {
        self.0.borrow().is_flooded
    }

    /// Lets the client read why its connection ends: closing over what it still sends would reset the connection, and the
    /// reason might never be seen. Bounded, for a client that breaks the rules is owed little.
    pub(crate) async fn farewell(&self) {
        let goodbye = poll_fn(|context| self.0.borrow_mut().poll_goodbye(context));
        let _ = tokio::time::timeout(LINGER, goodbye).await;
    }

    /// What the other end has said so far.
    pub(crate) fn heard_bytes(&self) -> u64 {
        self.0.borrow().heard_bytes
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

impl<Stream: AsyncRead + AsyncWrite + Unpin> Inner<Stream> {
    fn poll_goodbye(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_out(context))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        let mut unread = [0; 4 * 1024];
        while self.linger_bytes > 0 {
            let mut buffer = ReadBuf::new(&mut unread);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                read => self.linger_bytes = self.linger_bytes.saturating_sub(read),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<Stream> Inner<Stream> {
    /// The connection is over: the last frame that is written says why.
    fn end_for_a_flood(&mut self) -> io::Error {
        self.is_flooded = true;
        // What was gathered ends where a frame ends: a frame is gathered whole.
        self.gathered.extend_from_slice(&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0]);
        let last = self.flood.as_ref().map_or(0, FloodGuard::last_stream);
        self.gathered.extend_from_slice(&last.to_be_bytes());
        self.gathered.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        io::Error::new(io::ErrorKind::InvalidData, "flood of h2 frames")
    }
}

impl<Stream: AsyncWrite + Unpin> Inner<Stream> {
    fn write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Inner { stream, gathered, written, unflushed, stall, .. } = self;
        while *written < gathered.len() {
            let taken = Pin::new(&mut *stream).poll_write(context, &gathered[*written..]);
            match ready!(stall.watch(taken, context))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => *written += taken,
            }
            *unflushed = true;
        }
        if *written > 0 {
            gathered.clear();
            *written = 0;
            SPARE.set(std::mem::take(gathered));
        }
        if *unflushed {
            ready!(stall.watch(Pin::new(stream).poll_flush(context), context))?;
            *unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= MAX_GATHERED_BYTES {
            ready!(self.write_out(context))?;
        }
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.take();
        }
        if let Some(flood) = &mut self.flood {
            flood.sent(length);
        }
        for slice in slices {
            self.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Gathering<Stream> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        ready!(pin!(&mut inner.stream).poll_read(context, buffer))?;
        let heard = &buffer.filled()[before..];
        inner.heard_bytes += heard.len() as u64;
        let watched = inner.flood.as_mut().map_or(Ok(()), |flood| flood.watch(heard));
        Poll::Ready(watched.map_err(|Flood| inner.end_for_a_flood()))
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
        // A goodbye has to be taken like everything else.
        let Inner { stream, stall, .. } = &mut *inner;
        stall.watch(Pin::new(stream).poll_shutdown(context), context)
    }
}
