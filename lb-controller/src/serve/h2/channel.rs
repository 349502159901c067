//! One connection to a backend that speaks HTTP/2, and the task that moves its frames. Requests of a worker share it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use http::uri::Scheme;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Gathering;
use crate::clock::coarse_monotonic;
use crate::pool::ConnectionPlace;
use crate::serve::http1::Io;
use crate::serve::timer::Timer;

/// Requests at once on one connection, or fewer if the backend says so; another connection is opened for more.
const MAX_STREAMS: usize = 100;

/// What a backend may send of one response before somebody reads it.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same of all responses of a connection: so much that one which nobody reads holds up no other.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS as u32 * STREAM_WINDOW_BYTES;

/// Of one request, beyond what the backend's window takes.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// A backend that owes answers and is silent for as long is asked whether it is still there, and has as long again to say so.
const QUIET: Duration = Duration::from_secs(20);

/// Until it is asked the next time, if it was silent ever since: servers of gRPC take more than a few questions within five
/// minutes for abuse, and close the connection.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(310);

/// Length of the shortest SETTINGS (RFC 9113 §6.5).
const SETTINGS_BYTES: u64 = 9;

/// Length of PING (RFC 9113 §6.7).
const PONG_BYTES: u64 = 17;

/// Timers that are kept for the next requests.
const MAX_SPARE_TIMERS: usize = MAX_STREAMS;

/// A connection. It closes once nobody refers to it any more, or after the last response where [`Channel::retire`] was called.
pub(crate) struct Channel {
    /// `None`: it takes no further requests.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    pub(super) scheme: Scheme,
    streams: Cell<usize>,
    /// Of the coarse monotonic clock, while there are no streams.
    idle_since: Cell<Duration>,
    timers: RefCell<Vec<Timer>>,
    /// The backend's settings have come, which come first of all.
    is_settled: Cell<bool>,
    settling: Notify,
    place: ConnectionPlace,
}

impl Channel {
    /// Begins on `stream`, whose other end speaks nothing else.
    pub(crate) async fn open(
        stream: Box<dyn Io>,
        scheme: Scheme,
        place: ConnectionPlace,
    ) -> Result<Rc<Channel>, h2::Error> {
        let stream = Gathering::of_backend(stream);
        let gathered = stream.handle();
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .handshake::<_, Bytes>(stream)
            .await?;
        let channel = Rc::new(Channel {
            sender: RefCell::new(Some(sender)),
            scheme,
            streams: Cell::new(0),
            idle_since: Cell::new(coarse_monotonic()),
            timers: RefCell::default(),
            is_settled: Cell::new(false),
            settling: Notify::new(),
            place,
        });
        let of_task = channel.clone();
        tokio::task::spawn_local(async move {
            let mut life = Life::new(connection.ping_pong());
            let mut connection = pin!(connection);
            let moved = poll_fn(|context| {
                if life.poll_ended(&of_task, gathered.heard_bytes(), context).is_ready() {
                    return Poll::Ready(Err("it did not answer a PING".to_owned()));
                }
                let driven = gathered.poll_driving(connection.as_mut(), context);
                of_task.heard(gathered.heard_bytes());
                let driven = ready!(driven);
                Poll::Ready(match driven {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(error) => Err(error.to_string()),
                })
            });
            if let Err(error) = moved.await {
                tracing::debug!(error, "an h2 connection to a backend ended");
            }
            of_task.retire();
        });
        Ok(channel)
    }

    /// Whether one more request may begin on it.
    pub(crate) fn has_room(&self) -> bool {
        let Some(mut sender) = self.sender.borrow().clone() else { return false };
        // It tells of the backend's GOAWAY, and of a connection that has ended; a clone waits for no stream.
        let is_open = matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
        if !is_open {
            self.retire();
        }
        is_open && self.streams.get() < MAX_STREAMS.min(sender.current_max_send_streams())
    }

    /// It takes no further requests, and closes after the last response.
    pub(crate) fn retire(&self) {
        // Dropped after the borrow: that wakes the task.
        let sender = self.sender.borrow_mut().take();
        drop(sender);
    }

