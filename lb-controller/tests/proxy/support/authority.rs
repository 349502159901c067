//! An authority, and those that it vouches for.

use std::sync::Arc;

use lb_controller::config::ClientIdentity;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a name or an address, and its key.
    pub(crate) fn issue(&self, name: &str) -> Arc<CertifiedKey> {
        self.issue_changed(name, |_| ())
    }

    pub(crate) fn issue_changed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Arc<CertifiedKey> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let pair = CertifiedKey::from_der(vec![certificate], key, &aws_lc_rs::default_provider());
        Arc::new(pair.unwrap())
    }

    pub(crate) fn identity(&self, name: &str) -> ClientIdentity {
        ClientIdentity(self.issue(name))
    }
}
