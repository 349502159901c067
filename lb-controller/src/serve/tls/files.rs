//! Certificate and key files, with an error that names the file and the remedy for all that can be wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lb_policy::UnixSeconds;
use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

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
    #[error(
        "the certificate in {file} is for {name}, which `pass_through` sends on unread; take it out of one of them"
    )]
    PassedThrough { file: PathBuf, name: String },
    #[error("no certificate is configured")]
    NoCertificate,
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    #[error("cannot write {path}: {source}; check that state_dir is on a writable disk with room")]
    Unwritable { path: PathBuf, source: std::io::Error },
}

impl TlsError {
    /// Only time makes it wrong: it could be served otherwise.
    pub fn is_about_time(&self) -> bool {
        matches!(self, TlsError::Expired { .. } | TlsError::NotYetValid { .. })
    }

    /// What is wrong, and what to do.
    pub fn with_remedy(&self) -> (String, String) {
        let text = self.to_string();
        match text.rsplit_once("; ") {
            Some((message, remedy)) => (message.to_owned(), remedy.to_owned()),
            None => (text, String::new()),
        }
    }
}

/// A certificate with its key, and what people want to know of it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Lower case; `*.example.com` for a wildcard. IP addresses in text form.
    pub(super) names: Vec<String>,
    /// Distinguished name of who issued it.
    pub(super) issuer: String,
    /// `ECDSA P-256`, `RSA 2048`.
    pub(super) key_type: String,
    pub(super) not_before: UnixSeconds,
    pub(super) not_after: UnixSeconds,
}

impl Loaded {
    /// Signing with RSA takes ten times as long.
    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Errors: the certificate in `path` is over at `now`, or its time has not come.
    pub(super) fn check_time(&self, path: &Path, now: UnixSeconds) -> Result<(), TlsError> {
        let when = |seconds: UnixSeconds| {
            let time = time::OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap_or(i64::MAX)).ok();
            time.map_or_else(|| seconds.to_string(), |time| time.to_string())
        };
        if now > self.not_after {
            return Err(TlsError::Expired { path: path.to_owned(), when: when(self.not_after) });
        }
        if now < self.not_before {
            return Err(TlsError::NotYetValid { path: path.to_owned(), when: when(self.not_before) });
        }
        Ok(())
    }
}

/// Reads one pair of files. Whether its time has come, or is over, is not looked at.
pub(super) fn load(files: &CertificateFiles) -> Result<Loaded, TlsError> {
    let path = &files.certificate;
    let chain = certificates(path)?;
    let key = private_key(&files.key)?;
    let leaf = chain.first().ok_or_else(|| TlsError::NoCertificateIn { path: path.clone() })?.clone();
    let bad = |reason: String| TlsError::BadCertificate { path: path.clone(), reason };
    let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| bad(error.to_string()))?;
    let names = names(&parsed).map_err(bad)?;
    if names.is_empty() {
        return Err(TlsError::NoNames { path: path.clone() });
    }
    let signer = aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| TlsError::BadKey { path: files.key.clone(), reason: error.to_string() })?;
    let key = CertifiedKey::new(chain, signer);
    // An unknown kind of key would be reported as used, so only a proven difference is an error here.
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = key.keys_match() {
        return Err(TlsError::Mismatch { certificate: path.clone(), key: files.key.clone() });
    }
    let seconds = |time: x509_parser::time::ASN1Time| UnixSeconds::try_from(time.timestamp()).unwrap_or(0);
    Ok(Loaded {
        key: Arc::new(key),
        names,
        issuer: parsed.issuer().to_string(),
        key_type: key_type(&parsed),
        not_before: seconds(parsed.validity().not_before),
        not_after: seconds(parsed.validity().not_after),
    })
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

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    Ok(names.into_iter().flat_map(|names| &names.value.general_names).filter_map(name).collect())
}

fn key_type(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", curve_bits(point.key_size())),
        _ => match certificate.public_key().algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// Points of P-521 have 528 bits with what rounds them up to bytes.
fn curve_bits(point_bits: usize) -> usize {
    if point_bits > 512 { 521 } else { point_bits }
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
