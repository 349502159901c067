//! A backend behind TLS, that tells of each handshake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::authority::Authority;

/// What a connection began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Handshake {
        server_name: Option<String>,
        is_resumed: bool,
        shows_certificate: bool,
    },
    /// The client broke it off, or began in plain.
    None(String),
}

/// Answers `hello` to every request. Its threads end with the test.
pub(crate) struct TlsOrigin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// How it answers one request; `false` closes the connection without TLS' goodbye.
type Script = dyn Fn(&mut Stream) -> bool + Send + Sync;

/// What it may have otherwise.
pub(crate) struct Terms<'a> {
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    /// Whose certificates clients must show.
    pub(crate) clients: Option<&'a Authority>,
    pub(crate) script: Arc<Script>,
}

impl Default for Terms<'_> {
    fn default() -> Self {
        let hello = |stream: &mut Stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_ok() && stream.flush().is_ok()
        };
        Terms { versions: rustls::ALL_VERSIONS, clients: None, script: Arc::new(hello) }
    }
}

impl TlsOrigin {
    pub(crate) fn start(certificate: Arc<CertifiedKey>) -> TlsOrigin {
        TlsOrigin::with(certificate, Terms::default())
    }

    pub(crate) fn with(certificate: Arc<CertifiedKey>, terms: Terms<'_>) -> TlsOrigin {
        let config = server_config(certificate, &terms);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin =
            TlsOrigin { address: listener.local_addr().unwrap(), seen: Arc::default(), requests: Arc::default() };
        let (seen, requests, script) = (origin.seen.clone(), origin.requests.clone(), terms.script);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, script) = (config.clone(), script.clone());
                let (seen, requests) = (seen.clone(), requests.clone());
                std::thread::spawn(move || serve(stream, config, &seen, (&requests, &*script)));
            }
        });
        origin
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

pub(crate) fn server_config(certificate: Arc<CertifiedKey>, terms: &Terms<'_>) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(terms.versions).unwrap();
    let builder = match terms.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Mutex<Vec<Seen>>,
    (requests, script): (&Mutex<Vec<String>>, &Script),
) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    while stream.conn.is_handshaking() {
        if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
            seen.lock().unwrap().push(Seen::None(error.to_string()));
            return;
        }
    }
    seen.lock().unwrap().push(Seen::Handshake {
        server_name: stream.conn.server_name().map(str::to_owned),
        is_resumed: stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        shows_certificate: stream.conn.peer_certificates().is_some(),
    });
    while let Some(head) = read_head(&mut stream) {
        requests.lock().unwrap().push(head);
        if !script(&mut stream) {
            return;
        }
    }
}

fn read_head(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
