//! TLS towards backends, as configured.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, ServerName};

use super::TlsVersion;

/// How TLS is spoken with the backends of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// The name that a backend's certificate must be valid for, and that it is asked for (SNI); `None`: its address.
    pub server_name: Option<ServerName<'static>>,
    /// Whose certificates are good; empty: those of the host's trust store.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What this host shows of itself; `None`: nothing.
    pub identity: Option<ClientIdentity>,
    pub minimum_version: TlsVersion,
    /// Nobody looks at backends' certificates: whoever is on the way can take their place.
    pub accepts_any_certificate: bool,
}

impl Default for BackendTls {
    fn default() -> BackendTls {
        BackendTls {
            server_name: None,
            authorities: Vec::new(),
            identity: None,
            minimum_version: TlsVersion::V1_2,
            accepts_any_certificate: false,
        }
    }
}

/// A certificate of this host's own, with its chain and its key.
#[derive(Clone, Debug)]
pub struct ClientIdentity(pub Arc<CertifiedKey>);

/// The key belongs to the certificate, so it need not be compared.
impl PartialEq for ClientIdentity {
    fn eq(&self, other: &ClientIdentity) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for ClientIdentity {}
