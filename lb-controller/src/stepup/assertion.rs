//! What backends are told of the user: a signed assertion per request (JWS, ES256), so that a backend need not trust
//! the network it stands in.
//!
//! Signing takes about 30 µs. It is not cached: `htm`, `htu`, `bh` and `jti` tie each assertion to one request, and one
//! that served two would say less than it seems to. The key is kept parsed: `jsonwebtoken::encode` would parse and check
//! it again for every request, which costs more than signing.

use std::path::Path;

use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lb_policy::{Levels, ProvedFactor, UnixSeconds};
use serde::Serialize;
use serde::ser::SerializeMap as _;

use super::private_file;
use super::random_id::RandomId;
use super::resume::ApprovedAction;
use super::session::Session;
use super::shown;
use super::transaction::sha256;
use crate::serve::request::{Inbound, InboundBody};

/// Signs assertions, and publishes the key that verifies them.
pub(super) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// `{"alg":…}` encoded: it is the same for every assertion.
    header: String,
    jwks: String,
}

/// What is said to a backend, and of whom.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) session: &'a Session,
    pub(super) levels: &'a Levels,
    pub(super) approved: Option<&'a ApprovedAction>,
    pub(super) request: &'a Inbound,
    /// The pool.
    pub(super) audience: &'a str,
}

/// Long enough for a slow backend and a clock that is off, short enough to be worth little when logged somewhere.
const LIFETIME_SECONDS: u64 = 60;
/// Fixed, not taken from the request: a name that clients choose would tell a backend nothing.
const ISSUER: &str = "urn:lb";

impl Signer {
    /// Reads the key of `directory`, or makes it.
    pub(super) fn open(directory: &Path) -> Result<Signer> {
        let path = directory.join("assertion-key.der");
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = match private_file::read(&path)? {
            Some(pkcs8) => EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8).ok().with_context(|| {
                format!("{} is no P-256 key in PKCS #8; delete it to make a new one", path.display())
            })?,
            None => {
                let key = EcdsaKeyPair::generate(algorithm).ok().context("no assertion key can be made")?;
                let pkcs8 = key.to_pkcs8v1().ok().context("the assertion key cannot be encoded")?;
                private_file::replace(&path, pkcs8.as_ref())?;
                key
            }
        };
        let (kid, jwks) = publish(&key)?;
        let header =
            Header { typ: Some("lb-assertion+jwt".to_owned()), kid: Some(kid), ..Header::new(Algorithm::ES256) };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        Ok(Signer { key, random: SystemRandom::new(), header, jwks })
    }

    /// The JSON Web Key Set (RFC 7517 §5).
    pub(super) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The assertion that goes with one request. The body's hash is in it when the body is in
    /// memory; a body that streams through has not been seen yet.
    pub(super) fn sign(&self, said: &Said<'_>, now: UnixSeconds) -> HeaderValue {
        let Said { session, levels, approved, request, audience } = *said;
        let claims = Claims {
            iss: ISSUER,
            aud: audience,
            sub: session.user(),
            acr: levels.acr(session.level(levels, now)),
            amr: session.factors().iter().map(|factor| factor.method.amr()).collect(),
            factor_times: FactorTimes(session.factors()),
            htm: request.method.as_str(),
            htu: format!("https://{}{}", request.authority, without_query(&request.target)),
            bh: match &request.body {
                InboundBody::Whole(body) => Some(URL_SAFE_NO_PAD.encode(sha256(body))),
                _ => None,
            },
            txn: approved.map(|action| action.transaction.to_string()),
            facts: approved.map(|action| shown::as_json(&action.facts)),
            iat: now,
            exp: now + LIFETIME_SECONDS,
            jti: RandomId::new().to_string(),
        };
        let claims = serde_json::to_vec(&claims).expect("claims are text and numbers");
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&self.random, token.as_bytes()).expect("a P-256 key signs any message");
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        HeaderValue::try_from(token).expect("base64url and dots are header text")
    }
}

/// Key id (RFC 7638 thumbprint) and key set.
fn publish(key: &EcdsaKeyPair) -> Result<(String, String)> {
    let pkcs8 = key.to_pkcs8v1().ok().context("the assertion key cannot be encoded")?;
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(pkcs8.as_ref()), Algorithm::ES256)?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
    jwk.common.key_id = Some(kid.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((kid, serde_json::to_string(&JwkSet { keys: vec![jwk] })?))
}

/// As in RFC 9449 §4.2: `htu` has neither query nor fragment.
fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'a str,
    sub: &'a str,
    acr: &'a str,
    amr: Vec<&'static str>,
    factor_times: FactorTimes<'a>,
    htm: &'a str,
    htu: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bh: Option<String>,
    /// Which approval this is (RFC 8417 §2.2), as the audit trail names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<String>,
    /// What the user was shown of the request, and approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<serde_json::Value>,
    iat: UnixSeconds,
    exp: UnixSeconds,
    jti: String,
}

/// `{"pwd": 1790000000, "otp": 1790000100}`: when each factor was proved.
struct FactorTimes<'a>(&'a [ProvedFactor]);

impl Serialize for FactorTimes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for factor in self.0 {
            map.serialize_entry(factor.method.amr(), &factor.at)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
    use lb_policy::{BodyFactKind, ShownFact};

    use super::super::testing;
    use super::*;

    #[test]
    fn a_backend_verifies_the_assertion_by_the_published_key_and_reads_everything_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(directory.path()).unwrap();
        let session = testing::session("alice", 1_000);
        let request = testing::request("POST", "/refunds?dry=1", &[], "{}");
        let transaction = RandomId::new();
        let shown = |name: &str, value: Option<&str>| ShownFact {
            name: name.to_owned(),
            kind: BodyFactKind::Text,
            value: value.map(str::to_owned),
        };
        let facts = vec![shown("amount", Some("900.00")), shown("payee", None)];
        let approved = ApprovedAction { transaction, facts };
        let levels = Levels::default();
        let said =
            Said { session: &session, levels: &levels, approved: Some(&approved), request: &request, audience: "shop" };
        let token = signer.sign(&said, 1_010);

        let keys: JwkSet = serde_json::from_str(Signer::open(directory.path()).unwrap().jwks()).unwrap();
        let header = jsonwebtoken::decode_header(token.to_str().unwrap()).unwrap();
        assert_eq!(header.typ.as_deref(), Some("lb-assertion+jwt"));
        let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["shop"]);
        validation.set_issuer(&["urn:lb"]);
        validation.validate_exp = false; // the test's clock stands in 1970
        let claims = jsonwebtoken::decode::<serde_json::Value>(token.to_str().unwrap(), &key, &validation).unwrap();
        let mut claims = claims.claims;
        assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
        claims.as_object_mut().unwrap().remove("jti");
        let expected = serde_json::json!({
            "iss": "urn:lb", "aud": "shop", "sub": "alice",
            "acr": "urn:lb:acr:1", "amr": ["pwd"], "factor_times": {"pwd": 1000},
            "htm": "POST", "htu": "https://shop.example/refunds",
            "bh": URL_SAFE_NO_PAD.encode(sha256(b"{}")),
            "txn": transaction.to_string(), "facts": {"amount": "900.00", "payee": null},
            "iat": 1010, "exp": 1070,
        });
        assert_eq!(claims, expected);
    }

    #[test]
    fn a_key_file_of_another_kind_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        private_file::replace(&directory.path().join("assertion-key.der"), b"-----BEGIN").unwrap();
        let error = Signer::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("assertion-key.der is no P-256 key"), "{error}");
    }
}
