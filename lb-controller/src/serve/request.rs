//! A request that passed the framing guard. It is parsed once: what the rules judge is what the backend receives.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::body::Incoming;

use crate::config::PagesConfig;
use crate::serve::access_log::RequestId;
use crate::serve::client_certificate::ClientCertificate;
use crate::serve::tls::TlsClass;
use crate::texts::Texts;

/// The other end of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The TCP peer.
    pub address: SocketAddr,
    /// The VIP and port that the client connected to.
    pub local: SocketAddr,
    /// Server name of the TLS handshake, lower-case.
    pub server_name: Option<String>,
    /// The connection is h2.
    pub h2: bool,
    /// What the handshake says of the client's software.
    pub tls_class: Option<TlsClass>,
    /// What the client proved to hold in the handshake, verified by the configured authorities.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// One request after the guard.
#[derive(Debug)]
pub struct Inbound {
    /// As the access log and the answer name it; `None` in tests.
    pub id: Option<RequestId>,
    pub method: Method,
    /// `host[:port]` as the client named it; the port is kept for redirects and `Forwarded`.
    pub authority: String,
    /// Lower-case host without port or trailing dot: what rules and routes see.
    pub host: String,
    /// Decoded once and canonical: what rules and routes see.
    pub path: String,
    /// Path and query as forwarded: dot segments and empty segments resolved, each escape written one way.
    pub target: String,
    /// Without hop-by-hop headers, and without the identity headers that clients forge.
    pub headers: HeaderMap,
    pub body: InboundBody,
    pub client: Client,
    /// Of the connection.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Of the connection.
    pub tls_class: Option<TlsClass>,
    /// How pages that answer it look, and in which languages they can speak.
    pub pages: Arc<PagesConfig>,
    /// Present when the client asked for an upgrade (WebSocket): hyper's handle and the protocol's name.
    pub upgrade: Option<(hyper::upgrade::OnUpgrade, String)>,
}

/// Who sent it, as far as it can be known.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The TCP peer, or what a trusted proxy says of the client.
    pub address: IpAddr,
    /// The peer is a trusted proxy: what it carries must write nothing to XDP.
    pub through_trusted_proxy: bool,
}

/// The body on its way in.
#[derive(Debug)]
pub enum InboundBody {
    /// Not read yet.
    Streaming(Incoming),
    /// Read whole, because a rule looks into it or it was parked. Exactly these bytes are forwarded.
    Whole(Bytes),
}

impl Inbound {
    /// A second one of the same bytes. `None` while the body still streams, or the client waits for an upgrade.
    pub fn copy(&self) -> Option<Inbound> {
        let InboundBody::Whole(body) = &self.body else { return None };
        self.upgrade.is_none().then(|| Inbound { body: InboundBody::Whole(body.clone()), ..self.head() })
    }

    /// A second one without the body, to be judged and not to be sent.
    pub fn head(&self) -> Inbound {
        Inbound {
            id: self.id,
            method: self.method.clone(),
            authority: self.authority.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: InboundBody::Whole(Bytes::new()),
            client: self.client,
            certificate: self.certificate.clone(),
            tls_class: self.tls_class,
            pages: self.pages.clone(),
            upgrade: None,
        }
    }

    /// The texts in the language that its sender reads best.
    pub fn texts(&self) -> &Texts {
        let accepted = self.headers.get(http::header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        self.pages.texts.best_for(accepted)
    }

    pub fn raw_query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
}
