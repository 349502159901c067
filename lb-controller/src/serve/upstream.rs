//! Connections to backends. Every worker thread keeps its own, so taking one needs no lock.

mod connect;
mod multiplexed;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};
use hyper::body::Frame;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use connect::ConnectError;
use connect::{Call, Purpose, Spoken};

use crate::clock::coarse_monotonic;
use crate::pool::{Backend, ConnectionPlace, Dial, DialId, InFlight};
use crate::serve::body::RequestBody;
use crate::serve::h2::channel::Channel;
use crate::serve::h2::exchange;
use crate::serve::http1::body::Interim;
use crate::serve::http1::client::{self, ExchangeError};
use crate::serve::http1::{Io, Tunnel};
use crate::serve::preface::Preface;
use crate::serve::timer::Timer;

/// Idle connections kept to one backend by one worker: as many as were in use at once within [`MAX_IDLE_TIME`], for a
/// connection that is closed at a peak is opened again at the next. `max_connections` is for backends that mind.
const MAX_IDLE_PER_BACKEND: usize = 1024;

/// Below the keep-alive time of common servers (nginx 75 s, Go none, Node 5 s but announced), so that we close first.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// A connection to a backend, or one request's share of it.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: Peer,
    inner: Inner,
    /// Of the coarse monotonic clock.
    idle_since: Duration,
    /// It serves one client only.
    is_private: bool,
    timer: Timer,
    /// `None`: it is only a share, and the whole has it.
    place: Option<ConnectionPlace>,
}

/// By what is spoken. Every request asks it several times, so it is no trait object.
#[derive(Debug)]
enum Inner {
    Http1(client::Connection),
    H2(exchange::Exchange),
}

/// Who is at the other end, and on what terms: connections to the same one stand in for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Peer {
    address: SocketAddr,
    dial: DialId,
}

/// Boxed: a connection is some hundred bytes, and moves at every request it serves.
type IdleConnections = HashMap<Peer, Vec<Box<Connection>>>;

thread_local! {
    /// Bounded by the configured backends and [`MAX_IDLE_PER_BACKEND`]. The most recently used is last.
    static IDLE: RefCell<IdleConnections> = RefCell::default();
}

/// A connection to `backend` that takes one more request, if this worker has one: an idle one, or one that is shared.
pub(crate) async fn take_idle(dial: &Dial, backend: &Arc<Backend>) -> Option<Box<Connection>> {
    let (now, peer) = (coarse_monotonic(), Peer::of(dial, backend));
    if dial.protocol.may_be_h2()
        && let Some(channel) = multiplexed::take(peer)
    {
        return Some(Connection::on(&channel, peer));
    }
    poll_fn(|context| {
        Poll::Ready(loop {
            let last = IDLE.with_borrow_mut(|idle| idle.get_mut(&peer).and_then(Vec::pop));
            let Some(mut connection) = last else { break None };
            // A FIN that arrived while it was idle is noticed before a request is lost to it.
            if !connection.is_stale(context) && connection.is_fresh(now) {
                break Some(connection);
            }
        })
    })
    .await
}

/// Told when some request waits for a connection that others keep idle.
static WANTED: Notify = Notify::const_new();

/// Waits until idle connections may be wanted.
pub(crate) async fn wanted() {
    WANTED.notified().await;
}

/// Closes idle connections for which others wait.
pub(crate) fn give_up_wanted() {
    let is_wanted = |connection: &Connection| connection.place.as_ref().is_some_and(ConnectionPlace::is_wanted);
    IDLE.with_borrow_mut(|idle| idle.values_mut().for_each(|connections| connections.retain(|one| !is_wanted(one))));
    multiplexed::give_up_wanted();
}

/// Closes connections that were idle for too long. Each worker calls it now and then.
pub(crate) fn close_expired() {
    let now = coarse_monotonic();
    IDLE.with_borrow_mut(|idle| {
        idle.retain(|_, connections| {
            connections.retain(|connection| connection.is_fresh(now));
            !connections.is_empty()
        });
    });
    multiplexed::close_expired(now);
}

/// A new connection to `backend`, a backend of the pool that is dialled so. It begins with `preface`.
pub(crate) async fn connect(
    dial: &Dial,
    backend: &Arc<Backend>,
    timeout: Duration,
    preface: &Preface,
) -> Result<Box<Connection>, ConnectError> {
    // What names one client is shared by none.
    if dial.protocol.may_be_h2() && preface.is_empty() {
        return multiplexed::connect(dial, backend, timeout).await;
    }
    let call = Call { timeout, preface, purpose: Purpose::Requests };
    let spoken = connect::connect(dial, backend, call).await?;
    Connection::of(spoken, Peer::of(dial, backend), !preface.is_empty())
}

