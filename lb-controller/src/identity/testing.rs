//! A key that tests sign with.

use std::sync::OnceLock;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::Value;

struct Keys {
    private: EncodingKey,
    jwk: Jwk,
}

fn made() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let private = EncodingKey::from_ec_der(pair.serialized_der());
        let mut jwk = Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("test".to_owned());
        Keys { private, jwk }
    })
}

/// The public key, as a key set has it and as tokens are verified by it.
pub(super) fn keys() -> (Jwk, DecodingKey) {
    let jwk = made().jwk.clone();
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    (jwk, key)
}

/// A token of these claims, whose header is ES256 and the test key's, with `header` over it.
pub(super) fn sign(header: &Value, claims: &Value) -> String {
    let mut own = Header { kid: Some("test".to_owned()), ..Header::new(Algorithm::ES256) };
    own.typ = header.get("typ").and_then(Value::as_str).map(str::to_owned);
    if let Some(kid) = header.get("kid") {
        own.kid = kid.as_str().map(str::to_owned);
    }
    if let Some(jwk) = header.get("jwk") {
        own.jwk = Some(serde_json::from_value(jwk.clone()).unwrap());
    }
    jsonwebtoken::encode(&own, claims, &made().private).unwrap()
}
