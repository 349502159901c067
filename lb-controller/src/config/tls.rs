//! TLS towards clients, as configured.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// A certificate and its key, each in PEM. Both may be one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Where the configuration names them, in bytes; `None`: it does not.
    pub place: Option<Range<usize>>,
}

/// The section `tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    pub minimum_version: TlsVersion,
    /// What is spoken, the favourite first.
    pub alpn: Vec<Alpn>,
    /// Secrets that a fleet's session tickets are sealed with; `None`: this host's own, in the state folder.
    pub ticket_keys: Option<PathBuf>,
    /// Keys change as often; a ticket is taken for at least as long, and at most for twice as long.
    pub ticket_lifetime: Duration,
}

impl Default for TlsConfig {
    fn default() -> TlsConfig {
        TlsConfig {
            minimum_version: TlsVersion::V1_2,
            alpn: vec![Alpn::H2, Alpn::Http1],
            ticket_keys: None,
            ticket_lifetime: Duration::from_secs(12 * 3600),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// A protocol within TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    H2,
    Http1,
}

impl Alpn {
    /// As registered with IANA.
    pub fn name(self) -> &'static str {
        match self {
            Alpn::H2 => "h2",
            Alpn::Http1 => "http/1.1",
        }
    }
}
