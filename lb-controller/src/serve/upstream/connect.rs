//! From nothing to a connection on which HTTP can begin.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::config::Alpn;
use crate::descriptors;
use crate::pool::{Backend, ConnectionPlace, Dial, Handshake, Handshakes};
use crate::serve::h2::channel::Channel;
use crate::serve::http1::Io;
use crate::serve::preface::Preface;
use crate::serve::respond::Refusal;

/// Why there is no connection. Nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    #[error("the backend did not prove who it is: {0}")]
    Untrusted(io::Error),
    #[error("no TLS with the backend: {0}")]
    NoTls(io::Error),
    #[error("as many connections are open as may be")]
    Full,
    #[error("the backend does not speak HTTP/2")]
    NoH2,
    #[error("the backend takes no WebSockets over HTTP/2 (RFC 8441)")]
    NoWebSockets,
    #[error("no connection within {0:?}")]
    TooSlow(Duration),
    /// Several requests waited for the same one.
    #[error("{0}")]
    Shared(Rc<ConnectError>),
}

/// How a connection begins.
pub(super) struct Call<'a> {
    pub(super) timeout: Duration,
    pub(super) preface: &'a Preface,
    pub(super) purpose: Purpose,
}

/// An idle connection is given up within this time, as a rule.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Requests,
    /// To be asked for an upgrade, which only HTTP/1.1 has; where the backend may choose, nothing else is offered.
    WebSocket,
}

/// A connection, by what is spoken on it.
pub(super) enum Spoken {
    Http1(Box<dyn Io>, ConnectionPlace),
    H2(Rc<Channel>),
}

impl ConnectError {
    /// Whether it tells against the backend.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            ConnectError::Full => false,
            ConnectError::Unreachable(error) => !descriptors::is_want_of_our_own(error),
            ConnectError::Shared(error) => error.is_failure(),
            _ => true,
        }
    }

    /// What the client is told when no other backend is asked.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            ConnectError::Untrusted(_) => Refusal::BackendUntrusted,
            ConnectError::Full => Refusal::Overloaded,
            ConnectError::Shared(error) => error.refusal(),
            _ => Refusal::BackendFailed,
        }
    }
}

/// A connection to `backend` on the terms of its pool, TLS and all, within `timeout`. Where TLS is wanted and fails there is
/// no connection: nothing is ever said in plain instead.
pub(super) async fn connect(
    dial: &Dial,
    backend: &Arc<Backend>,
    Call { timeout, preface, purpose }: Call<'_>,
) -> Result<Spoken, ConnectError> {
    let handshakes = dial.handshakes(backend.address).map_err(ConnectError::NoTls)?;
    let of_websockets = match (handshakes, purpose) {
        (Some(handshakes), Purpose::WebSocket) if !dial.protocol.is_h2() => Some(handshakes.http1_only()),
        _ => None,
    };
    let handshakes = of_websockets.as_ref().or(handshakes);
    let connecting = async {
        let place = place(backend).await;
        let stream = connect_tcp(backend, preface).await.map_err(ConnectError::Unreachable)?;
        place.opened();
        let (stream, speaks_h2, scheme): (Box<dyn Io>, bool, Scheme) = match handshakes {
            None => (Box::new(stream), dial.protocol.is_h2(), Scheme::HTTP),
            Some(handshakes) => {
                let (stream, speaks_h2) = Box::pin(begin_tls(handshakes, backend, stream)).await?;
                (stream, speaks_h2, Scheme::HTTPS)
            }
        };
        match speaks_h2 {
            true => Ok(Spoken::H2(Channel::open(stream, scheme, place).await.map_err(|_| ConnectError::NoH2)?)),
            false if dial.protocol.is_h2() => Err(ConnectError::NoH2),
            false => Ok(Spoken::Http1(stream, place)),
        }
    };
    let connected = tokio::time::timeout(timeout, connecting).await;
    connected.unwrap_or_else(|_| {
        Err(match backend.has_connections_left() {
            true => ConnectError::TooSlow(timeout),
            false => ConnectError::Full,
        })
    })
}

/// A place for one more connection. Where other connections are idle, one of them is given up for it, on whichever worker.
async fn place(backend: &Arc<Backend>) -> ConnectionPlace {
    loop {
        if let Some(place) = ConnectionPlace::take(backend) {
            return place;
        }
        backend.want_connection();
        super::WANTED.notify_waiters();
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn connect_tcp(backend: &Backend, preface: &Preface) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(backend.address).await?;
    // Otherwise the end of each request waits for the acknowledgement of its beginning.
    stream.set_nodelay(true)?;
    // Before TLS, as whoever reads it expects.
    if !preface.is_empty() {
        stream.write_all(preface.bytes()).await?;
    }
    Ok(stream)
}

/// Also whether the backend chose HTTP/2.
async fn begin_tls(
    handshakes: &Handshakes,
    backend: &Backend,
    stream: TcpStream,
) -> Result<(Box<dyn Io>, bool), ConnectError> {
    match handshakes.over(stream).await {
        Ok(stream) => {
            let is_resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            backend.shook_hands(if is_resumed { Handshake::Resumed } else { Handshake::Full });
            let speaks_h2 = stream.get_ref().1.alpn_protocol() == Some(Alpn::H2.name().as_bytes());
            Ok((Box::new(stream), speaks_h2))
        }
        Err(error) => {
            let result = Handshake::of_error(&error);
            backend.shook_hands(result);
            Err(match result {
                Handshake::Untrusted => ConnectError::Untrusted(error),
                _ => ConnectError::NoTls(error),
            })
        }
    }
}
