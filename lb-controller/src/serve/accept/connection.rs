//! One client connection, from TLS to its last response.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::{Drain, Worker};
use crate::serve::body::{ClientBody, ResponseBody};
use crate::serve::client_certificate::ClientCertificate;
use crate::serve::front::{Arrival, Current, Passing, Place, Through};
use crate::serve::h2::Gathering;
use crate::serve::http1::server as http1;
use crate::serve::request::Peer;
use crate::serve::tls::{CHALLENGE_PROTOCOL, TlsClass, TlsStream};
use crate::serve::{front, plain_http};

/// A PING after as long without a frame finds peers that vanished; they have as long again to answer.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// Headers of one request. Room for large cookies and tokens; more is 431.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Requests at once on one h2 connection: what browsers open for one page, and few enough that their buffers
/// ([`MAX_STREAM_BUFFER_BYTES`] each) cannot fill the memory.
const MAX_STREAMS: u32 = 128;

/// Response bytes that wait for one h2 client's window.
const MAX_STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Boxed, because it is handed on.
type ClientStream = Box<TlsStream>;

/// A connection whose beginning is known, and the places that it takes.
struct Begun {
    next: Next,
    _places: (OwnedSemaphorePermit, Option<Place>),
}

/// How a connection goes on.
enum Next {
    Requests(ClientStream, Rc<Peer>),
    PassThrough(Through, Passing),
}

/// Why a connection goes no further.
enum NotBegun {
    /// It needs nothing more.
    Answered,
    Failed(io::Error),
}

impl From<io::Error> for NotBegun {
    fn from(error: io::Error) -> NotBegun {
        NotBegun::Failed(error)
    }
}

/// Closes a connection that nothing was read from, so that nothing of it stays behind, in the kernel neither.
fn reset(stream: &TcpStream) -> NotBegun {
    // Without it, it closes all the same.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    NotBegun::Answered
}

/// Why a connection ended before its time; for people to read.
type Ended = Box<dyn std::error::Error>;

