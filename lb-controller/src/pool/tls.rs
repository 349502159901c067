//! TLS with one backend: who it must prove to be, and what it is shown.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Alpn, BackendTls, TlsVersion};

/// Sessions of one backend that wait to be resumed.
const SESSIONS: usize = 32;

/// What all backends of a pool have in common.
#[derive(Debug)]
pub(super) struct Terms {
    config: ClientConfig,
    server_name: Option<ServerName<'static>>,
}

/// All that is needed for handshakes with one backend. Sessions are resumed with it alone: a ticket of another one of the
/// same name would be of no use there.
#[derive(Clone, Debug)]
pub struct Handshakes {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// What came of a handshake; for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    Resumed,
    /// The backend did not prove who it is.
    Untrusted,
    /// It broke off otherwise.
    Failed,
}

impl Handshake {
    /// In order of their place among a backend's counts.
    pub const ALL: [Handshake; 4] = [Handshake::Full, Handshake::Resumed, Handshake::Untrusted, Handshake::Failed];

    /// In metrics.
    pub fn name(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
            Handshake::Untrusted => "untrusted",
            Handshake::Failed => "failed",
        }
    }

    /// Of a handshake that ended with this error.
    pub fn of_error(error: &io::Error) -> Handshake {
        let cause = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
        match cause {
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => Handshake::Untrusted,
            _ => Handshake::Failed,
        }
    }
}

impl Terms {
    /// `protocols`: what is offered, the favourite first.
    pub(super) fn of(tls: &BackendTls, protocols: &[Alpn]) -> Terms {
        let versions: &[_] = match tls.minimum_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let mut provider = aws_lc_rs::default_provider();
        // As with clients: AES-256 brings SHA-384 along, which is a fifth of a handshake.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).expect("the provider has suites for both versions");
        let builder = match tls.accepts_any_certificate {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
            false => builder.with_root_certificates(roots(&tls.authorities)),
        };
        let mut config = match &tls.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.0.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.name().into()).collect();
        Terms { config, server_name: tls.server_name.clone() }
    }

    /// With the backend at `address`.
    pub(super) fn with(&self, address: IpAddr) -> Handshakes {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let name = self.server_name.clone().unwrap_or_else(|| ServerName::from(address.to_canonical()));
        Handshakes { config: Arc::new(config), name }
    }
}

impl Handshakes {
    /// With a backend at `address` that no pool has, or in another way than its pool has it.
    pub fn with(tls: &BackendTls, protocols: &[Alpn], address: IpAddr) -> Handshakes {
        Terms::of(tls, protocols).with(address)
    }

    /// The same where nothing but HTTP/1.1 will do.
    pub fn http1_only(&self) -> Handshakes {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![Alpn::Http1.name().into()];
        Handshakes { config: Arc::new(config), name: self.name.clone() }
    }

    /// Ready once the backend has proved who it is.
    ///
    /// Errors: those of the connection, and [`Error`] of TLS within.
    pub async fn over(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.config.clone()).connect(self.name.clone(), stream).await
    }
}

/// Those that are given, or of the host, which are read once.
fn roots(authorities: &[CertificateDer<'static>]) -> Arc<RootCertStore> {
    static OF_HOST: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let store = |certificates: Vec<CertificateDer<'static>>| {
        let mut roots = RootCertStore::empty();
        // Those that cannot be used vouch for nobody.
        roots.add_parsable_certificates(certificates);
        Arc::new(roots)
    };
    match authorities {
        [] => OF_HOST.get_or_init(|| store(rustls_native_certs::load_native_certs().certs)).clone(),
        authorities => store(authorities.to_vec()),
    }
}

/// Asks only that the backend has the key of whatever certificate it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match end_entity.is_empty() {
            true => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
            false => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