    /// Nobody uses it, and the next may.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams.get() == 0 && self.is_open()
    }

    pub(crate) fn place(&self) -> &ConnectionPlace {
        &self.place
    }

    /// Nobody has used it for so long.
    pub(crate) fn is_idle_for(&self, now: Duration, longest: Duration) -> bool {
        self.streams.get() == 0 && now.saturating_sub(self.idle_since.get()) >= longest
    }

    /// It takes further requests, some time.
    pub(crate) fn is_open(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Whether WebSockets can be opened on it (RFC 8441).
    pub(crate) fn takes_connect(&self) -> bool {
        self.sender.borrow().as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// Waits for the backend's settings.
    pub(crate) async fn settled(&self) {
        let settling = self.settling.notified();
        if !self.is_settled.get() {
            settling.await;
        }
    }

    fn heard(&self, bytes: u64) {
        if bytes >= SETTINGS_BYTES && !self.is_settled.replace(true) {
            self.settling.notify_waiters();
        }
    }

    /// A timer for one exchange; to be given back.
    pub(crate) fn timer(&self) -> Timer {
        let spare = self.timers.borrow_mut().pop();
        spare.unwrap_or_else(|| Timer::new(Instant::now() + QUIET))
    }

    pub(crate) fn keep_timer(&self, timer: Timer) {
        let mut timers = self.timers.borrow_mut();
        if timers.len() < MAX_SPARE_TIMERS {
            timers.push(timer);
        }
    }

    pub(super) fn send(
        &self,
        request: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        // A clone queues as many as there are; [`Channel::has_room`] is what bounds them.
        let sender = self.sender.borrow().clone();
        sender.ok_or(h2::Reason::REFUSED_STREAM)?.send_request(request, is_whole)
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// One request's place on a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(pub(super) Rc<Channel>);

impl Seat {
    pub(super) fn take(channel: Rc<Channel>) -> Seat {
        channel.streams.set(channel.streams.get() + 1);
        Seat(channel)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(coarse_monotonic());
    }
}

/// Whether the backend is still there. TCP does not tell when a machine has vanished.
struct Life {
    pings: Option<PingPong>,
    look: Timer,
    next_look: Instant,
    /// Bytes that it had said, without answers to PING, at the last look.
    heard_bytes: u64,
    pong_bytes: u64,
    asked: Option<Instant>,
    is_asked: bool,
}

impl Life {
    fn new(pings: Option<PingPong>) -> Life {
        let next_look = Instant::now() + QUIET;
        let look = Timer::new(next_look);
        Life { pings, look, next_look, heard_bytes: 0, pong_bytes: 0, asked: None, is_asked: false }
    }

    /// Ready when it owes an answer to a PING for too long. `heard_bytes`: all that came so far.
    fn poll_ended(&mut self, channel: &Channel, heard_bytes: u64, context: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.is_asked && pings.poll_pong(context).is_ready() {
            self.is_asked = false;
            self.pong_bytes += PONG_BYTES;
        }
        loop {
            ready!(self.look.poll_past(self.next_look, context));
            let now = Instant::now();
            self.next_look = now + QUIET;
            let said_bytes = heard_bytes - self.pong_bytes.min(heard_bytes);
            if said_bytes > self.heard_bytes {
                (self.heard_bytes, self.asked) = (said_bytes, None);
                continue;
            }
            if self.is_asked {
                return Poll::Ready(());
            }
            let is_due = self.asked.is_none_or(|asked| now.duration_since(asked) >= ASK_AGAIN_AFTER);
            if channel.streams.get() > 0 && is_due && pings.send_ping(Ping::opaque()).is_ok() {
                (self.asked, self.is_asked) = (Some(now), true);
                // Registers for the answer.
                if pings.poll_pong(context).is_ready() {
                    self.is_asked = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::LocalSet;

    use super::super::exchange::Exchange;
    use super::*;
    use crate::config::PoolConfig;
    use crate::pool::Pools;
    use crate::serve::body::RequestBody;

    const PING: u8 = 6;

    /// The other end of a connection, which says nothing but what it must; how often it was asked whether it is there.
    async fn far_end(mut stream: DuplexStream, answers_pings: bool, pings: Rc<Cell<u32>>) -> std::io::Result<()> {
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        stream.read_exact(&mut [0; 24]).await?;
        loop {
            let mut frame = vec![0; 9];
            stream.read_exact(&mut frame).await?;
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
            frame.resize(9 + length, 0);
            stream.read_exact(&mut frame[9..]).await?;
            if frame[3] == PING && frame[4] == 0 {
                pings.set(pings.get() + 1);
                frame[4] = 1;
                if answers_pings {
                    stream.write_all(&frame).await?;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_vanished_is_found_out_and_one_that_thinks_is_hardly_asked() {
        for (answers_pings, gives_up) in [(false, true), (true, false)] {
            let (near, far) = duplex(64 * 1024);
            let pings = Rc::<Cell<u32>>::default();
            let asked = pings.clone();
            let local = LocalSet::new();
            let outcome = local.run_until(async move {
                tokio::task::spawn_local(far_end(far, answers_pings, asked));
                let channel = open(Box::new(near)).await;
                let mut exchange = Exchange::on(&channel);
                let (head, ()) = Request::get("/").header("host", "a").body(()).unwrap().into_parts();
                exchange.begin(&head, RequestBody::default());
                let response = poll_fn(|context| exchange.poll_response(None, context));
                tokio::time::timeout(Duration::from_secs(1000), response).await
            });
            assert_eq!(outcome.await.is_ok(), gives_up, "answers: {answers_pings}");
            assert!((1..=4).contains(&pings.get()), "{} questions in a thousand seconds", pings.get());
        }
    }

    async fn open(stream: Box<dyn Io>) -> Rc<Channel> {
        let config = PoolConfig {
            name: "web".into(),
            backends: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()],
            ..PoolConfig::default()
        };
        let pools = Pools::build(&[config], None);
        let place = ConnectionPlace::take(&pools.get("web").unwrap().backends()[0]).unwrap();
        Channel::open(stream, Scheme::HTTP, place).await.unwrap()
    }
}
