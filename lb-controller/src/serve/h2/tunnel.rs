//! One h2 stream to a backend as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::Seat;

/// Of what is written at once, which is copied.
const MOST_WRITTEN_BYTES: usize = 16 * 1024;

pub(super) struct Stream {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    /// Read of the stream, and not taken yet.
    inbox: Bytes,
    is_shut: bool,
    _seat: Seat,
}

impl Stream {
    pub(super) fn new(sending: SendStream<Bytes>, receiving: RecvStream, seat: Seat) -> Stream {
        Stream { sending, receiving, inbox: Bytes::new(), is_shut: false, _seat: seat }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        while stream.inbox.is_empty() {
            match ready!(stream.receiving.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => stream.inbox = data.map_err(io::Error::other)?,
            }
        }
        let taken = stream.inbox.len().min(buffer.remaining());
        buffer.put_slice(&stream.inbox[..taken]);
        stream.inbox.advance(taken);
        // What was taken the backend may send anew.
        stream.receiving.flow_control().release_capacity(taken).map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sending = &mut self.get_mut().sending;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        sending.reserve_capacity(bytes.len().min(MOST_WRITTEN_BYTES));
        while sending.capacity() == 0 {
            match ready!(sending.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let taken = sending.capacity().min(bytes.len()).min(MOST_WRITTEN_BYTES);
        sending.send_data(Bytes::copy_from_slice(&bytes[..taken]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(taken))
    }

    /// The connection's task writes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !std::mem::replace(&mut stream.is_shut, true) {
            stream.sending.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}
