//! Certificates for servers, and their files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;

/// A self-signed certificate, and where it lies.
#[derive(Debug)]
pub struct Issued {
    pub der: CertificateDer<'static>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Writes a certificate for `names` and its key to `folder`, each renamed over what was there, the certificate first.
pub fn issue(
    folder: &Path,
    file: &str,
    kind: &'static SignatureAlgorithm,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> Result<Issued> {
    let key = KeyPair::generate_for(kind)?;
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    change(&mut params);
    let certificate = params.self_signed(&key)?;
    let issued = Issued {
        der: certificate.der().clone(),
        certificate: folder.join(format!("{file}.crt")),
        key: folder.join(format!("{file}.key")),
    };
    put(&issued.certificate, &certificate.pem())?;
    put(&issued.key, &key.serialize_pem())?;
    Ok(issued)
}

/// Writes a file aside and renames it over.
pub fn put(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("aside");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, path)?)
}

impl Issued {
    /// As a line of the section `certificates`.
    pub fn line(&self) -> String {
        format!("  - {{certificate: {}, key: {}}}\n", self.certificate.display(), self.key.display())
    }
}