impl<Handler, Answer> Worker<Handler>
where
    Handler: Fn(Rc<Peer>, Request<ClientBody>) -> Answer + 'static,
    Answer: Future<Output = Response<ResponseBody>> + 'static,
{
    /// Serves a connection that takes `place` as long as it lasts.
    pub(super) async fn serve(self: &Rc<Self>, stream: TcpStream, wire: SocketAddr, place: OwnedSemaphorePermit) {
        // Boxed one by one: a connection has room for what it is in the midst of, and for no more.
        let begun = match Box::pin(self.begin(stream, wire, place)).await {
            Ok(begun) => begun,
            Err(NotBegun::Answered) => return,
            Err(NotBegun::Failed(error)) => {
                self.metrics.handshake_failed();
                tracing::debug!(address = %wire, %error, "no TLS handshake");
                return;
            }
        };
        let served = match begun.next {
            Next::PassThrough(through, passing) => {
                Box::pin(front::pass(&self.front, through, passing)).await;
                Ok(())
            }
            Next::Requests(stream, peer) if peer.h2 => Box::pin(self.serve_h2(stream, peer)).await,
            Next::Requests(stream, peer) => Box::pin(self.serve_http1(stream, peer)).await,
        };
        if let Err(error) = served {
            tracing::debug!(address = %wire, %error, "connection ended early");
        }
    }

    /// What stands before requests: whose connection it is, and how it goes on.
    async fn begin(
        &self,
        mut stream: TcpStream,
        wire: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<Begun, NotBegun> {
        let deadline = Instant::now() + self.limits.handshake;
        // Under sk_lookup this is the VIP, although the socket listens on loopback.
        let local = stream.local_addr()?;
        let current = self.front.current();
        let reading = Arrival::of(&mut stream, wire, local, (&self.front, &current));
        let arrival = timeout_at(deadline, reading).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let Ok(of_source) = self.front.enter(&current, &arrival) else { return Err(reset(&stream)) };
        if let Some(https_port) = self.tls.plain_http.https_port(local) {
            self.serve_plain_http(stream, https_port, place).await;
            return Err(NotBegun::Answered);
        }
        let handshake = self.handshake(stream, arrival, &current);
        let next = timeout_at(deadline, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        match next {
            Next::Requests(stream, _) if stream.alpn_protocol() == Some(CHALLENGE_PROTOCOL) => {
                self.tls.challenges.answered_in_tls(*stream).await;
                Err(NotBegun::Answered)
            }
            next => Ok(Begun { next, _places: (place, of_source) }),
        }
    }

    /// In a place of plain HTTP's own.
    async fn serve_plain_http(&self, stream: TcpStream, https_port: u16, place: OwnedSemaphorePermit) {
        drop(place);
        let Ok(_place) = self.plain_places.try_acquire() else {
            self.front.refused("plain_http_full");
            reset(&stream);
            return;
        };
        plain_http::serve(stream, https_port, &self.tls.plain_http, &self.tls.challenges).await;
    }

    async fn handshake(&self, stream: TcpStream, arrival: Arrival, current: &Current) -> io::Result<Next> {
        let hello = front::Hello::read(stream).await?;
        let server_name = hello.accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        if let Some(through) = current.through(server_name.as_deref()) {
            let server_name = server_name.unwrap_or_default();
            return Ok(Next::PassThrough(
                through,
                Passing { stream: hello.stream, hello: hello.bytes, server_name, arrival },
            ));
        }
        let tls_class = TlsClass::of(&hello.accepted.client_hello());
        let config = self.tls.answer_to(&hello.accepted.client_hello());
        let stream = TlsStream::accept(hello.stream, hello.bytes, config).await?;
        self.tls.handshakes.count(&stream);
        let Arrival { address, local, is_proxied, .. } = arrival;
        let peer = Peer {
            address,
            is_proxied,
            local,
            server_name,
            h2: stream.alpn_protocol() == Some(b"h2"),
            tls_class: Some(tls_class),
            certificate: stream.peer_certificates().and_then(ClientCertificate::read).map(Arc::new),
        };
        Ok(Next::Requests(Box::new(stream), Rc::new(peer)))
    }

    async fn serve_http1(&self, stream: ClientStream, peer: Rc<Peer>) -> Result<(), Ended> {
        let ends = http1::Ends {
            head_within: self.limits.head,
            stopping: self.told_to_close_idle(),
            has_stopped: || self.stopping.borrow().is_some(),
        };
        Ok(http1::serve(stream, ends, |request| (self.handler)(peer.clone(), request)).await?)
    }

    async fn serve_h2(&self, stream: ClientStream, peer: Rc<Peer>) -> Result<(), Ended> {
        let last_request = Cell::new(Instant::now());
        let service = service_fn(|request: Request<Incoming>| {
            last_request.set(Instant::now());
            // Boxed: the task of a stream is moved while it is made.
            let answer = Box::pin((self.handler)(peer.clone(), request.map(ClientBody::H2)));
            async move {
                let mut response = answer.await;
                // RFC 9113 §8.2.2: meant for HTTP/1; malformed here.
                response.headers_mut().remove(header::CONNECTION);
                Ok::<_, Infallible>(response)
            }
        });
        let stream = Gathering::new(stream);
        let gathered = stream.handle();
        let connection = http2::Builder::new(OnThisThread)
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES)
            .max_send_buf_size(MAX_STREAM_BUFFER_BYTES)
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_INTERVAL)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            served = poll_fn(|context| gathered.poll_driving(connection.as_mut(), context)) => {
                return self.ended(served, &gathered).await;
            }
            () = idle_since(&last_request, self.limits.h2_idle) => {}
            () = self.stopped() => {}
        }
        connection.as_mut().graceful_shutdown();
        let served = poll_fn(|context| gathered.poll_driving(connection.as_mut(), context)).await;
        self.ended(served, &gathered).await
    }

    /// After an h2 connection: whoever broke its rules is told, and floods are counted, whether we noticed first or the reader
    /// of frames did.
    async fn ended(
        &self,
        served: io::Result<hyper::Result<()>>,
        gathered: &Gathering<ClientStream>,
    ) -> Result<(), Ended> {
        let reason = served.as_ref().ok().and_then(|served| broken_rule(served.as_ref().err()?));
        if gathered.is_flooded() || reason == Some(h2::Reason::ENHANCE_YOUR_CALM) {
            self.front.flooded();
        }
        if gathered.is_flooded() || reason.is_some() {
            gathered.farewell().await;
        }
        Ok(served??)
    }

    /// Waits for the shutdown.
    async fn stopped(&self) {
        self.until_drain(|_| true).await;
    }

    async fn told_to_close_idle(&self) {
        self.until_drain(|drain| drain.closes_idle).await;
    }

    async fn until_drain(&self, is_so: impl Fn(&Drain) -> bool) {
        let mut stopping = self.stopping.clone();
        if stopping.wait_for(|drain| drain.as_ref().is_some_and(&is_so)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why the reader of frames has closed a connection.
fn broken_rule(error: &hyper::Error) -> Option<h2::Reason> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    error.reason().filter(|_| error.is_library() && error.is_go_away())
}

/// Waits until no request has come for `limit`.
async fn idle_since(last_request: &Cell<Instant>, limit: Duration) {
    while last_request.get().elapsed() < limit {
        tokio::time::sleep_until(last_request.get() + limit).await;
    }
}

/// Runs the tasks of h2 streams where their connection is.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<Task: Future<Output = ()> + 'static> hyper::rt::Executor<Task> for OnThisThread {
    fn execute(&self, task: Task) {
        tokio::task::spawn_local(task);
    }
}
