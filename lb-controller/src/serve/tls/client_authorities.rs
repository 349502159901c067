//! Whose client certificates are taken, swapped without dropping a connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lb_policy::UnixSeconds;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::TlsError;
use super::files;
use crate::serve::client_certificate::ClientCertificate;

/// The authorities in force. A certificate is asked for, and never demanded: which requests need one is the routes'
/// business.
#[derive(Debug, Default)]
pub struct ClientAuthorities {
    verifier: ArcSwapOption<Verifier>,
    /// Counts the changes.
    generation: AtomicU64,
}

#[derive(Debug)]
struct Verifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of the file.
    fingerprint: [u8; 32],
}

impl ClientAuthorities {
    /// Reads the authorities of `file`; without one nobody is asked for a certificate any more.
    pub fn load(&self, file: Option<&Path>) -> Result<(), TlsError> {
        let verifier = file.map(verifier).transpose()?;
        self.verifier.store(verifier.map(Arc::new));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Whether the certificate is good now. A TLS session that was resumed brings one along that was verified when it
    /// began, and a connection may live long: its authority may be trusted no more since.
    pub fn trusts(&self, certificate: &ClientCertificate, now: UnixSeconds) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        if now > certificate.ends_at {
            return false;
        }
        if certificate.trusted_in.load(Ordering::Acquire) == generation {
            return true;
        }
        let Some((own, intermediates)) = certificate.chain.split_first() else { return false };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verifier = self.verifier.load();
        let is_good = verifier
            .as_ref()
            .is_some_and(|current| current.verifier.verify_client_cert(own, intermediates, time).is_ok());
        if is_good {
            certificate.trusted_in.store(generation, Ordering::Release);
        }
        is_good
    }

    /// Of the authorities; all zeros while nobody is asked.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.verifier.load().as_ref().map_or([0; 32], |current| current.fingerprint)
    }

    fn current(&self) -> Result<Arc<Verifier>, Error> {
        self.verifier.load_full().ok_or_else(|| Error::General("no client certificate is asked for".to_owned()))
    }
}

/// Reads the authorities of a file.
fn verifier(file: &Path) -> Result<Verifier, TlsError> {
    let bad = |reason: String| TlsError::BadCertificate { path: file.to_owned(), reason };
    let pem = files::read(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificateIn { path: file.to_owned() });
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
    let verifier = builder.build().map_err(|error| bad(error.to_string()))?;
    Ok(Verifier { verifier, fingerprint: crate::identity::sha256(&pem) })
}

impl ClientCertVerifier for ClientAuthorities {
    fn offer_client_auth(&self) -> bool {
        self.verifier.load().is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: clients then offer what they have. The list would tell strangers whom this host trusts.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current()?.verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current()?.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current()?.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
