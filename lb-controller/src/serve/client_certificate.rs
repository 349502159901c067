//! The certificate that a client proved to hold.

use std::sync::atomic::AtomicU64;

use lb_policy::{CertificateFacts, UnixSeconds};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// One whose key the client showed to hold in the handshake.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Distinguished name, such as `CN=laptop-7, O=Corp`.
    pub subject: String,
    pub issuer: String,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
    /// Subject alternative names: DNS names, e-mail addresses and URIs.
    pub names: Vec<String>,
    /// Of the fingerprint, in lower case.
    digits: String,
    common_name: Option<String>,
    emails: Vec<String>,
    /// With what leads to its authority, the certificate itself first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) ends_at: UnixSeconds,
    /// The generation of authorities that vouched for it last; none has the number 0.
    pub(super) trusted_in: AtomicU64,
}

/// More are not worth a look.
const MOST_NAMES: usize = 32;

impl ClientCertificate {
    /// Reads the first of `chain`. `None`: it is no certificate that can be read.
    pub fn read(chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let der = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let general: Vec<_> =
            alternative.iter().flat_map(|names| &names.value.general_names).take(MOST_NAMES).collect();
        let email = |name: &&GeneralName<'_>| match name {
            GeneralName::RFC822Name(email) => Some((*email).to_owned()),
            _ => None,
        };
        let text = |name: &&GeneralName<'_>| match name {
            GeneralName::RFC822Name(text) | GeneralName::DNSName(text) | GeneralName::URI(text) => {
                Some((*text).to_owned())
            }
            _ => None,
        };
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(ClientCertificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            fingerprint: crate::identity::sha256(der),
            digits: crate::identity::sha256(der).iter().map(|byte| format!("{byte:02x}")).collect(),
            names: general.iter().filter_map(text).collect(),
            common_name: common_name.map(str::to_owned),
            emails: general.iter().filter_map(email).collect(),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            ends_at: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
            trusted_in: AtomicU64::new(0),
        })
    }

    /// The certificate as rules see it.
    pub fn facts(&self) -> CertificateFacts<'_> {
        CertificateFacts { subject: &self.subject, issuer: &self.issuer, fingerprint: &self.digits, names: &self.names }
    }

    /// The user it is for, by what the configuration goes by.
    pub fn user(&self, names: crate::config::CertificateUser) -> Option<&str> {
        use crate::config::CertificateUser;
        match names {
            CertificateUser::CommonName => self.common_name.as_deref(),
            // Two addresses are two users.
            CertificateUser::Email => match self.emails.as_slice() {
                [only] => Some(only),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;
    use crate::config::CertificateUser;

    #[test]
    fn a_certificate_is_read_as_rules_see_it() {
        let mut params = CertificateParams::new(vec!["laptop-7.corp.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "carol");
        params.distinguished_name.push(DnType::OrganizationName, "Corp");
        params.subject_alt_names.push(SanType::Rfc822Name("carol@corp.example".try_into().unwrap()));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        let read = ClientCertificate::read(std::slice::from_ref(&der)).unwrap();
        assert!(read.subject.contains("CN=carol") && read.subject.contains("O=Corp"), "{}", read.subject);
        assert_eq!(read.names, ["laptop-7.corp.example", "carol@corp.example"]);
        assert_eq!(read.user(CertificateUser::CommonName), Some("carol"));
        assert_eq!(read.user(CertificateUser::Email), Some("carol@corp.example"));
        assert_eq!(read.fingerprint, crate::identity::sha256(&der));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            ClientCertificate::read(&[CertificateDer::from(bytes)]);
        }
    }
}
