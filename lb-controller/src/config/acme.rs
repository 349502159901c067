//! Certificates that are ordered from an authority (RFC 8555), as configured.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// The section `acme`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// `https://…`, where the authority says what else it can be asked.
    pub directory: String,
    /// PEM file of the authorities that vouch for the directory's own certificate; `None`: those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// E-mail addresses.
    pub contact: Vec<String>,
    /// In the order in which they are tried.
    pub challenges: Vec<ChallengeKind>,
    pub certificates: Vec<OrderedCertificate>,
    /// Before a certificate's end; `None`: a third of its lifetime.
    pub renew_before: Option<Duration>,
    /// A folder that a fleet shares; `None`: in the state folder.
    pub storage: Option<PathBuf>,
    pub external_account: Option<ExternalAccount>,
}

/// One certificate to order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedCertificate {
    /// Lower-case host names.
    pub names: Vec<String>,
    /// Where the configuration names them, in bytes.
    pub place: Range<usize>,
}

/// How a host shows that a name is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// Within TLS, on port 443 (RFC 8737).
    TlsAlpn01,
    /// Over plain HTTP, on port 80 (RFC 8555 §8.3).
    Http01,
}

impl ChallengeKind {
    /// As RFC 8555 names it.
    pub fn name(self) -> &'static str {
        match self {
            ChallengeKind::TlsAlpn01 => "tls-alpn-01",
            ChallengeKind::Http01 => "http-01",
        }
    }
}

/// An account that the authority knows its customers by (RFC 8555 §7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: String,
    /// Base64url, as the authority gives it.
    pub hmac_key: Secret,
}

impl AcmeConfig {
    /// Where certificates, the account and challenges are kept.
    pub fn folder(&self, state_dir: &std::path::Path) -> PathBuf {
        self.storage.clone().unwrap_or_else(|| state_dir.join("acme"))
    }
}
