//! A client's own key, and the JSON Web Tokens it signs: DPoP proofs (RFC 9449), and whatever somebody could make up.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key on P-256, which signs with ES256.
#[derive(Debug)]
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    pub fn generate() -> Result<SigningKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok().context("no key can be made")?;
        Ok(SigningKey(pair))
    }

    /// The public key (RFC 7518 §6.2).
    pub fn jwk(&self) -> Value {
        jwk_of(self.0.public_key().as_ref())
    }

    /// RFC 7638, in base64url: what a token says that is bound to this key.
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        sha256_base64url(text.as_bytes())
    }

    /// A JWT with this header, to which `alg` is added unless it is there, and these claims.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let mut header = header.clone();
        if header.get("alg").is_none() {
            header["alg"] = "ES256".into();
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), text.as_bytes()).ok().context("it does not sign")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A DPoP proof for one request, with `changes` over its honest claims; null takes one away. `token`: the one that goes
    /// with it.
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>, changes: &Value) -> Result<String> {
        let mut claims = json!({"jti": unique(), "htm": method, "htu": url, "iat": now()});
        if let Some(token) = token {
            claims["ath"] = sha256_base64url(token.as_bytes()).into();
        }
        self.sign(&json!({"typ": "dpop+jwt", "jwk": self.jwk()}), &changed(claims, changes))
    }
}

/// A public key on P-256, of its uncompressed point: the byte 4, then both coordinates (SEC 1 §2.3.3).
pub fn jwk_of(point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

/// `claims` with others over them; null takes one away.
pub fn changed(claims: Value, changes: &Value) -> Value {
    let mut claims = claims.as_object().cloned().unwrap_or_default();
    for (name, value) in changes.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(claims.remove(name)),
            value => drop(claims.insert(name.clone(), value.clone())),
        }
    }
    claims.into()
}

/// SHA-256 as JSON Web Tokens write it.
pub fn sha256_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A name that nothing had before.
pub fn unique() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator answers");
    URL_SAFE_NO_PAD.encode(bytes)
}
