//! Proving to a provider that this is the client it knows, by a key instead of a secret: `private_key_jwt` (OpenID Connect
//! Core §9, RFC 7523 §2.2). The provider has the public key alone, and so nothing that could be stolen from it.

use anyhow::Context as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_policy::UnixSeconds;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::config::ClientKeyConfig;

pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// One is used at once.
const LIFETIME_SECONDS: u64 = 60;

#[derive(Debug)]
pub(super) struct ClientKey {
    pair: Pair,
    /// As the provider names it; `None`: it knows one key of ours.
    id: Option<String>,
}

#[derive(Debug)]
enum Pair {
    Es256(EcdsaKeyPair),
    Es384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rs256(Box<RsaKeyPair>),
}

impl ClientKey {
    /// Errors: it is no private key of a kind that is signed with here.
    pub(super) fn read(config: &ClientKeyConfig) -> anyhow::Result<ClientKey> {
        let advice = "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one";
        let der = PrivatePkcs8KeyDer::from_pem_slice(config.pem.reveal().as_bytes()).map_err(|_| {
            anyhow::anyhow!("{} holds no private key in PEM (PKCS #8); {advice}", config.file.display())
        })?;
        let der = der.secret_pkcs8_der();
        let ecdsa = |curve| EcdsaKeyPair::from_pkcs8(curve, der).ok();
        let pair = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map(Pair::Es256)
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING).map(Pair::Es384))
            .or_else(|| Ed25519KeyPair::from_pkcs8(der).ok().map(Pair::Ed25519))
            .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(|pair| Pair::Rs256(Box::new(pair))));
        let what =
            || format!("{} holds a key of another kind than P-256, P-384, Ed25519 and RSA", config.file.display());
        Ok(ClientKey { pair: pair.with_context(what)?, id: config.id.clone() })
    }

    /// A JWT that says who asks, for `audience` alone and once.
    pub(super) fn assertion(&self, client_id: &str, audience: &str, now: UnixSeconds) -> String {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).expect("the system's random generator answers");
        let mut header = json!({"typ": "JWT", "alg": self.pair.algorithm()});
        if let Some(id) = &self.id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": audience, "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now, "exp": now + LIFETIME_SECONDS,
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.pair.sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Pair {
    fn algorithm(&self) -> &'static str {
        match self {
            Pair::Es256(_) => "ES256",
            Pair::Es384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Rs256(_) => "RS256",
        }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        const SIGNS: &str = "a key that was read signs";
        match self {
            Pair::Es256(pair) | Pair::Es384(pair) => {
                pair.sign(&SystemRandom::new(), text).expect(SIGNS).as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect(SIGNS);
                signature
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, EncodingKey};
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
    };

    use super::super::jwt::Unverified;
    use super::super::key_set::usable_key;
    use super::*;
    use crate::config::Secret;

    fn config(pem: &str) -> ClientKeyConfig {
        ClientKeyConfig { file: "client.pem".into(), pem: Secret::new(pem.to_owned()), id: Some("k1".to_owned()) }
    }

    #[test]
    fn a_key_of_each_kind_signs_what_others_verify() {
        let rows: &[(&str, &'static SignatureAlgorithm, Algorithm)] = &[
            ("ES256", &PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            ("ES384", &PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
            ("EdDSA", &PKCS_ED25519, Algorithm::EdDSA),
            ("RS256", &PKCS_RSA_SHA256, Algorithm::RS256),
        ];
        for (name, kind, algorithm) in rows {
            let pair = KeyPair::generate_for(kind).unwrap();
            let pem = pair.serialize_pem();
            let assertion = ClientKey::read(&config(&pem)).unwrap().assertion("lb", "https://idp.example", 1_000);
            let raw = pair.public_key_raw();
            let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let jwk: Jwk = match *name {
                "EdDSA" => {
                    serde_json::from_value(json!({"kty": "OKP", "crv": "Ed25519", "x": coordinate(raw)})).unwrap()
                }
                "RS256" => {
                    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
                    Jwk::from_encoding_key(&key, *algorithm).unwrap()
                }
                _ => {
                    let (x, y) = raw[1..].split_at(raw.len() / 2);
                    let curve = if *name == "ES256" { "P-256" } else { "P-384" };
                    let key = json!({"kty": "EC", "crv": curve, "x": coordinate(x), "y": coordinate(y)});
                    serde_json::from_value(key).unwrap()
                }
            };
            let unverified = Unverified::read(&assertion).unwrap();
            assert_eq!(unverified.algorithm, *algorithm, "{name}");
            let (header, claims) = unverified.verify(&usable_key(&jwk).unwrap()).unwrap();
            assert_eq!(header.kid.as_deref(), Some("k1"), "{name}");
            assert_eq!((claims.text("iss"), claims.text("sub")), (Some("lb"), Some("lb")), "{name}");
            assert_eq!((claims.text("aud"), claims.check_times(1_000, 0)), (Some("https://idp.example"), Ok(1_060)));
        }
    }

    #[test]
    fn what_is_no_key_is_named_with_its_file_and_a_remedy() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let strange = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (pem, expected) in [("", "openssl genpkey"), (certificate, "openssl genpkey"), (strange, "of another kind")]
        {
            let error = format!("{:#}", ClientKey::read(&config(pem)).unwrap_err());
            assert!(error.contains("client.pem") && error.contains(expected), "{error}");
        }
    }
}
