//! Keyed hashes of secrets that must be recognised but never read back.

use std::path::Path;

use anyhow::Result;
use aws_lc_rs::hmac;

use super::super::private_file;
use super::super::random_id::random_bytes;

/// HMAC-SHA-256 under a key that never leaves the state folder.
pub(crate) struct KeyedHash(hmac::Key);

const FILE: &str = "factor-key";

impl KeyedHash {
    /// Reads the key of `directory`, or makes it. It is never rotated: nothing hashed before would be recognised.
    pub(crate) fn open(directory: &Path) -> Result<KeyedHash> {
        let path = directory.join(FILE);
        let secret = match private_file::read(&path)? {
            Some(secret) => secret,
            None => {
                let secret = random_bytes::<32>().to_vec();
                private_file::replace(&path, &secret)?;
                secret
            }
        };
        anyhow::ensure!(
            secret.len() == 32,
            "{} is damaged; delete it to make a new one: recovery codes and enrolment tokens given out before are void",
            path.display()
        );
        Ok(KeyedHash(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// `purpose` and `owner` hold no NUL, so one secret of two owners has two hashes.
    pub(crate) fn of(&self, purpose: &str, owner: &str, secret: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.0, [purpose, owner, secret].join("\0").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> KeyedHash {
        KeyedHash(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]))
    }
}
