//! The client's side of TLS, written out when somebody says so. What tokio-rustls has for this writes each message as it is
//! made; here the tickets that end a handshake leave with the first response, and the goodbye with the last, and each of
//! them would be a system call and a packet of its own.

use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::Accepted;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One client's connection after its handshake.
#[derive(Debug)]
pub(in crate::serve) struct TlsStream {
    tcp: TcpStream,
    /// It holds what is written until a flush, and takes no more than 64 KiB: four records, so that a system call moves
    /// much.
    session: ServerConnection,
}

impl TlsStream {
    /// Goes through the handshake that `accepted` began. `prepare` sees the session before the client sees anything of it.
    ///
    /// Errors: the client spoke no TLS that we take, which it was told, or the connection broke.
    pub(in crate::serve) async fn accept(
        mut tcp: TcpStream,
        accepted: Accepted,
        config: Arc<ServerConfig>,
        prepare: impl FnOnce(&mut ServerConnection),
    ) -> io::Result<TlsStream> {
        let mut session = match accepted.into_connection(config) {
            Ok(session) => session,
            Err((error, mut alert)) => {
                // Told or not, why there is no session is what counts.
                let tell = poll_fn(|context| pending(alert.write_all(&mut Blocking { tcp: &mut tcp, context })));
                let _ = tell.await;
                return Err(invalid(error));
            }
        };
        prepare(&mut session);
        let mut stream = TlsStream { tcp, session };
        poll_fn(|context| stream.poll_handshake(context)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            ready!(self.poll_write_out(context))?;
            if ready!(self.poll_read_records(context))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        // With TLS 1.3 only tickets are left, for which nobody waits; with TLS 1.2 the client waits for our last message.
        match self.session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Poll::Ready(Ok(())),
            _ => self.poll_write_out(context),
        }
    }

    /// Reads what came, and understands it; 0: the other end writes no more.
    fn poll_read_records(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = ready!(pending(self.session.read_tls(&mut Blocking { tcp: &mut self.tcp, context })))?;
        if let Err(error) = self.session.process_new_packets() {
            // Tells the client why, if it takes it at once.
            let _ = self.poll_write_out(context);
            return Poll::Ready(Err(invalid(error)));
        }
        Poll::Ready(Ok(read))
    }

    /// Takes what has been understood, of several small records too; nothing: there will be no more.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut chunk = self.session.reader().into_first_chunk()?;
        while !chunk.is_empty() && buffer.remaining() > 0 {
            let taken = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk[..taken]);
            self.session.reader().consume(taken);
            // What ends the connection is told when it is asked for next.
            chunk = self.session.reader().into_first_chunk().unwrap_or_default();
        }
        Ok(())
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let written = self.session.write_tls(&mut Blocking { tcp: &mut self.tcp, context });
            if ready!(pending(written))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What `write` puts into the session, which takes nothing while it is full.
    fn poll_gather(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&mut self.session.writer())? {
                0 => ready!(self.poll_write_out(context))?,
                taken => return Poll::Ready(Ok(taken)),
            }
        }
    }
}

/// What was agreed on.
impl Deref for TlsStream {
    type Target = ServerConnection;

    fn deref(&self) -> &ServerConnection {
        &self.session
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        loop {
            match stream.take(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return Poll::Ready(taken),
            }
            ready!(stream.poll_read_records(context))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match bytes.is_empty() {
            true => Poll::Ready(Ok(0)),
            false => self.get_mut().poll_gather(context, |writer| writer.write(bytes)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices.iter().all(|slice| slice.is_empty()) {
            true => Poll::Ready(Ok(0)),
            false => self.get_mut().poll_gather(context, |writer| writer.write_vectored(slices)),
        }
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
        // Said once, however often it is called.
        stream.session.send_close_notify();
        ready!(stream.poll_write_out(context))?;
        Pin::new(&mut stream.tcp).poll_shutdown(context)
    }
}

/// A socket as rustls wants one: what must wait is an error, and whoever waits is woken.
struct Blocking<'s, 'c, 'w> {
    tcp: &'s mut TcpStream,
    context: &'c mut Context<'w>,
}

impl Read for Blocking<'_, '_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.tcp).poll_read(self.context, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Blocking<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let tcp = Pin::new(&mut *self.tcp);
        let written = match slices {
            // One record, which is most of them: the kernel has less to look through.
            [slice] => tcp.poll_write(self.context, slice),
            _ => tcp.poll_write_vectored(self.context, slices),
        };
        match written {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pending<T>(done: io::Result<T>) -> Poll<io::Result<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
