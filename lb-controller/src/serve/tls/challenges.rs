//! Answers to an authority that wants to see that a name is this host's: within TLS (RFC 8737) and over plain HTTP (RFC
//! 8555 §8.3). Whoever orders certificates says what they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

/// The protocol within TLS by which an authority asks.
pub(in crate::serve) const PROTOCOL: &[u8] = b"acme-tls/1";

const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// One question that an authority may ask at any moment, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Challenge {
    /// Lower-case host name.
    pub name: String,
    pub token: String,
    pub key_authorization: String,
}

/// Those of now.
#[derive(Debug, Default)]
pub struct Challenges {
    pending: ArcSwap<Pending>,
    answered_in_tls: AtomicU64,
    answered_in_http: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    list: Vec<Challenge>,
    by_name: HashMap<String, Arc<ServerConfig>>,
}

impl Challenges {
    /// Answers these from now on, and no others.
    pub fn put(&self, mut list: Vec<Challenge>) {
        list.sort();
        if self.pending.load().list == list {
            return;
        }
        let mut by_name = HashMap::new();
        for challenge in &list {
            match answer_in_tls(challenge) {
                Ok(answer) => drop(by_name.insert(challenge.name.clone(), answer)),
                Err(error) => tracing::error!(name = challenge.name, "no answer to tls-alpn-01: {error:#}"),
            }
        }
        self.pending.store(Arc::new(Pending { list, by_name }));
    }

    /// How to answer a client that speaks [`PROTOCOL`] and wants to know about this name.
    pub(super) fn in_tls(&self, server_name: Option<&str>) -> Option<Arc<ServerConfig>> {
        self.pending.load().by_name.get(&server_name?.to_ascii_lowercase()).cloned()
    }

    /// What to answer over HTTP.
    pub(in crate::serve) fn in_http(&self, host: &str, token: &str) -> Option<String> {
        let pending = self.pending.load();
        let found = pending.list.iter().find(|challenge| challenge.token == token && challenge.name == host)?;
        self.answered_in_http.fetch_add(1, Ordering::Relaxed);
        Some(found.key_authorization.clone())
    }

    /// The certificate was the answer: nothing follows it (RFC 8737 §3).
    pub(in crate::serve) async fn answered_in_tls<S>(&self, mut stream: S)
    where
        S: tokio::io::AsyncWrite + Unpin,
    {
        self.answered_in_tls.fetch_add(1, Ordering::Relaxed);
        let _ = tokio::time::timeout(CLOSED_WITHIN, stream.shutdown()).await;
    }

    /// How often each kind was answered.
    pub(super) fn answered(&self) -> [(&'static str, u64); 2] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("tls-alpn-01", count(&self.answered_in_tls)), ("http-01", count(&self.answered_in_http))]
    }
}

/// A self-signed certificate that holds the hash of the answer (RFC 8737 §3), and a handshake that speaks of nothing else.
fn answer_in_tls(challenge: &Challenge) -> anyhow::Result<Arc<ServerConfig>> {
    let hash = crate::identity::sha256(challenge.key_authorization.as_bytes());
    let mut params = CertificateParams::new(vec![challenge.name.clone()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&hash)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.der().clone();
    let key = aws_lc_rs::sign::any_ecdsa_type(&PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    // Not `with_single_cert`, which reads the certificate first and refuses the extension that the answer is.
    let answer = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(answer));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
