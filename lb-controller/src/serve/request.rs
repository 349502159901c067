//! A request that passed the framing guard. It is parsed once: what the rules judge is what the backend receives.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::config::PagesConfig;
use crate::proxy_protocol::Ends;
use crate::serve::access_log::RequestId;
use crate::serve::body::ClientBody;
use crate::serve::client_certificate::ClientCertificate;
use crate::serve::http1::Tunnel;
use crate::serve::http1::body::Interim;
use crate::serve::mirror::BodyCopy;
use crate::serve::tls::TlsClass;
use crate::texts::Texts;

/// The other end of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The TCP peer, or whom it speaks for in a PROXY header.
    pub address: SocketAddr,
    /// The TCP peer speaks for others: what comes over this connection must write nothing to XDP.
    pub is_proxied: bool,
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

#[cfg(test)]
impl Peer {
    /// Who comes from `address` over HTTP/1.1, and shows nothing of itself.
    pub(crate) fn plain(address: SocketAddr) -> Peer {
        let local = SocketAddr::from(([198, 51, 100, 10], 443));
        Peer { address, is_proxied: false, local, server_name: None, h2: false, tls_class: None, certificate: None }
    }
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
    /// Of its client's connection, for backends that are told; `None`: nobody's.
    pub ends: Option<Ends>,
    /// Of the connection.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Of the connection.
    pub tls_class: Option<TlsClass>,
    /// How pages that answer it look, and in which languages they can speak.
    pub pages: Rc<Pages>,
    /// Present when the client asked for an upgrade (WebSocket): its connection once it has one, and the protocol's name.
    pub upgrade: Option<(ClientTunnel, String)>,
    pub onward: Onward,
}

/// The client's side of a tunnel, once a response has agreed to one.
#[derive(Debug)]
pub enum ClientTunnel {
    /// The whole connection.
    Http1(oneshot::Receiver<Tunnel>),
    /// A stream of it (RFC 8441).
    H2(OnUpgrade),
}

impl ClientTunnel {
    /// It comes once the response has been written.
    pub(crate) async fn opened(self) -> Result<Tunnel, Box<dyn std::error::Error>> {
        Ok(match self {
            ClientTunnel::Http1(tunnel) => tunnel.await?,
            ClientTunnel::H2(upgrade) => Tunnel { stream: Box::new(TokioIo::new(upgrade.await?)), early: Bytes::new() },
        })
    }
}

/// What its route has otherwise for its backend.
#[derive(Debug, Default)]
pub struct Onward {
    /// `Host`; `None`: the authority.
    pub host: Option<HeaderValue>,
    /// Copies the body while it passes.
    pub(crate) body_copy: Option<Rc<BodyCopy>>,
    /// For what its backend says before the response; `None`: the client takes nothing of the kind.
    pub(crate) interim: Option<Interim>,
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
    Streaming(ClientBody),
    /// Read whole, because a rule looks into it or it was parked. Exactly these bytes are forwarded.
    Whole(Bytes),
}

/// The configuration's, held by a count of one thread's own: one that all workers write to with every request would travel from
/// CPU to CPU.
#[derive(Debug, Default)]
pub struct Pages(Arc<PagesConfig>);

impl Pages {
    pub(super) fn of(pages: &Arc<PagesConfig>) -> Rc<Pages> {
        thread_local!(static LATEST: RefCell<Rc<Pages>> = RefCell::default());
        LATEST.with_borrow_mut(|latest| {
            if !Arc::ptr_eq(&latest.0, pages) {
                *latest = Rc::new(Pages(pages.clone()));
            }
            latest.clone()
        })
    }
}

impl Deref for Pages {
    type Target = PagesConfig;

    fn deref(&self) -> &PagesConfig {
        &self.0
    }
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
            ends: self.ends,
            certificate: self.certificate.clone(),
            tls_class: self.tls_class,
            pages: self.pages.clone(),
            upgrade: None,
            onward: Onward::default(),
        }
    }

    /// The body, to be read by somebody else; none is left.
    pub fn take_body(&mut self) -> InboundBody {
        std::mem::replace(&mut self.body, InboundBody::Whole(Bytes::new()))
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
