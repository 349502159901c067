//! Public keys in the form of an `authorized_keys` line, and signatures by each kind of key.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::Refusal;
use super::wire::Reader;
use crate::stepup::factor::public_key::{PublicKey, Scheme};

/// A line with an RSA key of 8192 bits takes about 1.5 KiB.
const LONGEST_LINE_BYTES: usize = 4096;

/// An enrolled key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeveloperKey {
    kind: Kind,
    /// The key as SSH writes it, by which a signature names it.
    pub(super) blob: Vec<u8>,
    key: PublicKey,
    /// Of keys that live in a security key (OpenSSH PROTOCOL.u2f).
    application: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
    Rsa,
    SecurityKeyEd25519,
    SecurityKeyP256,
}

const KINDS: &[(Kind, &str)] = &[
    (Kind::Ed25519, "ssh-ed25519"),
    (Kind::P256, "ecdsa-sha2-nistp256"),
    (Kind::Rsa, "ssh-rsa"),
    (Kind::SecurityKeyEd25519, "sk-ssh-ed25519@openssh.com"),
    (Kind::SecurityKeyP256, "sk-ecdsa-sha2-nistp256@openssh.com"),
];

const CURVE: &str = "nistp256";
/// The user touched the security key (PROTOCOL.u2f).
const USER_PRESENT: u8 = 1;

impl DeveloperKey {
    /// Reads `type base64 [comment]`, as in a `.pub` file.
    pub(crate) fn parse(line: &str) -> Result<DeveloperKey, Refusal> {
        if line.len() > LONGEST_LINE_BYTES {
            return Err(Refusal::Malformed);
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(base64)) = (words.next(), words.next()) else { return Err(Refusal::Malformed) };
        let blob = STANDARD.decode(base64).map_err(|_| Refusal::Malformed)?;
        let key = DeveloperKey::read(blob)?;
        // The name outside must be the one inside, or the owner and we would mean different keys.
        if key.name() == name { Ok(key) } else { Err(Refusal::Malformed) }
    }

    fn read(blob: Vec<u8>) -> Result<DeveloperKey, Refusal> {
        let mut reader = Reader(&blob);
        let name = reader.text()?;
        let kind = KINDS.iter().find(|row| row.1 == name).ok_or(Refusal::Algorithm)?.0;
        let key = match kind {
            Kind::Ed25519 | Kind::SecurityKeyEd25519 => PublicKey::ed25519(reader.string()?),
            Kind::P256 | Kind::SecurityKeyP256 => {
                if reader.text()? != CURVE {
                    return Err(Refusal::Malformed);
                }
                PublicKey::p256(reader.string()?)
            }
            Kind::Rsa => {
                let exponent = reader.positive()?;
                PublicKey::rsa(reader.positive()?, exponent)
            }
        };
        let application = match kind {
            Kind::SecurityKeyEd25519 | Kind::SecurityKeyP256 => Some(reader.text()?.to_owned()),
            _ => None,
        };
        reader.end()?;
        let key = key.map_err(|_| Refusal::Algorithm)?;
        Ok(DeveloperKey { kind, blob, key, application })
    }

    fn name(&self) -> &'static str {
        KINDS.iter().find(|row| row.0 == self.kind).expect("every kind has its row").1
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub(crate) fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &self.blob)))
    }

    /// Verifies a signature blob over `signed`.
    pub(super) fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let mut reader = Reader(signature);
        let algorithm = reader.text()?;
        let raw = reader.string()?;
        let scheme = match (self.kind, algorithm) {
            (Kind::Rsa, "rsa-sha2-256") => Scheme::RsaSha256,
            (Kind::Rsa, "rsa-sha2-512") => Scheme::RsaSha512,
            // `ssh-rsa` itself is SHA-1.
            (Kind::Rsa, _) => return Err(Refusal::Algorithm),
            (_, name) if name != self.name() => return Err(Refusal::Algorithm),
            (Kind::Ed25519 | Kind::SecurityKeyEd25519, _) => Scheme::Ed25519,
            (Kind::P256 | Kind::SecurityKeyP256, _) => Scheme::P256Fixed,
        };
        let signed = match &self.application {
            None => signed.to_vec(),
            Some(application) => {
                let counted: [u8; 5] = reader.bytes()?;
                if counted[0] & USER_PRESENT == 0 {
                    return Err(Refusal::NotPresent);
                }
                let hash = |bytes| digest(&SHA256, bytes);
                [hash(application.as_bytes()).as_ref(), &counted, hash(signed).as_ref()].concat()
            }
        };
        reader.end()?;
        let raw = if scheme == Scheme::P256Fixed { fixed_ecdsa(raw)? } else { raw.to_vec() };
        self.key.verify(scheme, &signed, &raw).map_err(|_| Refusal::Signature)
    }
}

impl fmt::Display for DeveloperKey {
    /// The line that [`DeveloperKey::parse`] reads, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), STANDARD.encode(&self.blob))
    }
}

/// r and s as numbers (RFC 5656 §3.1.2) to r and s of 32 bytes each.
fn fixed_ecdsa(raw: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut reader = Reader(raw);
    let mut fixed = vec![0; 64];
    for half in fixed.chunks_exact_mut(32) {
        let number = reader.positive()?;
        let start = half.len().checked_sub(number.len()).ok_or(Refusal::Malformed)?;
        half[start..].copy_from_slice(number);
    }
    reader.end()?;
    Ok(fixed)
}
