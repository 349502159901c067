//! The keys that an issuer signs with (RFC 7517), and finding the one for a token.

use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;

use super::http::{HttpClient, Unavailable};
use super::jwt::{self, BadToken, Unverified};
use super::kept::Kept;

/// More than any issuer rotates through.
const MOST_KEYS: usize = 64;
/// RFC 7518 §3.3.
const SHORTEST_RSA_BYTES: usize = 256;

/// The public keys of one issuer, as published.
#[derive(Debug, Default, PartialEq)]
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
}

#[derive(Debug)]
struct PublicKey {
    jwk: Jwk,
    key: DecodingKey,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.jwk == other.jwk
    }
}

/// Keys that cannot be read are left out one by one, so they are taken as plain JSON first.
#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    pub(super) async fn fetch(http: &HttpClient, url: &str) -> Result<KeySet, Unavailable> {
        let published: Published = http.get(url).await?.json(url)?;
        let set = KeySet::of(published);
        if set.keys.is_empty() {
            let reason = "there is no public key for signatures among them".to_owned();
            return Err(Unavailable::Unusable { url: url.to_owned(), reason });
        }
        Ok(set)
    }

    /// What of a key set can be used: asymmetric keys for signatures. An issuer may publish others, and new kinds.
    fn of(published: Published) -> KeySet {
        let keys = published.keys.into_iter().take(MOST_KEYS);
        KeySet { keys: keys.filter_map(|key| public_key(serde_json::from_value(key).ok()?)).collect() }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn read(json: &[u8]) -> Option<KeySet> {
        Some(KeySet::of(serde_json::from_slice(json).ok()?))
    }

    /// The key that a token names, or, when it names none, the only one that its algorithm fits.
    fn find(&self, token: &Unverified<'_>) -> Option<&DecodingKey> {
        let fitting = |key: &&PublicKey| fits(key, token.algorithm);
        match token.header.kid.as_deref() {
            Some(kid) => self.keys.iter().filter(fitting).find(|key| key.jwk.common.key_id.as_deref() == Some(kid)),
            None => {
                let mut all = self.keys.iter().filter(fitting);
                all.next().filter(|_| all.next().is_none())
            }
        }
        .map(|key| &key.key)
    }
}

/// `None`: it is not for verifying signatures, or too weak.
pub(super) fn usable_key(jwk: &Jwk) -> Option<DecodingKey> {
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|uses| uses.contains(&KeyOperations::Verify));
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| is_for_signatures)?;
    let is_strong = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= SHORTEST_RSA_BYTES,
        DecodingKeyKind::SecretOrDer(_) => true,
    };
    let is_asymmetric = jwt::ALGORITHMS.iter().any(|(_, algorithm)| key.family().algorithms().contains(algorithm));
    (is_strong && is_asymmetric).then_some(key)
}

fn public_key(jwk: Jwk) -> Option<PublicKey> {
    let key = usable_key(&jwk)?;
    Some(PublicKey { jwk, key })
}

/// A key that says which algorithm it is for serves no other (RFC 8725 §3.1).
fn fits(key: &PublicKey, algorithm: Algorithm) -> bool {
    key.key.family().algorithms().contains(&algorithm)
        && key.jwk.common.key_algorithm.is_none_or(|own| own.to_string() == jwt::name_of(algorithm))
}

/// Why a token could not be verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotVerified {
    /// The token is at fault.
    #[error(transparent)]
    Bad(#[from] BadToken),
    /// The issuer's keys cannot be had, so nothing is known of the token.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Verifies a token by the issuer's keys, asking for them anew, now and then, when it names one that is not among them.
pub(super) async fn verify(
    keys: &Arc<Kept<KeySet>>,
    algorithms: &[Algorithm],
    token: Unverified<'_>,
) -> Result<(jwt::Header, jwt::Claims), NotVerified> {
    if !algorithms.contains(&token.algorithm) {
        return Err(BadToken::Algorithm(jwt::name_of(token.algorithm).to_owned()).into());
    }
    let known = keys.get().await?;
    if let Some(key) = known.find(&token) {
        return Ok(token.verify(key)?);
    }
    let anew = keys.get_anew().await?;
    match anew.find(&token) {
        Some(key) => Ok(token.verify(key)?),
        None => Err(BadToken::UnknownKey.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{keys, sign};
    use super::*;

    fn found(set: serde_json::Value, header: serde_json::Value) -> bool {
        let token = sign(&header, &json!({}));
        let set = KeySet::read(json!({ "keys": set }).to_string().as_bytes()).unwrap();
        set.find(&Unverified::read(&token).unwrap()).is_some()
    }

    #[test]
    fn a_token_is_verified_by_a_key_that_is_meant_for_it_and_by_no_other() {
        let (jwk, _) = keys();
        let own = |changes: serde_json::Value| {
            let mut key = serde_json::to_value(&jwk).unwrap();
            for (name, value) in changes.as_object().unwrap() {
                key[name] = value.clone();
            }
            key
        };
        let other = own(json!({"kid": "other"}));
        let rows = [
            ("the key that it names", json!([own(json!({}))]), json!({}), true),
            ("beside one of an unknown kind", json!([{"kty": "XYZ"}, own(json!({}))]), json!({}), true),
            ("another key", json!([other]), json!({}), false),
            ("no name, and one key", json!([other]), json!({"kid": null}), true),
            ("no name, and two keys", json!([own(json!({})), other]), json!({"kid": null}), false),
            ("a key for encryption", json!([own(json!({"use": "enc"}))]), json!({}), false),
            ("a key for signing only", json!([own(json!({"key_ops": ["sign"]}))]), json!({}), false),
            ("a key for another algorithm", json!([own(json!({"alg": "ES384"}))]), json!({}), false),
            ("a shared secret", json!([{"kty": "oct", "k": "c2VjcmV0", "kid": "test"}]), json!({}), false),
            ("none at all", json!([]), json!({}), false),
        ];
        for (name, set, header, expected) in rows {
            assert_eq!(found(set, header), expected, "{name}");
        }
    }

    #[test]
    fn short_rsa_keys_are_left_out() {
        for (bytes, usable) in [(128, false), (255, false), (256, true), (512, true)] {
            let modulus = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, vec![0xff; bytes]);
            let jwk = json!({"kty": "RSA", "n": modulus, "e": "AQAB"});
            assert_eq!(usable_key(&serde_json::from_value(jwk).unwrap()).is_some(), usable, "{bytes} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            KeySet::read(&bytes);
        }
    }
}
