//! Certificates that are served.

use serde::{Deserialize, Serialize};

/// A certificate and where it comes from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// DNS names and IP addresses it is for; empty: it has not come yet.
    pub names: Vec<String>,
    /// Distinguished name.
    pub issuer: Option<String>,
    /// `ECDSA P-256`, `RSA 2048`.
    pub key_type: Option<String>,
    /// Unix seconds.
    pub not_before: Option<u64>,
    /// Unix seconds.
    pub not_after: Option<u64>,
    /// Whole days; negative once it is over.
    pub days_left: Option<i64>,
    /// `files`, `acme` or `self_signed`.
    pub source: String,
    pub file: String,
    /// Clients get it that name no server, or one that no certificate is for.
    pub is_default: bool,
    /// Why the files as they are now are not served, and an earlier certificate is.
    pub refused: Option<String>,
    /// How ordering it goes; `None`: it is not ordered.
    pub order: Option<CertificateOrder>,
}

/// What an edge does about a certificate that it orders itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOrder {
    /// Asked for, whether or not they are in the certificate yet.
    pub names: Vec<String>,
    /// Unix seconds.
    pub next_attempt_at: u64,
    /// In a row.
    pub failures: u32,
    pub last_error: Option<String>,
}