/// A new TCP connection for bytes that are not ours to read.
pub(crate) async fn connect_stream(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let connecting = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to SYN"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection on which a WebSocket can be opened: one of its own over HTTP/1.1, a share of one over HTTP/2.
///
/// Errors: also [`ConnectError::NoWebSockets`].
pub(crate) async fn connect_for_websocket(
    dial: &Dial,
    backend: &Arc<Backend>,
    timeout: Duration,
    preface: &Preface,
) -> Result<Box<Connection>, ConnectError> {
    let peer = Peer::of(dial, backend);
    if !dial.protocol.is_h2() {
        let call = Call { timeout, preface, purpose: Purpose::WebSocket };
        return Connection::of(connect::connect(dial, backend, call).await?, peer, !preface.is_empty());
    }
    let connection = match multiplexed::take(peer) {
        Some(channel) => Connection::on(&channel, peer),
        None => multiplexed::connect(dial, backend, timeout).await?,
    };
    let Inner::H2(exchange) = &connection.inner else { return Err(ConnectError::NoWebSockets) };
    let settled = tokio::time::timeout(timeout, exchange.channel().settled()).await;
    match settled.is_ok() && exchange.channel().takes_connect() {
        true => Ok(connection),
        false => Err(ConnectError::NoWebSockets),
    }
}

impl Peer {
    fn of(dial: &Dial, backend: &Arc<Backend>) -> Peer {
        Peer { address: backend.address, dial: dial.id() }
    }
}

impl Connection {
    fn of(spoken: Spoken, peer: Peer, is_private: bool) -> Result<Box<Connection>, ConnectError> {
        match spoken {
            Spoken::Http1(stream, place) => {
                let mut connection = Connection::http1(stream, place, peer);
                connection.is_private = is_private;
                Ok(connection)
            }
            // Nobody offered it.
            Spoken::H2(_) => Err(ConnectError::NoWebSockets),
        }
    }

    fn http1(stream: Box<dyn Io>, place: ConnectionPlace, peer: Peer) -> Box<Connection> {
        let timer = Timer::new(Instant::now() + MAX_IDLE_TIME);
        let inner = Inner::Http1(client::Connection::new(stream));
        Box::new(Connection {
            peer,
            inner,
            idle_since: coarse_monotonic(),
            is_private: false,
            timer,
            place: Some(place),
        })
    }

    /// A share of a connection.
    fn on(channel: &Rc<Channel>, peer: Peer) -> Box<Connection> {
        let (timer, inner) = (channel.timer(), Inner::H2(exchange::Exchange::on(channel)));
        Box::new(Connection { peer, inner, idle_since: Duration::ZERO, is_private: false, timer, place: None })
    }

    /// Whether a WebSocket on it is one stream of many.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self.inner, Inner::H2(_))
    }

    /// Asks for a WebSocket: what [`Connection::begin`] is for other requests.
    pub(crate) fn begin_websocket(&mut self, head: &request::Parts) {
        match &mut self.inner {
            Inner::Http1(connection) => connection.begin(head, RequestBody::default()),
            Inner::H2(exchange) => exchange.begin_websocket(head),
        }
    }

    /// What is left of it when the backend has agreed to a tunnel; `None`: it has not.
    /// Its place goes along.
    pub(crate) fn into_tunnel(self) -> Option<(Tunnel, Option<ConnectionPlace>)> {
        let tunnel = match self.inner {
            Inner::Http1(connection) => Some(connection.into_tunnel()),
            Inner::H2(exchange) => exchange.into_tunnel(),
        };
        tunnel.map(|tunnel| (tunnel, self.place))
    }

    /// Whether the backend has closed it, or said something unasked, while it was idle.
    fn is_stale(&mut self, context: &mut Context<'_>) -> bool {
        match &mut self.inner {
            Inner::Http1(connection) => connection.is_stale(context),
            Inner::H2(_) => true,
        }
    }

    /// Puts a request together; [`Connection::poll_response`] sends it. Its headers must not speak of framing.
    pub(crate) fn begin(&mut self, head: &request::Parts, body: RequestBody) {
        match &mut self.inner {
            Inner::Http1(connection) => connection.begin(head, body),
            Inner::H2(exchange) => exchange.begin(head, body),
        }
    }

    /// The response's head, which may come before the request's end; informational ones go to `interim`.
    pub(crate) fn poll_response(
        &mut self,
        interim: Option<&Interim>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, ExchangeError>> {
        match &mut self.inner {
            Inner::Http1(connection) => connection.poll_response(interim, context),
            Inner::H2(exchange) => exchange.poll_response(interim, context),
        }
    }

    /// The next part of the response's body.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match &mut self.inner {
            Inner::Http1(connection) => connection.poll_frame(context),
            Inner::H2(exchange) => exchange.poll_frame(context),
        }
    }

    /// Moves the request's body on, while nobody can take more of the response.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        match &mut self.inner {
            Inner::Http1(connection) => connection.drive(context),
            Inner::H2(exchange) => exchange.drive(context),
        }
    }

    /// The response has come whole.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.inner {
            Inner::Http1(connection) => connection.has_ended(),
            Inner::H2(exchange) => exchange.has_ended(),
        }
    }

    /// The bytes of the response's body still to come, where that is known.
    pub(crate) fn left_bytes(&self) -> Option<u64> {
        match &self.inner {
            Inner::Http1(connection) => connection.left_bytes(),
            Inner::H2(exchange) => exchange.left_bytes(),
        }
    }

    /// No byte of the request under way has left, or the backend said that it has not looked at it.
    pub(crate) fn is_unsent(&self) -> bool {
        match &self.inner {
            Inner::Http1(connection) => connection.is_unsent(),
            Inner::H2(exchange) => exchange.is_unprocessed(),
        }
    }

    /// The backend said that it has not looked at the request.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(&self.inner, Inner::H2(exchange) if exchange.is_unprocessed())
    }

    /// Whether `error` is one of the connection, and not of a request on it.
    pub(crate) fn ended_by(&self, error: &ExchangeError) -> bool {
        match &self.inner {
            Inner::Http1(_) => true,
            Inner::H2(_) => matches!(error, ExchangeError::H2(error) if error.is_io() || error.is_go_away()),
        }
    }

    /// Something came back for the request under way.
    pub(crate) fn has_answered(&self) -> bool {
        match &self.inner {
            Inner::Http1(connection) => connection.has_answered(),
            Inner::H2(exchange) => exchange.has_answered(),
        }
    }

    /// What was not sent of the request's body, which may be all of it.
    pub(crate) fn take_body(&mut self) -> Option<RequestBody> {
        match &mut self.inner {
            Inner::Http1(connection) => connection.take_body(),
            Inner::H2(exchange) => exchange.take_body(),
        }
    }

    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.idle_since) < MAX_IDLE_TIME
    }

    /// Ready once `deadline` has passed: whoever waits for the backend, waits no longer.
    pub(crate) fn poll_past(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_past_earlier(deadline, context)
    }

    fn keep(mut self: Box<Self>) {
        if self.place.as_ref().is_some_and(ConnectionPlace::is_wanted) {
            return;
        }
        self.idle_since = coarse_monotonic();
        IDLE.with_borrow_mut(|idle| {
            let connections = idle.entry(self.peer).or_default();
            if connections.len() < MAX_IDLE_PER_BACKEND {
                connections.push(self);
            }
        });
    }
}

/// One request and response on a connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) connection: Box<Connection>,
    pub(crate) in_flight: InFlight,
}

impl Deref for Exchange {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Exchange {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Exchange {
    /// The response has ended. The connection is kept, unless the backend answered before it had the whole request:
    /// then the rest of that request's body is still to come on it.
    pub(crate) fn finish(self) {
        let Exchange { mut connection, in_flight: _in_flight } = self;
        let shared = match &mut connection.inner {
            Inner::Http1(http1) => {
                if http1.is_reusable() && !connection.is_private {
                    connection.keep();
                }
                return;
            }
            Inner::H2(exchange) => exchange.channel().clone(),
        };
        let Connection { timer, .. } = *connection;
        shared.keep_timer(timer);
    }

    /// The response broke off; the backend is not to blame where its client did.
    pub(crate) fn fail(self, error: &ExchangeError) {
        if !matches!(error, ExchangeError::RequestBroken | ExchangeError::BothSilent(_)) {
            self.in_flight.backend().failed(format!("response broke off: {error}"));
        }
    }
}
