//! TLS towards clients: which certificate for which server name, swapped without dropping a connection.

mod class;
mod client_authorities;
mod files;
mod self_signed;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use class::TlsClass;
pub use client_authorities::ClientAuthorities;
pub use files::TlsError;
pub use self_signed::self_signed;

use crate::config::CertificateFiles;
use files::Loaded;

/// Tickets sent to a TLS 1.3 client. Each is computed and encrypted during the handshake; browsers that open several
/// connections at once use a second, nobody needs rustls' usual four.
const TICKETS: usize = 2;

/// The certificates of one configuration.
#[derive(Debug)]
pub struct Certificates {
    /// For clients that name no server (RFC 6066 §3: an IP literal is none), or one that no certificate covers.
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `example.com` for `*.example.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads every file; the first is the default. Where two cover one name, the earlier one serves it.
    ///
    /// Errors: all that is wrong with the files, not only the first; also when there is none.
    pub fn load(files: &[CertificateFiles]) -> Result<Certificates, Vec<TlsError>> {
        let (loaded, errors): (Vec<_>, Vec<_>) = files.iter().map(files::load).partition(Result::is_ok);
        if !errors.is_empty() {
            return Err(errors.into_iter().filter_map(Result::err).collect());
        }
        let loaded: Vec<Loaded> = loaded.into_iter().filter_map(Result::ok).collect();
        let Some(first) = loaded.first() else { return Err(vec![TlsError::NoCertificate]) };
        let mut certificates =
            Certificates { default: first.key.clone(), exact: HashMap::new(), wildcard: HashMap::new() };
        for Loaded { key, names } in loaded {
            for name in names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut certificates.wildcard, parent.to_owned()),
                    None => (&mut certificates.exact, name),
                };
                table.entry(name).or_insert_with(|| key.clone());
            }
        }
        Ok(certificates)
    }

    /// The certificate for a server name. A wildcard stands for exactly one label (RFC 9525 §6.3).
    fn for_name(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        let named = server_name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let found = named.and_then(|name| {
            self.exact.get(&name).or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))
        });
        found.unwrap_or(&self.default)
    }
}

/// The certificates in force. Handshakes that begin after [`CertificateSwitch::replace`] see the new ones.
#[derive(Debug)]
pub struct CertificateSwitch(ArcSwap<Certificates>);

impl CertificateSwitch {
    pub fn new(first: Certificates) -> Arc<CertificateSwitch> {
        Arc::new(CertificateSwitch(ArcSwap::from_pointee(first)))
    }

    pub fn replace(&self, next: Certificates) {
        self.0.store(Arc::new(next));
    }
}

impl ResolvesServerCert for CertificateSwitch {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().for_name(client_hello.server_name()).clone())
    }
}

/// TLS 1.3 and 1.2, h2 before HTTP/1.1.
///
/// Resumption is by tickets alone: a table of sessions would be memory that clients can fill. No early data, so no
/// request can be replayed (RFC 8470).
pub fn server_config(
    certificates: Arc<CertificateSwitch>,
    clients: Arc<ClientAuthorities>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
