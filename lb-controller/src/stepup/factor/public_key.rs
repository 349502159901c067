//! Public keys that people's authenticators and SSH agents hold, and signatures by them.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

/// A key as it is kept with an enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PublicKey {
    /// 32 bytes (RFC 8032).
    Ed25519(Vec<u8>),
    /// An uncompressed point of NIST P-256: 0x04, x, y (SEC 1 §2.3.3).
    P256(Vec<u8>),
    /// Big-endian, without leading zeros; 2048 to 8192 bits.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

/// How a signature is written down, and over which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Ed25519,
    /// ECDSA with SHA-256 as a DER sequence of r and s (WebAuthn).
    P256Der,
    /// ECDSA with SHA-256 as r and s of 32 bytes each.
    P256Fixed,
    RsaSha256,
    RsaSha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("the key is not of a kind, or of a size, that is taken here")]
    Key,
    #[error("the signature does not match")]
    Signature,
}

impl PublicKey {
    pub(super) fn ed25519(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::Ed25519(bytes.to_vec()).checked()
    }

    pub(super) fn p256(point: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::P256(point.to_vec()).checked()
    }

    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, KeyError> {
        let plain = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        PublicKey::Rsa { modulus: plain(modulus), exponent: plain(exponent) }.checked()
    }

    /// A key that cannot verify anything must not be enrolled: its owner would be locked out.
    fn checked(self) -> Result<PublicKey, KeyError> {
        let parsed = match &self {
            PublicKey::Ed25519(bytes) => ParsedPublicKey::new(&ED25519, bytes).is_ok(),
            PublicKey::P256(point) => {
                point.len() == 65 && ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok()
            }
            // Sizes are checked again with each signature; a modulus of zeros has none.
            PublicKey::Rsa { modulus, exponent } => {
                (256..=1024).contains(&modulus.len()) && (1..=8).contains(&exponent.len())
            }
        };
        if parsed { Ok(self) } else { Err(KeyError::Key) }
    }

    pub(super) fn verify(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let verified = match (self, scheme) {
            (PublicKey::Ed25519(key), Scheme::Ed25519) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            (PublicKey::P256(key), Scheme::P256Der) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(message, signature)
            }
            (PublicKey::P256(key), Scheme::P256Fixed) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            (PublicKey::Rsa { modulus, exponent }, Scheme::RsaSha256) => {
                PublicKeyComponents { n: modulus, e: exponent }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (PublicKey::Rsa { modulus, exponent }, Scheme::RsaSha512) => {
                PublicKeyComponents { n: modulus, e: exponent }.verify(&RSA_PKCS1_2048_8192_SHA512, message, signature)
            }
            // An algorithm swapped for another is no signature by this key.
            _ => return Err(KeyError::Key),
        };
        verified.map_err(|_| KeyError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn a_key_takes_its_own_signatures_in_its_own_scheme_alone() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::ed25519(pair.public_key().as_ref()).unwrap();
        let signature = pair.sign(b"message");
        let rows = [
            ("its own", Scheme::Ed25519, &b"message"[..], Ok(())),
            ("another message", Scheme::Ed25519, b"massage", Err(KeyError::Signature)),
            ("another algorithm", Scheme::P256Fixed, b"message", Err(KeyError::Key)),
            ("another algorithm still", Scheme::RsaSha256, b"message", Err(KeyError::Key)),
        ];
        for (name, scheme, message, outcome) in rows {
            assert_eq!(key.verify(scheme, message, signature.as_ref()), outcome, "{name}");
        }
    }

    #[test]
    fn keys_that_could_verify_nothing_are_refused() {
        assert_eq!(PublicKey::ed25519(&[1; 31]), Err(KeyError::Key));
        assert_eq!(PublicKey::p256(&[4; 65]), Err(KeyError::Key), "not on the curve");
        assert_eq!(PublicKey::p256(&[2; 33]), Err(KeyError::Key), "compressed");
        assert_eq!(PublicKey::rsa(&[1; 128], &[1, 0, 1]), Err(KeyError::Key), "1024 bits");
        assert_eq!(PublicKey::rsa(&[0; 512], &[1, 0, 1]), Err(KeyError::Key), "zero");
    }
}
