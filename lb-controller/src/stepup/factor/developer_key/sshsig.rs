//! The signature file (OpenSSH PROTOCOL.sshsig).

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Refusal;
use super::wire::{Reader, put_string};

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8; 6] = b"SSHSIG";
const VERSION: u32 = 1;
/// A signature by an RSA key of 8192 bits takes about 4 KiB.
const LONGEST_ARMORED_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SshSignature {
    /// As in an authorized key.
    pub(super) public_key: Vec<u8>,
    pub(super) namespace: String,
    hash: Hash,
    pub(super) signature: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl SshSignature {
    pub(super) fn parse(armored: &str) -> Result<SshSignature, Refusal> {
        if armored.len() > LONGEST_ARMORED_BYTES {
            return Err(Refusal::Malformed);
        }
        let body = armored.trim_ascii().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let base64: String =
            body.ok_or(Refusal::Malformed)?.chars().filter(|char| !char.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(base64).map_err(|_| Refusal::Malformed)?;
        let mut reader = Reader(&bytes);
        if &reader.bytes()? != MAGIC || reader.number()? != VERSION {
            return Err(Refusal::Malformed);
        }
        let public_key = reader.string()?.to_vec();
        let namespace = reader.text()?.to_owned();
        // Reserved: for now nobody may say anything in it.
        if !reader.string()?.is_empty() {
            return Err(Refusal::Malformed);
        }
        let hash = match reader.text()? {
            "sha256" => Hash::Sha256,
            "sha512" => Hash::Sha512,
            _ => return Err(Refusal::Algorithm),
        };
        let signature = reader.string()?.to_vec();
        reader.end()?;
        Ok(SshSignature { public_key, namespace, hash, signature })
    }

    /// What the key signed, if it signed `text` for this namespace.
    pub(super) fn signed_bytes(&self, text: &str) -> Result<Vec<u8>, Refusal> {
        let (name, hash) = match self.hash {
            Hash::Sha256 => ("sha256", digest(&SHA256, text.as_bytes())),
            Hash::Sha512 => ("sha512", digest(&SHA512, text.as_bytes())),
        };
        let mut bytes = MAGIC.to_vec();
        for part in [self.namespace.as_bytes(), b"", name.as_bytes(), hash.as_ref()] {
            put_string(&mut bytes, part);
        }
        Ok(bytes)
    }
}
