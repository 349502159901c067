//! The ClientHello, read to its end before anything is decided, and its bytes, for whoever else is to read them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// Of a ClientHello. With the key shares and names of today it takes two to four KiB.
const MOST_BYTES: usize = 32 * 1024;

/// The beginning of a handshake.
pub(in crate::serve) struct Hello {
    pub(in crate::serve) accepted: Accepted,
    pub(in crate::serve) stream: TcpStream,
    /// As it came.
    pub(in crate::serve) bytes: Vec<u8>,
}

impl Hello {
    /// Errors: it is no ClientHello that can be read, which the client was told, or the connection broke.
    pub(in crate::serve) async fn read(stream: TcpStream) -> io::Result<Hello> {
        let stream = Remembering { stream, seen: Vec::new() };
        let StartHandshake { accepted, io, .. } = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        Ok(Hello { accepted, stream: io.stream, bytes: io.seen })
    }
}

struct Remembering {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl AsyncRead for Remembering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.seen.extend_from_slice(&buffer.filled()[before..]);
        match self.seen.len() {
            0..=MOST_BYTES => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the ClientHello is too large"))),
        }
    }
}

impl AsyncWrite for Remembering {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
