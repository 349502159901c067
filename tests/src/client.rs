//! A TLS client for what curl cannot show: both directions of one stream at once, answers that come before the request's
//! end, and WebSocket.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, channel::Channel};
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::websocket::{self, Frame};

pub(crate) mod trust;

pub use trust::{OwnCertificate, any_certificate, any_server};

/// A response over h2 that goes on.
#[derive(Debug)]
pub struct Streaming {
    pub status: StatusCode,
    body: h2::RecvStream,
}

impl Streaming {
    /// What comes next; `None`: the data has ended.
    pub async fn data(&mut self) -> Result<Option<Bytes>> {
        let data = timeout(DEADLINE, self.body.data()).await.context("nothing comes")?.transpose()?;
        if let Some(data) = &data {
            self.body.flow_control().release_capacity(data.len())?;
        }
        Ok(data)
    }

    /// What came behind the data, if anything.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        Ok(timeout(DEADLINE, self.body.trailers()).await.context("the stream does not end")??)
    }
}

/// Nothing in these exchanges takes long; what does is stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Client {
    pub edge: SocketAddr,
    /// `host:port` to ask for; `None`: the edge's address.
    pub authority: Option<String>,
    /// `Cookie` header to send; empty for none.
    pub cookie: String,
}

/// An answer over h2 to a request whose body had not begun.
#[derive(Debug)]
pub struct EarlyAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    /// The headers were also the end (gRPC's "trailers only").
    pub is_trailers_only: bool,
    /// Why the edge gave the request's stream up, if it did.
    pub reset: Option<h2::Reason>,
}

/// A request whose body goes on.
#[derive(Debug)]
pub struct Upload {
    sender: http_body_util::channel::Sender<Bytes>,
    received: hyper::body::Incoming,
    _send: http1::SendRequest<Channel<Bytes>>,
}

