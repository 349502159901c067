//! One client connection, from TLS to its last response.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Worker;
use crate::serve::body::ResponseBody;
use crate::serve::client_certificate::ClientCertificate;
use crate::serve::framing::Refereed;
use crate::serve::h2::Gathering;
use crate::serve::request::Peer;
use crate::serve::tls::TlsClass;
use crate::serve::{guard, listen};

/// A PING after as long without a frame finds peers that vanished; they have as long again to answer.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// Line and headers of one request. Room for large cookies and tokens; more is 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Requests at once on one h2 connection: what browsers open for one page, and few enough that their buffers
/// ([`MAX_STREAM_BUFFER_BYTES`] each) cannot fill the memory.
const MAX_STREAMS: u32 = 128;

/// Response bytes that wait for one h2 client's window.
const MAX_STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Why a connection ended before its time; for people to read.
type Ended = Box<dyn std::error::Error>;

impl<Handler, Answer> Worker<Handler>
where
    Handler: Fn(Rc<Peer>, Request<Incoming>) -> Answer + 'static,
    Answer: Future<Output = Response<ResponseBody>> + 'static,
{
    pub(super) async fn serve(self: &Rc<Self>, stream: TcpStream, address: SocketAddr) {
        let Some((stream, peer)) = self.handshake(stream, address).await else { return };
        let served = if peer.h2 { self.serve_h2(stream, peer).await } else { self.serve_http1(stream, peer).await };
        if let Err(error) = served {
            tracing::debug!(%address, %error, "connection ended early");
        }
    }

    async fn handshake(&self, stream: TcpStream, address: SocketAddr) -> Option<(TlsStream<TcpStream>, Rc<Peer>)> {
        // Under sk_lookup this is the VIP, although the socket listens on loopback.
        let local = stream.local_addr().ok()?;
        listen::prepare(&stream).ok()?;
        let failed = |error: &dyn std::fmt::Display| {
            self.metrics.handshake_failed();
            tracing::debug!(%address, %error, "no TLS handshake");
            None
        };
        let accept = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let tls_class = TlsClass::of(&hello.client_hello());
            Ok::<_, io::Error>((hello.into_stream(self.tls.clone()).await?, tls_class))
        };
        let (stream, tls_class) = match tokio::time::timeout(self.limits.handshake, accept).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return failed(&"it took too long"),
        };
        let session = stream.get_ref().1;
        let peer = Peer {
            address,
            local,
            server_name: session.server_name().map(str::to_ascii_lowercase),
            h2: session.alpn_protocol() == Some(b"h2"),
            tls_class: Some(tls_class),
            certificate: session.peer_certificates().and_then(ClientCertificate::read).map(Arc::new),
        };
        Some((stream, Rc::new(peer)))
    }

    async fn serve_http1(&self, stream: TlsStream<TcpStream>, peer: Rc<Peer>) -> Result<(), Ended> {
        let service = service_fn(|request: Request<Incoming>| {
            let ends_connection = guard::asks_for_upgrade(request.headers());
            let answer = (self.handler)(peer.clone(), request);
            async move {
                let mut response = answer.await;
                // The referee stopped looking when it saw the wish to upgrade, so nothing may follow but a tunnel.
                if ends_connection && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(Refereed::new(stream)), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            served = &mut connection => return Ok(served?),
            () = self.stopped() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }

    async fn serve_h2(&self, stream: TlsStream<TcpStream>, peer: Rc<Peer>) -> Result<(), Ended> {
        let last_request = Cell::new(Instant::now());
        let service = service_fn(|request: Request<Incoming>| {
            last_request.set(Instant::now());
            let answer = (self.handler)(peer.clone(), request);
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
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_send_buf_size(MAX_STREAM_BUFFER_BYTES)
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_INTERVAL)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            served = poll_fn(|context| gathered.poll_driving(connection.as_mut(), context)) => return Ok(served??),
            () = idle_since(&last_request, self.limits.h2_idle) => {}
            () = self.stopped() => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(poll_fn(|context| gathered.poll_driving(connection.as_mut(), context)).await??)
    }

    /// Waits for the shutdown.
    async fn stopped(&self) {
        if self.stopping.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
