//! A TLS client for what curl cannot show: both directions of one stream at once, and WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, channel::Channel};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::websocket::{self, Frame};

pub(crate) mod trust;

pub use trust::OwnCertificate;

/// Nothing in these exchanges takes long; what does is stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Client {
    pub edge: SocketAddr,
    /// `Cookie` header to send; empty for none.
    pub cookie: String,
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

    /// Upgrades to WebSocket, sends a message and waits for its echo.
    pub async fn websocket_echo(&self, path: &str) -> Result<()> {
        const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
        let request = self
            .request(path, Protocol::Http1)?
            .method("GET")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, KEY)
            .body(Empty::<Bytes>::new())?;
        let (mut send, connection) = http1::handshake(TokioIo::new(self.connect(Protocol::Http1).await?)).await?;
        tokio::spawn(connection.with_upgrades());
        let response = timeout(DEADLINE, send.send_request(request)).await??;
        ensure!(response.status() == 101, "the upgrade was answered {}", response.status());
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).context("no Sec-WebSocket-Accept")?;
        ensure!(accept == &websocket::accept_value(KEY), "wrong Sec-WebSocket-Accept {accept:?}");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await?);
        let message = Frame { opcode: websocket::TEXT, payload: b"through the edge and back".to_vec() };
        websocket::write(&mut stream, &message, Some([0x5a, 1, 2, 3])).await?;
        let echo = timeout(DEADLINE, websocket::read(&mut stream)).await.context("no echo")??;
        ensure!(echo.as_ref() == Some(&message), "the echo differs: {echo:?}");
        Ok(())
    }

    fn request(&self, path: &str, protocol: Protocol) -> Result<http::request::Builder> {
        let authority = self.edge.to_string();
        let authority = authority.strip_suffix(":443").unwrap_or(&authority);
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

    async fn connect(&self, protocol: Protocol) -> Result<TlsStream<TcpStream>> {
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        let connector = TlsConnector::from(Arc::new(trust::any_certificate(alpn)?));
        let tcp = timeout(DEADLINE, TcpStream::connect(self.edge)).await;
        let tcp = tcp.with_context(|| format!("no connection to {} within {DEADLINE:?}", self.edge))??;
        let tls = connector.connect(ServerName::from(self.edge.ip()), tcp).await.context("TLS handshake")?;
        ensure!(tls.get_ref().1.alpn_protocol() == Some(alpn), "the edge did not agree to {protocol:?}");
        Ok(tls)
    }
}
