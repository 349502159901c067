//! Clients over TLS: one that writes any bytes, and one that speaks h2.

use std::convert::TryFrom;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::edge::Edge;

/// A TLS connection on which a test writes and reads bytes.
pub(crate) struct Raw(StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    /// Connects for `shop.example` with HTTP/1.1.
    pub(crate) fn connect(edge: &Edge) -> Raw {
        Raw::connect_to(edge, "shop.example")
    }

    /// `server_name`: sent as SNI, unless it is an IP address.
    pub(crate) fn connect_to(edge: &Edge, server_name: &str) -> Raw {
        Raw::connect_as(edge, server_name, b"http/1.1")
    }

    /// Connects for `shop.example` with h2; the frames are the test's to write.
    pub(crate) fn connect_h2(edge: &Edge) -> Raw {
        Raw::connect_as(edge, "shop.example", b"h2")
    }

    fn connect_as(edge: &Edge, server_name: &str, protocol: &[u8]) -> Raw {
        Raw::over(open(edge.address), edge, server_name, protocol)
    }

    /// Connects after `pieces`, each written by itself.
    pub(crate) fn connect_after(edge: &Edge, pieces: &[&[u8]]) -> Raw {
        let mut stream = open(edge.address);
        for piece in pieces {
            stream.write_all(piece).unwrap();
        }
        Raw::over(stream, edge, "shop.example", b"http/1.1")
    }

    /// Connects to `address`, and trusts the certificate of `edge` alone.
    pub(crate) fn connect_at(address: SocketAddr, edge: &Edge, server_name: &str) -> Raw {
        Raw::connect_at_after(address, edge, server_name, b"")
    }

    /// The same after `before`.
    pub(crate) fn connect_at_after(address: SocketAddr, edge: &Edge, server_name: &str, before: &[u8]) -> Raw {
        let mut stream = open(address);
        stream.write_all(before).unwrap();
        Raw::over(stream, edge, server_name, b"http/1.1")
    }

    /// This end of it.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.0.sock.local_addr().unwrap()
    }

    fn over(stream: TcpStream, edge: &Edge, server_name: &str, protocol: &[u8]) -> Raw {
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let session = ClientConnection::new(config(edge, protocol), name).unwrap();
        Raw(StreamOwned::new(session, stream))
    }

    /// The certificate the edge showed; handshakes first where that has not happened.
    pub(crate) fn certificate(&mut self) -> Option<CertificateDer<'static>> {
        while self.0.conn.is_handshaking() {
            self.0.conn.complete_io(&mut self.0.sock).ok()?;
        }
        self.0.conn.peer_certificates()?.first().map(|certificate| certificate.clone().into_owned())
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The edge may close while a test is still writing; what it answered is what counts.
        let _ = self.0.write_all(bytes.as_ref()).and_then(|()| self.0.flush());
    }

    /// What comes next; nothing once the edge has closed.
    pub(crate) fn read_some(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 16 * 1024];
        match self.0.read(&mut piece) {
            Ok(read) => piece.truncate(read),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the edge neither spoke nor closed"),
            Err(_) => piece.clear(),
        }
        piece
    }

    /// Everything until the edge closes.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the edge did not close; so far: {}", String::from_utf8_lossy(&bytes))
                }
                // Closed without TLS' goodbye, or reset.
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until `end` has arrived.
    pub(crate) fn read_until(&mut self, end: impl AsRef<[u8]>) -> String {
        let end = end.as_ref();
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => bytes.push(byte[0]),
                other => panic!("{other:?} before {}; so far: {}", end.escape_ascii(), String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads a chunked body.
    pub(crate) fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = self.read_until("\r\n");
            let mut chunk = vec![0; usize::from_str_radix(size.trim_end(), 16).unwrap() + 2];
            self.0.read_exact(&mut chunk).unwrap();
            if chunk == b"\r\n" {
                return body;
            }
            body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    }

    /// Reads one response with `Content-Length`.
    pub(crate) fn read_response(&mut self) -> (String, Vec<u8>) {
        let head = self.read_until("\r\n\r\n");
        let length =
            head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The first bytes of a client that asks for `server_name`.
pub(crate) fn hello_for(server_name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// Writes `bytes` on a connection of its own; everything that comes back.
pub(crate) fn exchange(edge: &Edge, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(edge);
    raw.write(bytes);
    raw.read_to_end()
}

/// The status of the first response in `text`.
pub(crate) fn status(text: &str) -> u16 {
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A GET on a connection of its own; status and whole answer.
pub(crate) fn get(edge: &Edge, path: &str) -> (u16, String) {
    let answer = exchange(edge, format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"));
    (status(&answer), answer)
}

/// Sends requests one after the other on one h2 connection; status, headers, body of each.
pub(crate) fn h2(edge: &Edge, requests: Vec<http::Request<Bytes>>) -> Vec<http::Response<Bytes>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config(edge, b"h2"));
        let name = ServerName::try_from("shop.example").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut responses = Vec::new();
        for request in requests {
            let response = sender.send_request(request.map(Full::new)).await.unwrap();
            let (head, body) = response.into_parts();
            responses.push(http::Response::from_parts(head, body.collect().await.unwrap().to_bytes()));
        }
        responses
    })
}

pub(crate) fn config(edge: &Edge, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(edge.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}
