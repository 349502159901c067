//! What the authenticator signed: `authenticatorData` (WebAuthn L3 §6.1) and, at enrolment, the attestation object
//! around it (§6.5.4).

use ciborium::Value;

use super::cose;
use super::{PublicKey, Refusal};

/// Attestation objects carry certificate chains; longer than this is no authenticator's.
const LONGEST_ATTESTATION_BYTES: usize = 64 * 1024;
/// WebAuthn L3 §7.1 step 25: longer ids are refused.
const LONGEST_CREDENTIAL_ID_BYTES: usize = 1023;
/// rpIdHash, flags, signCount.
const FIXED_BYTES: usize = 37;
/// A credential's key nests one deep; this bounds the stack.
const DEEPEST_CBOR: usize = 8;

/// The fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuthenticatorData {
    pub(super) rp_id_hash: [u8; 32],
    pub(super) user_present: bool,
    pub(super) user_verified: bool,
    /// The key may leave this device.
    pub(super) backup_eligible: bool,
    pub(super) backed_up: bool,
    pub(super) sign_count: u32,
}

/// A new credential as the authenticator made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attested {
    pub(super) data: AuthenticatorData,
    pub(super) credential_id: Vec<u8>,
    pub(super) key: PublicKey,
    pub(super) algorithm: i64,
}

const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const ATTESTED: u8 = 1 << 6;
const EXTENSIONS: u8 = 1 << 7;

/// Reads an assertion's. What follows the fixed part must be what the flags announce, or two readers could differ on it.
pub(super) fn read(bytes: &[u8]) -> Result<AuthenticatorData, Refusal> {
    let (data, flags, rest) = fixed(bytes)?;
    let rest = if flags & ATTESTED == 0 { rest } else { attested(rest)?.2 };
    end(flags, rest)?;
    Ok(data)
}

/// Reads a new credential out of an attestation object. The attestation itself is not asked for, and not looked at: the
/// format must merely be named.
pub(super) fn read_attestation(bytes: &[u8]) -> Result<Attested, Refusal> {
    if bytes.len() > LONGEST_ATTESTATION_BYTES {
        return Err(Refusal::Malformed);
    }
    let mut rest = bytes;
    let object = cbor(&mut rest)?;
    if !rest.is_empty() {
        return Err(Refusal::Malformed);
    }
    let Value::Map(entries) = object else { return Err(Refusal::Malformed) };
    let text = |name: &str| entry(&entries, &Value::Text(name.to_owned()));
    let (Some(Value::Text(_)), Some(Value::Map(_)), Some(Value::Bytes(data))) =
        (text("fmt")?, text("attStmt")?, text("authData")?)
    else {
        return Err(Refusal::Malformed);
    };
    let (data, flags, rest) = fixed(data)?;
    if flags & ATTESTED == 0 {
        return Err(Refusal::Malformed);
    }
    let (credential_id, (key, algorithm), rest) = attested(rest)?;
    end(flags, rest)?;
    Ok(Attested { data, credential_id, key, algorithm })
}

fn fixed(bytes: &[u8]) -> Result<(AuthenticatorData, u8, &[u8]), Refusal> {
    let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(Refusal::Malformed)?;
    let (hash, flags_and_count) = fixed.split_first_chunk::<32>().ok_or(Refusal::Malformed)?;
    let [flags, count @ ..] = flags_and_count else { return Err(Refusal::Malformed) };
    let data = AuthenticatorData {
        rp_id_hash: *hash,
        user_present: flags & USER_PRESENT != 0,
        user_verified: flags & USER_VERIFIED != 0,
        backup_eligible: flags & BACKUP_ELIGIBLE != 0,
        backed_up: flags & BACKED_UP != 0,
        sign_count: u32::from_be_bytes(count.try_into().map_err(|_| Refusal::Malformed)?),
    };
    // §6.1.3: what cannot be backed up is not backed up.
    if data.backed_up && !data.backup_eligible {
        return Err(Refusal::Malformed);
    }
    Ok((data, *flags, rest))
}

type Key = (PublicKey, i64);

/// AAGUID, length, id, key (§6.5.1).
fn attested(bytes: &[u8]) -> Result<(Vec<u8>, Key, &[u8]), Refusal> {
    let (_aaguid, rest) = bytes.split_first_chunk::<16>().ok_or(Refusal::Malformed)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(Refusal::Malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > LONGEST_CREDENTIAL_ID_BYTES {
        return Err(Refusal::Malformed);
    }
    let (id, mut rest) = rest.split_at_checked(length).ok_or(Refusal::Malformed)?;
    let key = cose::key(&cbor(&mut rest)?)?;
    Ok((id.to_vec(), key, rest))
}

/// Extensions are a map that nobody here asked for; whatever else is left over is refused.
fn end(flags: u8, mut rest: &[u8]) -> Result<(), Refusal> {
    if flags & EXTENSIONS != 0 {
        let Value::Map(_) = cbor(&mut rest)? else { return Err(Refusal::Malformed) };
    }
    if rest.is_empty() { Ok(()) } else { Err(Refusal::Malformed) }
}

/// The first item of `bytes`, which then begin after it.
fn cbor(bytes: &mut &[u8]) -> Result<Value, Refusal> {
    ciborium::de::from_reader_with_recursion_limit(bytes, DEEPEST_CBOR).map_err(|_| Refusal::Malformed)
}

/// The value of `key`, which must not come twice.
pub(super) fn entry<'v>(entries: &'v [(Value, Value)], key: &Value) -> Result<Option<&'v Value>, Refusal> {
    let mut found = entries.iter().filter(|(name, _)| name == key);
    match (found.next(), found.next()) {
        (first, None) => Ok(first.map(|(_, value)| value)),
        _ => Err(Refusal::Malformed),
    }
}
