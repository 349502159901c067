//! Signed JSON Web Tokens in compact form (RFC 7515 §7.1, RFC 7519), read once and strictly.
//!
//! What a token says counts only after [`Unverified::verify`]: until then the claims cannot be reached, but for the
//! issuer's name, by which the keys are found.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use lb_policy::UnixSeconds;

/// Longer ones exist nowhere: requests have 64 KiB for all their headers.
pub(super) const LONGEST_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is refused. The text goes to logs and to `error_description`; it never repeats the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("it is no signed JWT in compact form")]
    Malformed,
    #[error("it is signed with {0}, which its issuer does not sign with")]
    Algorithm(String),
    #[error("no key of its issuer verifies it")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is of another kind: {0}")]
    Kind(&'static str),
    #[error("its claim {0} is missing or is of another type")]
    Claim(&'static str),
    #[error("it is from another issuer")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("its issuer says that it is not active")]
    Inactive,
    #[error("it is not valid yet: {0} is in the future")]
    Early(&'static str),
    #[error("it is not for this login")]
    Nonce,
    #[error("it was used before")]
    Replayed,
    #[error("the proof of possession does not fit: {0}")]
    Possession(&'static str),
}

/// The protected header, as far as anything here goes by it.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    alg: String,
    pub(super) kid: Option<String>,
    typ: Option<String>,
    /// Of a DPoP proof (RFC 9449 §4.2).
    pub(super) jwk: Option<Jwk>,
    /// Extensions that must be understood (RFC 7515 §4.1.11). None are.
    crit: Option<Value>,
    /// RFC 7797, likewise.
    b64: Option<Value>,
}

/// A token that was taken apart, and not believed yet.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    pub(super) header: Header,
    pub(super) algorithm: Algorithm,
    claims: Claims,
    signed: &'t str,
    signature: &'t str,
}

/// The claims of a token whose signature was verified.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claims(Map<String, Value>);

/// The asymmetric algorithms: with a shared secret, whoever can verify could also sign.
pub(super) const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
];

pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

pub(super) fn name_of(algorithm: Algorithm) -> &'static str {
    ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map_or("another algorithm", |(name, _)| name)
}

impl<'t> Unverified<'t> {
    pub(super) fn read(token: &'t str) -> Result<Unverified<'t>, BadToken> {
        if token.len() > LONGEST_TOKEN_BYTES {
            return Err(BadToken::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(BadToken::Malformed)?;
        if claims.contains('.') || signature.is_empty() {
            return Err(BadToken::Malformed);
        }
        let header: Header = part(header)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(BadToken::Kind("it has header parameters that must be understood and are not"));
        }
        let Some(algorithm) = algorithm_named(&header.alg) else {
            // The name is a stranger's; only what looks like one is repeated.
            let plain = header.alg.len() <= 16 && header.alg.bytes().all(|byte| byte.is_ascii_alphanumeric());
            return Err(BadToken::Algorithm(if plain { header.alg } else { "an unknown algorithm".to_owned() }));
        };
        Ok(Unverified { header, algorithm, claims: Claims(part(claims)?), signed, signature })
    }

    /// Who it says it is from: enough to choose the keys by, and for nothing else.
    pub(super) fn alleged_issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }

    /// The media type that `typ` names, lower-case and without `application/` (RFC 7515 §4.1.9).
    pub(super) fn kind(&self) -> Option<String> {
        let typ = self.header.typ.as_deref()?.to_ascii_lowercase();
        Some(typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned))
    }

    pub(super) fn verify(self, key: &DecodingKey) -> Result<(Header, Claims), BadToken> {
        match jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, self.algorithm) {
            Ok(true) => Ok((self.header, self.claims)),
            Ok(false) | Err(_) => Err(BadToken::Signature),
        }
    }
}

fn part<T: serde::de::DeserializeOwned>(encoded: &str) -> Result<T, BadToken> {
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| BadToken::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| BadToken::Malformed)
}

impl Claims {
    pub(super) fn of(map: Map<String, Value>) -> Claims {
        Claims(map)
    }

