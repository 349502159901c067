//! An authority, and clients that it vouches for by certificates.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::client::OwnCertificate;

#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Result<Authority> {
        let mut params = CertificateParams::new(vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        Ok(Authority { params, key: KeyPair::generate()? })
    }

    /// Its own certificate, which edges trust.
    pub fn pem(&self) -> Result<String> {
        Ok(self.params.clone().self_signed(&self.key)?.pem())
    }

    /// A certificate for a client of this common name, after `change`.
    pub fn client(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Arc<OwnCertificate>> {
        let mut params = CertificateParams::new(vec![])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?.der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok(Arc::new(OwnCertificate { certificate, key }))
    }
}
