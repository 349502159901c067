//! Credential keys as authenticators write them: COSE_Key (RFC 9053 §7) with the algorithms of RFC 8152 and RFC 8812.

use ciborium::Value;

use super::authenticator_data::entry;
use super::{PublicKey, Refusal};
use crate::stepup::factor::public_key::Scheme;

pub(super) const ES256: i64 = -7;
pub(super) const EDDSA: i64 = -8;
pub(super) const RS256: i64 = -257;
/// In the order of preference that browsers are told.
pub(super) const ALGORITHMS: [i64; 3] = [ES256, EDDSA, RS256];

// Labels (RFC 9052 §7.1, RFC 9053 §7.1, RFC 8230 §4).
const KEY_TYPE: i64 = 1;
const ALGORITHM: i64 = 3;
const CURVE: i64 = -1;
const X: i64 = -2;
const Y: i64 = -3;
const RSA_MODULUS: i64 = -1;
const RSA_EXPONENT: i64 = -2;

const OKP: i64 = 1;
const EC2: i64 = 2;
const RSA: i64 = 3;
const CURVE_P256: i64 = 1;
const CURVE_ED25519: i64 = 6;

/// The key and its algorithm; each algorithm goes with one type and curve (WebAuthn L3 §5.8.5).
pub(super) fn key(value: &Value) -> Result<(PublicKey, i64), Refusal> {
    let Value::Map(entries) = value else { return Err(Refusal::Malformed) };
    let at = |label: i64| entry(entries, &Value::Integer(label.into()))?.ok_or(Refusal::Malformed);
    let number = |label| -> Result<i64, Refusal> {
        let integer = at(label)?.as_integer().ok_or(Refusal::Malformed)?;
        i64::try_from(integer).map_err(|_| Refusal::Malformed)
    };
    let bytes = |label| Ok::<_, Refusal>(at(label)?.as_bytes().ok_or(Refusal::Malformed)?.as_slice());
    let curve = || number(CURVE);
    let algorithm = number(ALGORITHM)?;
    let key = match (algorithm, number(KEY_TYPE)?) {
        (ES256, EC2) if curve()? == CURVE_P256 => PublicKey::p256(&[&[4], bytes(X)?, bytes(Y)?].concat()),
        (EDDSA, OKP) if curve()? == CURVE_ED25519 => PublicKey::ed25519(bytes(X)?),
        (RS256, RSA) => PublicKey::rsa(bytes(RSA_MODULUS)?, bytes(RSA_EXPONENT)?),
        _ => return Err(Refusal::Algorithm),
    };
    Ok((key.map_err(|_| Refusal::Algorithm)?, algorithm))
}

/// How signatures by a key of `algorithm` are written (WebAuthn L3 §6.5.5).
pub(super) fn scheme(algorithm: i64) -> Option<Scheme> {
    match algorithm {
        ES256 => Some(Scheme::P256Der),
        EDDSA => Some(Scheme::Ed25519),
        RS256 => Some(Scheme::RsaSha256),
        _ => None,
    }
}