    /// These, and more.
    pub(super) fn with(mut self, more: impl Iterator<Item = (String, Value)>) -> Claims {
        self.0.extend(more);
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(super) fn required_text(&self, name: &'static str) -> Result<&str, BadToken> {
        self.text(name).filter(|text| !text.is_empty()).ok_or(BadToken::Claim(name))
    }

    /// A NumericDate (RFC 7519 §2), whole seconds of it; `None` when it is absent.
    ///
    /// Errors: it is there and is no time.
    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<UnixSeconds>, BadToken> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match (value.as_u64(), value.as_f64()) {
                (Some(seconds), _) => Ok(Some(seconds)),
                // A fraction is allowed; beyond 2^53 it is no time.
                (None, Some(seconds)) if (0.0..9.0e15).contains(&seconds) => Ok(Some(seconds as u64)),
                _ => Err(BadToken::Claim(name)),
            },
        }
    }

    /// A text, or a list of texts: `aud`, `amr`, groups. Anything else is none.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Within its time, by our clock give or take `skew_seconds`. `exp` must be there; the others count when they are.
    pub(super) fn check_times(&self, now: UnixSeconds, skew_seconds: u64) -> Result<UnixSeconds, BadToken> {
        let expires_at = self.seconds("exp")?.ok_or(BadToken::Claim("exp"))?;
        if now >= expires_at.saturating_add(skew_seconds) {
            return Err(BadToken::Expired);
        }
        for name in ["nbf", "iat"] {
            if self.seconds(name)?.is_some_and(|time| time > now.saturating_add(skew_seconds)) {
                return Err(BadToken::Early(name));
            }
        }
        Ok(expires_at)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header as OwnHeader};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{keys, sign};
    use super::*;

    fn claims(value: Value) -> Claims {
        Claims(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_token_has_one_reading_and_every_other_is_refused() {
        let (_, key) = keys();
        let good = sign(&json!({"typ": "JWT"}), &json!({"sub": "carol"}));
        let parts: Vec<&str> = good.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        let with_header = |value: Value| format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(value.to_string()));
        let hs256 = jsonwebtoken::encode(
            &OwnHeader::new(Algorithm::HS256),
            &json!({"sub": "carol"}),
            // As an attacker does who has the public key, and hopes that it is taken for a shared secret.
            &EncodingKey::from_secret(b"the public key in PEM"),
        );
        let rows: &[(&str, String, Result<(), BadToken>)] = &[
            ("as it was signed", good.clone(), Ok(())),
            ("nothing", String::new(), Err(BadToken::Malformed)),
            ("two parts", format!("{header}.{payload}"), Err(BadToken::Malformed)),
            ("four parts", format!("{good}.x"), Err(BadToken::Malformed)),
            ("no signature", format!("{header}.{payload}."), Err(BadToken::Malformed)),
            ("padding", format!("{header}=.{payload}.{signature}"), Err(BadToken::Malformed)),
            ("none", with_header(json!({"alg": "none"})), Err(BadToken::Algorithm("none".into()))),
            ("none in capitals", with_header(json!({"alg": "NONE"})), Err(BadToken::Algorithm("NONE".into()))),
            ("a shared secret", hs256.unwrap(), Err(BadToken::Algorithm("HS256".into()))),
            (
                "an algorithm with line breaks",
                with_header(json!({"alg": "a\r\nb"})),
                Err(BadToken::Algorithm("an unknown algorithm".into())),
            ),
            ("another algorithm", with_header(json!({"alg": "RS256"})), Err(BadToken::Signature)),
            ("another header", with_header(json!({"alg": "ES256"})), Err(BadToken::Signature)),
            (
                "something critical",
                with_header(json!({"alg": "ES256", "crit": ["exp"]})),
                Err(BadToken::Kind("it has header parameters that must be understood and are not")),
            ),
            (
                "an unencoded payload",
                with_header(json!({"alg": "ES256", "b64": false})),
                Err(BadToken::Kind("it has header parameters that must be understood and are not")),
            ),
            ("too long", format!("{header}.{}.{signature}", "A".repeat(20_000)), Err(BadToken::Malformed)),
            ("signed for other claims", format!("{header}.e30.{signature}"), Err(BadToken::Signature)),
        ];
        for (name, token, expected) in rows {
            let outcome = Unverified::read(token).and_then(|token| token.verify(&key)).map(drop);
            assert_eq!(outcome, *expected, "{name}");
        }
    }

    #[test]
    fn a_token_is_valid_from_its_beginning_to_its_end_give_or_take_the_skew() {
        let rows = [
            ("in the middle", json!({"exp": 1100, "nbf": 900, "iat": 900}), Ok(1100)),
            ("a fraction of a second", json!({"exp": 1100.9}), Ok(1100)),
            ("the last moment", json!({"exp": 996}), Ok(996)),
            ("over", json!({"exp": 995}), Err(BadToken::Expired)),
            ("the first moment", json!({"exp": 1100, "nbf": 1005}), Ok(1100)),
            ("not yet", json!({"exp": 1100, "nbf": 1006}), Err(BadToken::Early("nbf"))),
            ("issued in the future", json!({"exp": 1100, "iat": 1006}), Err(BadToken::Early("iat"))),
            ("without an end", json!({"nbf": 900}), Err(BadToken::Claim("exp"))),
            ("an end in words", json!({"exp": "1100"}), Err(BadToken::Claim("exp"))),
            ("an end before time began", json!({"exp": -1}), Err(BadToken::Claim("exp"))),
            ("an end beyond counting", json!({"exp": 1e300}), Err(BadToken::Claim("exp"))),
            ("the longest end", json!({"exp": u64::MAX}), Ok(u64::MAX)),
            ("a beginning in words", json!({"exp": 1100, "nbf": "900"}), Err(BadToken::Claim("nbf"))),
        ];
        for (name, value, expected) in rows {
            assert_eq!(claims(value).check_times(1000, 5), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic_and_none_is_verified(text in ".{0,400}") {
            prop_assert!(Unverified::read(&text).and_then(|token| token.verify(&keys().1)).is_err());
        }

        /// Of a signed token no byte can be changed.
        #[test]
        fn a_changed_token_is_never_verified(at in 0usize..1000, to in any::<u8>()) {
            let token = sign(&json!({}), &json!({"sub": "carol"}));
            let mut bytes = token.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            if let (Ok(changed), true) = (String::from_utf8(bytes), to != token.as_bytes()[at]) {
                let outcome = Unverified::read(&changed).and_then(|changed| changed.verify(&keys().1));
                prop_assert!(outcome.is_err(), "{}", changed);
            }
        }
    }
}
