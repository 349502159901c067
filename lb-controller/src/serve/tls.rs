//! TLS towards clients: which certificate for which server name, swapped without dropping a connection.

mod beginning;
mod certificates;
mod challenges;
mod class;
mod client_authorities;
mod files;
mod handshakes;
mod metrics;
mod outbox;
mod records;
mod self_signed;
mod stamp;
mod store;
mod stream;
mod tickets;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lb_policy::UnixSeconds;
use rustls::crypto::aws_lc_rs;
use rustls::server::ClientHello;
use rustls::{CipherSuite, ServerConfig};

pub(in crate::serve) use challenges::PROTOCOL as CHALLENGE_PROTOCOL;
pub use challenges::{Challenge, Challenges};
pub use class::TlsClass;
pub use client_authorities::ClientAuthorities;
pub use files::TlsError;
pub use handshakes::Handshakes;
pub use metrics::TlsCollector;
pub use self_signed::self_signed;
pub use store::{CertificateStore, Origin, Prepared, Wanted, prepare_first};
pub(in crate::serve) use stream::TlsStream;
pub use tickets::{TicketKeysError, Tickets};

use crate::clock::Clock;
use crate::config::{CertificateFiles, Config, TlsConfig, TlsVersion};
use crate::serve::plain_http::PlainHttp;

/// Tickets sent to a TLS 1.3 client, each computed and sealed during the handshake. Clients that may use one twice do so,
/// and browsers open one connection to a host that speaks h2.
const TICKETS: usize = 1;

/// How every worker speaks TLS. What is changed here holds for handshakes that begin from then on.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
    pub certificates: Arc<CertificateStore>,
    clients: Arc<ClientAuthorities>,
    tickets: Arc<Tickets>,
    pub challenges: Arc<Challenges>,
    pub plain_http: PlainHttp,
    pub(in crate::serve) handshakes: Handshakes,
}

/// Why TLS cannot be spoken as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    #[error(transparent)]
    TicketKeys(#[from] TicketKeysError),
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

impl Tls {
    /// `state_dir`: where the keys of tickets are kept that no file is configured for.
    pub fn new(
        config: &TlsConfig,
        state_dir: &Path,
        certificates: Arc<CertificateStore>,
        clients: Arc<ClientAuthorities>,
        plain_http: PlainHttp,
        clock: Clock,
    ) -> Result<Arc<Tls>, TlsSetupError> {
        let tickets = Tickets::open(config, state_dir, clients.clone(), clock)?;
        let current = ArcSwap::new(server_config(config, &certificates, &clients, &tickets)?);
        let (challenges, handshakes) = (Arc::default(), Handshakes::default());
        Ok(Arc::new(Tls { current, certificates, clients, tickets, challenges, plain_http, handshakes }))
    }

    /// Puts another section `tls` in force. One that cannot be changes nothing.
    pub fn apply(&self, config: &TlsConfig, state_dir: &Path) -> Result<(), TlsSetupError> {
        let next = server_config(config, &self.certificates, &self.clients, &self.tickets)?;
        self.tickets.apply(config, state_dir)?;
        self.current.store(next);
        Ok(())
    }

    /// Takes in what changed in files and what is due by the clock. It reads files: to be called about once a second, on no
    /// worker.
    pub fn look(&self) {
        self.certificates.look();
        self.tickets.look();
    }

    /// How to go on with a client that began like this.
    pub(in crate::serve) fn answer_to(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let is_challenge = hello.alpn().is_some_and(|mut offered| offered.any(|one| one == CHALLENGE_PROTOCOL));
        // Where there is nothing to answer no protocol is shared, and the handshake ends with that alert.
        let answer = is_challenge.then(|| self.challenges.in_tls(hello.server_name())).flatten();
        answer.unwrap_or_else(|| self.current.load_full())
    }
}

/// Resumption is by tickets alone: a table of sessions would be memory that clients can fill. No early data, so no
/// request can be replayed (RFC 8470).
///
/// Keys are exchanged as the client likes best of what both know; rustls' own list has X25519MLKEM768, which future quantum
/// computers do not undo, beside X25519 and the NIST curves.
fn server_config(
    config: &TlsConfig,
    certificates: &Arc<CertificateStore>,
    clients: &Arc<ClientAuthorities>,
    tickets: &Arc<Tickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[_] = match config.minimum_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let mut provider = aws_lc_rs::default_provider();
    // Most clients name AES-256 first, but nobody breaks AES-128, and the SHA-384 that comes with the former is a fifth of
    // a handshake. The sort is stable: all else stays as it was.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients.clone())
        .with_cert_resolver(certificates.clone());
    server.alpn_protocols = config.alpn.iter().map(|protocol| protocol.name().into()).collect();
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.ticketer = tickets.clone();
    server.ignore_client_order = true;
    server.send_tls13_tickets = TICKETS;
    Ok(Arc::new(server))
}

/// What a file of a certificate and its key says.
#[derive(Debug)]
pub struct Inspected {
    pub names: BTreeSet<String>,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
}

/// Reads a file that holds both a certificate and its key.
pub fn inspect(file: &Path) -> Result<Inspected, TlsError> {
    let files = CertificateFiles { certificate: file.to_owned(), key: file.to_owned(), place: None };
    let files::Loaded { names, not_before, not_after, .. } = files::load(&files)?;
    Ok(Inspected { names: names.into_iter().collect(), not_before, not_after })
}

/// What is wrong with certificates that a configuration names, each with its files.
pub fn check(files: &[CertificateFiles], now: UnixSeconds) -> Vec<(&CertificateFiles, TlsError)> {
    let wrong = |files: &CertificateFiles| {
        files::load(files).and_then(|loaded| loaded.check_time(&files.certificate, now)).err()
    };
    files.iter().filter_map(|files| Some((files, wrong(files)?))).collect()
}

/// A name is either served here or passed through. Certificates of many names by a `*` say nothing of one.
///
/// Errors: a file of a certificate is for a name that is passed through.
pub fn check_not_passed_through(config: &Config) -> Result<(), TlsError> {
    let mut passed = config.pass_through.iter().flat_map(|through| &through.server_names).peekable();
    if passed.peek().is_none() {
        return Ok(());
    }
    let passed: Vec<_> = passed.collect();
    for files in &config.certificates {
        // What cannot be read is told where it is to be served.
        let names = files::load(files).map(|loaded| loaded.names).unwrap_or_default();
        if let Some(name) = names.into_iter().find(|name| passed.iter().any(|passed| passed.hold(name))) {
            return Err(TlsError::PassedThrough { file: files.certificate.clone(), name });
        }
    }
    Ok(())
}

/// Whether the secrets of tickets that a configuration names can be used; makes none.
pub fn check_ticket_keys(config: &TlsConfig) -> Result<(), TicketKeysError> {
    tickets::check(config)
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::tickets::no_bytes_are_a_ticket_or_a_session;
}

#[cfg(test)]
mod tests;
