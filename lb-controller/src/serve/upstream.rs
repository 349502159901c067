//! Connections to backends. Every worker thread keeps its own, so taking one needs no lock, and drives each within the
//! request that uses it, so an exchange needs no second task and no wake-up between two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::pool::InFlight;
use crate::serve::body::{Progress, RequestBody};

/// Idle connections kept to one backend by one worker. A backend with a worker process per connection would be full
/// of ours beyond that.
const MAX_IDLE_PER_BACKEND: usize = 128;

/// Below the keep-alive time of common servers (nginx 75 s, Go none, Node 5 s but announced), so that we close first.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// A response head larger than this is refused (502): hyper's buffer must hold it whole.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

type Driver = http1::Connection<TokioIo<TcpStream>, RequestBody>;
pub(crate) type SendError = TrySendError<Request<RequestBody>>;

/// A connection to a backend, not in use by a request.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: http1::SendRequest<RequestBody>,
    /// `None`: the connection has ended.
    driver: Option<Driver>,
    idle_since: Instant,
}

/// Boxed: a connection is about a kilobyte, and moves at every request it serves.
type IdleConnections = HashMap<SocketAddr, Vec<Box<Connection>>>;

thread_local! {
    /// Bounded by the configured backends and [`MAX_IDLE_PER_BACKEND`]. The most recently used is last.
    static IDLE: RefCell<IdleConnections> = RefCell::default();
}

/// An idle connection to `address` that still lives, if this worker has one.
pub(crate) async fn take_idle(address: SocketAddr) -> Option<Box<Connection>> {
    poll_fn(|context| {
        Poll::Ready(loop {
            let last = IDLE.with_borrow_mut(|idle| idle.get_mut(&address).and_then(Vec::pop));
            let Some(mut connection) = last else { break None };
            // Polling it now notices a FIN that arrived while it was idle, before a request is lost to it.
            connection.drive(context);
            if connection.sender.is_ready() && connection.idle_since.elapsed() < MAX_IDLE_TIME {
                break Some(connection);
            }
        })
    })
    .await
}

/// Closes connections that were idle for too long. Each worker calls it now and then.
pub(crate) fn close_expired() {
    IDLE.with_borrow_mut(|idle| {
        idle.retain(|_, connections| {
            connections.retain(|connection| connection.idle_since.elapsed() < MAX_IDLE_TIME);
            !connections.is_empty()
        });
    });
}

/// A new connection.
pub(crate) async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Box<Connection>> {
    let stream = connect_stream(address, timeout).await?;
    let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER_BYTES).handshake(TokioIo::new(stream));
    let (sender, driver) = handshake.await.map_err(io::Error::other)?;
    Ok(Box::new(Connection { address, sender, driver: Some(driver), idle_since: Instant::now() }))
}

/// A new TCP connection that nothing is spoken on yet.
pub(crate) async fn connect_stream(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let connecting = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to SYN"))??;
    // Otherwise the end of each request waits for the acknowledgement of its beginning.
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    /// Sends `request` and waits for the response's head. Dropping the future closes the connection.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        let Connection { sender, driver, .. } = self;
        let mut response = pin!(sender.try_send_request(request));
        poll_fn(|context| {
            drive(driver, context);
            response.as_mut().poll(context)
        })
        .await
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        drive(&mut self.driver, context);
    }

    fn keep(mut self: Box<Self>) {
        self.idle_since = Instant::now();
        IDLE.with_borrow_mut(|idle| {
            let connections = idle.entry(self.address).or_default();
            if connections.len() < MAX_IDLE_PER_BACKEND {
                connections.push(self);
            }
        });
    }
}

fn drive(driver: &mut Option<Driver>, context: &mut Context<'_>) {
    if let Some(running) = driver
        && Pin::new(running).poll(context).is_ready()
    {
        *driver = None;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One request and response on a connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) connection: Box<Connection>,
    pub(crate) in_flight: InFlight,
    /// Of the request's body, when it streams.
    pub(crate) progress: Option<Rc<Progress>>,
}

impl Exchange {
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        self.connection.drive(context);
    }

    /// The response has ended. The connection is kept, unless the backend answered before it had the whole request:
    /// then the rest of that request's body is still to come on it.
    pub(crate) fn finish(self) {
        if self.connection.driver.is_some() && self.progress.is_none_or(|progress| progress.has_ended()) {
            self.connection.keep();
        }
    }

    /// The response broke off.
    pub(crate) fn fail(self, error: &hyper::Error) {
        self.in_flight.backend().failed(format!("response broke off: {error}"));
    }
}
