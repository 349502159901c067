//! The bytes of a WebSocket in both directions, until both have ended, or until what let them through is over. Then each
//! side is told so in a Close frame, put in where a frame ends.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frames::Frames;
use crate::serve::standing::Over;

/// In each direction. A reader that is slower than its writer stops the writer when this is full.
const BUFFER_BYTES: usize = 8 * 1024;

/// For the rest of a frame, the Close frame and the client's goodbye. With the second in which a stream is found to be over,
/// it ends within two.
const FAREWELL_WITHIN: Duration = Duration::from_millis(700);

/// Copies between `client` and `backend`, of which the latter may have said something early. Once `over` is done nothing of
/// the client's goes on to the backend.
pub(super) async fn relay<Client, Backend>(
    mut client: Client,
    (mut backend, early): (Backend, Bytes),
    over: impl Future<Output = Over>,
) -> io::Result<()>
where
    Client: AsyncRead + AsyncWrite + Unpin,
    Backend: AsyncRead + AsyncWrite + Unpin,
{
    let (mut inward, mut outward) = (Direction::new(), Direction::new());
    client.write_all(&early).await?;
    outward.frames.watch(&early);
    outward.is_unflushed = !early.is_empty();
    let mut over = pin!(over);
    let copied = poll_fn(|context| {
        if let Poll::Ready(over) = over.as_mut().poll(context) {
            return Poll::Ready(Ok(Some(over)));
        }
        let has_ended = inward.poll_copy(&mut client, &mut backend, context)?.is_ready();
        let have_both = outward.poll_copy(&mut backend, &mut client, context)?.is_ready() && has_ended;
        if have_both { Poll::Ready(io::Result::Ok(None)) } else { Poll::Pending }
    });
    let over = match copied.await {
        Ok(None) => return Ok(()),
        Ok(Some(over)) => over,
        Err(error) => {
            // What a side had said before it broke off goes on, a Close frame perhaps.
            let _ = tokio::time::timeout(FAREWELL_WITHIN, client.flush()).await;
            return Err(error);
        }
    };
    // Dropping what is left closes both connections.
    let farewell = async {
        if inward.frames.may_put_in() {
            backend.write_all(&close_frame(1001, "", true)).await?;
        }
        backend.flush().await?;
        let may_put_in = poll_fn(|context| outward.poll_end_of_frame(&mut backend, &mut client, context)).await?;
        if may_put_in {
            client.write_all(&close_frame(over.close_code(), over.text(), false)).await?;
        }
        client.shutdown().await?;
        // Closing with bytes unread would reset the connection, and the Close frame might never be seen.
        let mut unread = [0; 1024];
        while client.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(FAREWELL_WITHIN, farewell).await;
    Ok(())
}

/// A Close frame (RFC 6455 §5.5.1). Clients must mask what they send, and to a backend we are one; the key hides nothing
/// here, since no page chose these bytes (§10.3).
fn close_frame(code: u16, reason: &str, is_masked: bool) -> Vec<u8> {
    let payload_bytes = 2 + reason.len();
    debug_assert!(payload_bytes <= 125, "control frames are short");
    let mut frame = vec![0x88, payload_bytes as u8];
    if is_masked {
        frame[1] |= 0x80;
        frame.extend([0; 4]);
    }
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

/// One direction, and what of it was read and not yet written.
struct Direction {
    buffer: Box<[u8; BUFFER_BYTES]>,
    start: usize,
    end: usize,
    /// Of what was written.
    frames: Frames,
    is_unflushed: bool,
    has_ended: bool,
}

impl Direction {
    fn new() -> Direction {
        let buffer = Box::new([0; BUFFER_BYTES]);
        Direction { buffer, start: 0, end: 0, frames: Frames::default(), is_unflushed: false, has_ended: false }
    }

    /// Ready when the reader's end has come, and the writer was told.
    fn poll_copy(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.start < self.end {
                ready!(self.poll_write(to, self.end, context))?;
            } else if self.has_ended {
                return Pin::new(to).poll_shutdown(context);
            } else {
                ready!(self.poll_read_flushing(from, to, context))?;
            }
        }
    }

    /// Writes the rest of the frame that is under way, and nothing more. Ready with whether a frame may be put in.
    fn poll_end_of_frame(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            if self.frames.may_put_in() {
                return Poll::Ready(Ok(true));
            }
            if self.frames.is_past_hope() || (self.has_ended && self.start == self.end) {
                return Poll::Ready(Ok(false));
            }
            if self.start < self.end {
                let mut ahead = self.frames;
                let rest = ahead.watch_frame(&self.buffer[self.start..self.end]);
                ready!(self.poll_write(to, self.start + rest, context))?;
            } else {
                ready!(self.poll_read_flushing(from, to, context))?;
            }
        }
    }

    /// Writes some of what is before `end`.
    fn poll_write(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        end: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = &self.buffer[self.start..end];
        let written = ready!(Pin::new(to).poll_write(context, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.frames.watch(&bytes[..written]);
        self.start += written;
        self.is_unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reads into the empty buffer; where there is nothing to read, what was written is sent off.
    fn poll_read_flushing(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut *self.buffer);
        if Pin::new(from).poll_read(context, &mut buffer)?.is_pending() {
            if self.is_unflushed {
                ready!(Pin::new(to).poll_flush(context))?;
                self.is_unflushed = false;
            }
            return Poll::Pending;
        }
        (self.start, self.end) = (0, buffer.filled().len());
        self.has_ended = self.end == 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{BufWriter, duplex};

    use super::*;

    /// What a client of a tunnel reads that is over after the backend wrote `written`; the backend writes `rest` then.
    async fn read_by_client(written: &[u8], rest: &[u8]) -> Vec<u8> {
        let (near_client, mut client) = duplex(64);
        let (near_backend, mut backend) = duplex(64);
        let (end, ended) = tokio::sync::oneshot::channel();
        let tunnel = relay(near_client, (near_backend, Bytes::new()), async move { ended.await.expect("it is ended") });
        let all = async {
            let mut read = vec![0; written.len()];
            backend.write_all(written).await.unwrap();
            client.read_exact(&mut read).await.unwrap();
            end.send(Over::Login).unwrap();
            backend.write_all(rest).await.unwrap();
            client.read_to_end(&mut read).await.unwrap();
            read
        };
        let (outcome, read) = tokio::join!(tunnel, all);
        outcome.unwrap();
        read
    }

    #[tokio::test]
    async fn what_a_backend_says_first_reaches_its_client_though_nothing_follows() {
        let (near_client, mut client) = duplex(64);
        let (near_backend, _silent) = duplex(64);
        // As TLS does, it keeps what is written until it is flushed.
        let near_client = BufWriter::new(near_client);
        let early = Bytes::from_static(b"\x81\x02hi");
        let tunnel = relay(near_client, (near_backend, early.clone()), std::future::pending());
        let mut read = vec![0; early.len()];
        tokio::select! {
            ended = tunnel => panic!("the tunnel has ended: {ended:?}"),
            done = client.read_exact(&mut read) => assert_eq!(done.unwrap(), early.len()),
        }
        assert_eq!(read, early);
    }

    /// Says something, and breaks off at once.
    struct BreaksOff(&'static [u8]);

    impl AsyncRead for BreaksOff {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            match std::mem::take(&mut self.0) {
                b"" => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                said => {
                    buffer.put_slice(said);
                    Poll::Ready(Ok(()))
                }
            }
        }
    }

    impl AsyncWrite for BreaksOff {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_last_words_of_a_backend_that_breaks_off_reach_its_client() {
        let (near_client, mut client) = duplex(64);
        let last_words = b"\x88\x02\x03\xe9";
        let tunnel = relay(BufWriter::new(near_client), (BreaksOff(last_words), Bytes::new()), std::future::pending());
        assert_eq!(tunnel.await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, last_words);
    }

    #[tokio::test(start_paused = true)]
    async fn the_close_comes_behind_the_frame_under_way_and_what_follows_it_does_not() {
        let close = close_frame(3000, Over::Login.text(), false);
        type Bytes = &'static [u8];
        let rows: &[(&str, Bytes, Bytes, Bytes)] = &[
            ("between frames", b"\x81\x02hi", b"\x81\x02no", b"\x81\x02hi"),
            ("within a frame", b"\x81\x04hi", b"ho\x81\x02no", b"\x81\x04hiho"),
            ("within a head", b"\x81", b"\x02hi", b"\x81\x02hi"),
            ("between fragments", b"\x01\x02hi", b"", b"\x01\x02hi"),
        ];
        for (name, written, rest, before) in rows {
            assert_eq!(read_by_client(written, rest).await, [before, &*close].concat(), "{name}");
        }
        let read = read_by_client(b"\x81\x04hi", b"").await;
        assert_eq!(read, b"\x81\x04hi", "a frame that never ends has no end to put a Close in");
        let read = read_by_client(b"\x88\x02\x03\xe8", b"").await;
        assert_eq!(read, b"\x88\x02\x03\xe8", "one Close is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn the_backend_is_told_too_and_gets_nothing_more_of_the_client() {
        let (near_client, mut client) = duplex(64);
        let (near_backend, mut backend) = duplex(64);
        client.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
        let over = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Over::Denied
        };
        let tunnel = relay(near_client, (near_backend, Bytes::new()), over);
        let all = async {
            let mut read = vec![0; 6];
            backend.read_exact(&mut read).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(b"\x81\x82\0\0\0\0no").await.unwrap();
            read.clear();
            let _ = backend.read_to_end(&mut read).await;
            read
        };
        let (_, read) = tokio::join!(tunnel, all);
        assert_eq!(read, close_frame(1001, "", true));
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself_and_both_end_the_tunnel() {
        let (near_client, mut client) = duplex(64);
        let (near_backend, mut backend) = duplex(64);
        let tunnel = relay(near_client, (near_backend, Bytes::new()), std::future::pending());
        let all = async {
            client.write_all(&[b'x'; 100_000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let echo = async {
            let mut received = Vec::new();
            backend.read_to_end(&mut received).await.unwrap();
            backend.write_all(&received[..1000]).await.unwrap();
            backend.shutdown().await.unwrap();
            received.len()
        };
        let (outcome, answer, received) = tokio::join!(tunnel, all, echo);
        outcome.unwrap();
        assert_eq!((answer.len(), received), (1000, 100_000));
    }
}