impl Upload {
    /// Sends a piece and waits for it to come back.
    pub async fn exchange(&mut self, piece: &'static str) -> Result<()> {
        self.sender.send_data(Bytes::from(piece)).await.context("the edge stopped reading")?;
        let mut back = Vec::new();
        while back.len() < piece.len() {
            let frame = timeout(DEADLINE, self.received.frame()).await;
            let frame =
                frame.with_context(|| format!("{piece:?} did not come back"))?.context("the answer ended")??;
            back.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        ensure!(back == piece.as_bytes(), "{piece:?} came back as {back:?}");
        Ok(())
    }

    /// Ends the body, and waits for the answer's end.
    pub async fn finish(self) -> Result<()> {
        drop(self.sender);
        timeout(DEADLINE, self.received.collect()).await.context("the answer does not end")??;
        Ok(())
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Kept {
    client: Client,
    send: http1::SendRequest<Empty<Bytes>>,
}

impl Kept {
    /// Asks, and reads the whole answer.
    pub async fn get(&mut self, path: &str) -> Result<http::Response<Bytes>> {
        let request = self.client.request(path, Protocol::Http1)?.method("GET").body(Empty::new())?;
        let response = timeout(DEADLINE, self.send.send_request(request)).await.context("no answer")??;
        let (head, body) = response.into_parts();
        let body = timeout(DEADLINE, body.collect()).await.context("the answer does not end")??.to_bytes();
        Ok(http::Response::from_parts(head, body))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Client {
    /// Sends one piece, waits until it has come back, and only then sends the next: an edge that collects a body in
    /// either direction before passing it on hangs here.
    pub async fn stream_both_ways(&self, protocol: Protocol, path: &str) -> Result<()> {
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let request = self.request(path, protocol)?.body(body)?;
        let io = TokioIo::new(self.connect(protocol).await?);
        let response = match protocol {
            Protocol::Http1 => {
                let (mut send, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                timeout(DEADLINE, send.send_request(request)).await
            }
            Protocol::Http2 => {
                let (mut send, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                timeout(DEADLINE, send.send_request(request)).await
            }
        };
        let response = response.context("no response head before the request's body had ended")??;
        ensure!(response.status().is_success(), "{path} answered {}", response.status());
        let mut received = response.into_body();
        for number in 1..=5 {
            let piece = Bytes::from(format!("piece {number};"));
            sender.send_data(piece.clone()).await.context("the edge stopped reading")?;
            let frame = timeout(DEADLINE, received.frame()).await;
            let frame = frame.with_context(|| format!("piece {number} did not come back"))?;
            let data = frame.context("the response ended early")??.into_data().ok().unwrap_or_default();
            ensure!(data == piece, "piece {number} came back as {data:?}");
        }
        Ok(())
    }

    /// Begins an upload over HTTP/1.1 whose pieces come back.
    pub async fn begin_upload(&self, path: &str) -> Result<Upload> {
        let (sender, body) = Channel::<Bytes>::new(1);
        let request = self.request(path, Protocol::Http1)?.body(body)?;
        let (mut send, connection) = http1::handshake(TokioIo::new(self.connect(Protocol::Http1).await?)).await?;
        tokio::spawn(connection);
        let response = timeout(DEADLINE, send.send_request(request)).await.context("no head of an answer")??;
        ensure!(response.status().is_success(), "{path} answered {}", response.status());
        Ok(Upload { sender, received: response.into_body(), _send: send })
    }

    /// A connection for several requests.
    pub async fn keep(&self, protocol: Protocol) -> Result<Kept> {
        let (send, connection) = http1::handshake(TokioIo::new(self.connect(protocol).await?)).await?;
        tokio::spawn(connection);
        Ok(Kept { client: self.clone(), send })
    }

    /// Sends the head of a request over HTTP/1.1, with `headers` as lines, and no body. Returns the head of what comes
    /// back first.
    pub async fn answer_to_head(&self, method: &str, path: &str, headers: &str) -> Result<String> {
        let (authority, cookie) = (self.authority(), &self.cookie);
        let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
        let mut stream = self.connect(Protocol::Http1).await?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{cookie}{headers}\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(DEADLINE, stream.read_u8()).await.context("no answer before the body")?;
            answer.push(byte.context("the edge closed without an answer")?);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// POSTs over h2 and never sends the body.
    pub async fn early_answer(&self, path: &str, headers: &[(&str, &str)]) -> Result<EarlyAnswer> {
        let (mut send, connection) = h2::client::handshake(self.connect(Protocol::Http2).await?).await?;
        tokio::spawn(connection);
        let mut request = self.request(path, Protocol::Http2)?;
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, mut body_to_send) = send.send_request(request.body(())?, false)?;
        let response = timeout(DEADLINE, response).await.context("no answer before the body")??;
        let (head, mut body) = response.into_parts();
        let is_trailers_only = body.is_end_stream();
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            // A stream that ends early may end with its reset instead of the body's end.
            let Ok(data) = data else { break };
            body.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
        let reset = timeout(DEADLINE, poll_fn(|context| body_to_send.poll_reset(context))).await;
        Ok(EarlyAnswer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8_lossy(&received).into_owned(),
            is_trailers_only,
            reset: reset.ok().and_then(Result::ok),
        })
    }

    /// POSTs nothing over h2.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<Streaming> {
        let (mut send, connection) = h2::client::handshake(self.connect(Protocol::Http2).await?).await?;
        tokio::spawn(connection);
        let mut request = self.request(path, Protocol::Http2)?;
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, _) = send.send_request(request.body(())?, true)?;
        let (head, body) = timeout(DEADLINE, response).await.context("no answer")??.into_parts();
        Ok(Streaming { status: head.status, body })
    }

    /// Upgrades to WebSocket, sends a message and waits for its echo.
    pub async fn websocket_echo(&self, path: &str) -> Result<()> {
        let mut stream = self.open_websocket(path, &[]).await?;
        let message = Frame { opcode: websocket::TEXT, payload: b"through the edge and back".to_vec() };
        websocket::write(&mut stream, &message, Some([0x5a, 1, 2, 3])).await?;
        let echo = timeout(DEADLINE, websocket::read(&mut stream)).await.context("no echo")??;
        ensure!(echo.as_ref() == Some(&message), "the echo differs: {echo:?}");
        Ok(())
    }

    /// Upgrades to WebSocket; what is left is the stream of frames.
    pub async fn open_websocket(&self, path: &str, headers: &[(&str, &str)]) -> Result<TokioIo<Upgraded>> {
        const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
        let mut request = self
            .request(path, Protocol::Http1)?
            .method("GET")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, KEY);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let (mut send, connection) = http1::handshake(TokioIo::new(self.connect(Protocol::Http1).await?)).await?;
        tokio::spawn(connection.with_upgrades());
        let response = timeout(DEADLINE, send.send_request(request)).await??;
        ensure!(response.status() == 101, "the upgrade was answered {}", response.status());
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).context("no Sec-WebSocket-Accept")?;
        ensure!(accept == &websocket::accept_value(KEY), "wrong Sec-WebSocket-Accept {accept:?}");
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    fn authority(&self) -> String {
        let address = self.edge.to_string();
        self.authority.clone().unwrap_or_else(|| address.strip_suffix(":443").unwrap_or(&address).to_owned())
    }

    pub fn request(&self, path: &str, protocol: Protocol) -> Result<http::request::Builder> {
        let authority = self.authority();
        let builder = Request::builder().method("POST");
        let mut builder = match protocol {
            Protocol::Http1 => builder.uri(path).header(header::HOST, authority),
            Protocol::Http2 => builder.uri(format!("https://{authority}{path}")),
        };
        if !self.cookie.is_empty() {
            builder = builder.header(header::COOKIE, &self.cookie);
        }
        Ok(builder)
    }

    pub(crate) async fn connect(&self, protocol: Protocol) -> Result<TlsStream<TcpStream>> {
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        let connector = TlsConnector::from(Arc::new(trust::any_certificate(alpn)?));
        let tcp = timeout(DEADLINE, TcpStream::connect(self.edge)).await;
        let tcp = tcp.with_context(|| format!("no connection to {} within {DEADLINE:?}", self.edge))??;
        let named = self.authority.as_deref().and_then(|authority| authority.split(':').next());
        let name = match named {
            Some(host) => ServerName::try_from(host.to_owned())?,
            None => ServerName::from(self.edge.ip()),
        };
        let tls = connector.connect(name, tcp).await.context("TLS handshake")?;
        ensure!(tls.get_ref().1.alpn_protocol() == Some(alpn), "the edge did not agree to {protocol:?}");
        Ok(tls)
    }
}
