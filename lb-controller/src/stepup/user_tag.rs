//! What the audit trail calls a user: the same tag for the same name, and no way back to it without our key.

use std::path::Path;

use anyhow::Result;
use aws_lc_rs::hmac;

use super::private_file;
use super::random_id::hex;
use super::session::Session;

pub(super) struct UserTags(hmac::Key);

impl UserTags {
    /// Reads the key of `directory`, or makes it. It is never rotated: tags would no longer compare.
    pub(super) fn open(directory: &Path) -> Result<UserTags> {
        let secret = private_file::secret(&directory.join("audit-key"))?;
        Ok(UserTags(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    pub(super) fn tag(&self, user: &str) -> String {
        hex(&hmac::sign(&self.0, user.as_bytes()).as_ref()[..8])
    }

    /// Of the login that a session came of. No user's name holds the NUL that stands before it.
    pub(super) fn tag_of_login(&self, session: &Session) -> String {
        hex(&hmac::sign(&self.0, &[b"\0login", &session.login_id()[..]].concat()).as_ref()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_keeps_the_tag_over_a_restart_and_shares_it_with_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let tag = UserTags::open(directory.path()).unwrap().tag("alice");
        let reopened = UserTags::open(directory.path()).unwrap();
        assert_eq!(reopened.tag("alice"), tag);
        assert_ne!(reopened.tag("bob"), tag);
        assert!(!tag.contains("alice"));
    }
}
