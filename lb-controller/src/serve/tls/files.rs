//! Certificate and key files, with an error that names the file and the remedy for all that can be wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::CertificateFiles;

/// What is wrong with a certificate or key file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}; check the path and that the controller's user may read it")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no certificate; expected PEM with BEGIN CERTIFICATE, the server's own first, then its chain")]
    NoCertificateIn { path: PathBuf },
    #[error("{path} holds no private key; expected PEM with BEGIN PRIVATE KEY, without a passphrase")]
    NoKeyIn { path: PathBuf },
    #[error("{path} is no valid PEM: {reason}; export it anew")]
    BadPem { path: PathBuf, reason: String },
    #[error("the certificate in {path} cannot be read: {reason}; export it anew")]
    BadCertificate { path: PathBuf, reason: String },
    #[error("the key in {path} cannot be used: {reason}; use an ECDSA P-256, Ed25519 or RSA key of 2048 bits or more")]
    BadKey { path: PathBuf, reason: String },
    #[error("the key in {key} does not belong to the certificate in {certificate}; give the key it was issued for")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate in {path} expired on {when}; renew it")]
    Expired { path: PathBuf, when: String },
    #[error("the certificate in {path} is not valid before {when}; check this machine's clock, or wait")]
    NotYetValid { path: PathBuf, when: String },
    #[error(
        "the certificate in {path} names no host (subjectAltName); browsers refuse it: have it issued with DNS names"
    )]
    NoNames { path: PathBuf },
    #[error("no certificate is configured")]
    NoCertificate,
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    #[error("cannot write {path}: {source}; check that state_dir is on a writable disk with room")]
    Unwritable { path: PathBuf, source: std::io::Error },
}

/// A certificate with its key, and the names it is for.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Lower case; `*.example.com` for a wildcard. IP addresses in text form.
    pub(super) names: Vec<String>,
}

/// Reads and checks one pair of files.
pub(super) fn load(files: &CertificateFiles) -> Result<Loaded, TlsError> {
    let path = &files.certificate;
    let chain = certificates(path)?;
    let key = private_key(&files.key)?;
    let leaf = chain.first().ok_or_else(|| TlsError::NoCertificateIn { path: path.clone() })?;
    let names = check_certificate(path, leaf)?;
    let signer = aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| TlsError::BadKey { path: files.key.clone(), reason: error.to_string() })?;
    let key = CertifiedKey::new(chain, signer);
    // An unknown kind of key would be reported as used, so only a proven difference is an error here.
    match key.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::Mismatch { certificate: path.clone(), key: files.key.clone() })
        }
        _ => Ok(Loaded { key: Arc::new(key), names }),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| bad_pem(path, error))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKeyIn { path: path.to_owned() },
        error => bad_pem(path, error),
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn bad_pem(path: &Path, error: pem::Error) -> TlsError {
    TlsError::BadPem { path: path.to_owned(), reason: error.to_string() }
}

/// Checks that the certificate is valid now; returns its names.
fn check_certificate(path: &Path, leaf: &CertificateDer<'_>) -> Result<Vec<String>, TlsError> {
    let bad = |reason: String| TlsError::BadCertificate { path: path.to_owned(), reason };
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| bad(error.to_string()))?;
    let (validity, now) = (certificate.validity(), x509_parser::time::ASN1Time::now());
    if now > validity.not_after {
        return Err(TlsError::Expired { path: path.to_owned(), when: validity.not_after.to_string() });
    }
    if now < validity.not_before {
        return Err(TlsError::NotYetValid { path: path.to_owned(), when: validity.not_before.to_string() });
    }
    let names = certificate.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
    let names: Vec<String> = names.into_iter().flat_map(|names| &names.value.general_names).filter_map(name).collect();
    if names.is_empty() { Err(TlsError::NoNames { path: path.to_owned() }) } else { Ok(names) }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => Some(std::net::IpAddr::from(<[u8; 4]>::try_from(*octets).ok()?).to_string()),
            16 => Some(std::net::IpAddr::from(<[u8; 16]>::try_from(*octets).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}
