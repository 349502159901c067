//! What a backend does with `Lb-Assertion`: it verifies the signature by the published keys, then reads the claims.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims of `token`, if one of `keys` (RFC 7517) signed it with ES256.
pub fn verify(token: &str, keys: &Value) -> Result<Value> {
    let (signed, signature) = token.rsplit_once('.').context("no JWS")?;
    let (header, claims) = signed.split_once('.').context("no JWS")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    ensure!(header["alg"] == "ES256" && header["typ"] == "lb-assertion+jwt", "another kind: {header}");
    let all = keys["keys"].as_array().context("no keys")?;
    let key = all.iter().find(|key| key["kid"] == header["kid"]).context("its key is not published")?;
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        point.extend(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().context("no P-256 key")?)?);
    }
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    key.verify(signed.as_bytes(), &signature).ok().context("the signature is wrong")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}
