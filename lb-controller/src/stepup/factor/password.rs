//! Passwords, hashed with Argon2id (RFC 9106).

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use lb_policy::{Method, Strength};

use super::super::random_id::random_bytes;
use super::{Attempt, Factor, FactorVerified, Failure, Field, Input, Shape, Verify};
use crate::config::User;
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::Password,
    input: Input {
        name: "password",
        label: say::password_label,
        hint: say::password_hint,
        shape: Shape::Typed(Field {
            kind: "password",
            autocomplete: "current-password",
            inputmode: "text",
            is_code: false,
        }),
        refused: say::password_refused,
    },
    provable: |owner| owner.account.built_in.as_ref().map(|_| Strength::Ordinary),
    verify: Verify::Hashing(verify),
};

/// The PHC string of `password` under a fresh salt, with the parameters that OWASP recommends (19 MiB, two passes).
pub(crate) fn hash(password: &str) -> anyhow::Result<String> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    let salt: [u8; 16] = random_bytes();
    let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| anyhow::anyhow!("the password cannot be hashed: {error}"))?.to_string())
}

fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let user = attempt.account.built_in.as_ref().ok_or(Failure::NotEnrolled)?;
    if matches(&user.password_hash, &attempt.answer) {
        Ok(FactorVerified::new(attempt, Method::Password, Strength::Ordinary))
    } else {
        Err(Failure::Wrong)
    }
}

/// Takes as long as verifying `answer` against this user's password, and proves nothing: for names that do not exist.
pub(in crate::stepup) fn spend_the_same_time(somebody: &User, answer: &str) {
    std::hint::black_box(matches(&somebody.password_hash, answer));
}

pub(super) fn matches(phc: &str, password: &str) -> bool {
    // The cost parameters come from the hash; the algorithm must be the one that compiling the configuration checked.
    PasswordHash::new(phc).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_takes_its_own_password_and_no_other() {
        let phc = hash("correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        for (password, expected) in [("correct horse", true), ("correct horse ", false), ("", false)] {
            assert_eq!(matches(&phc, password), expected, "{password:?}");
        }
        assert!(!matches("not a hash", "correct horse"));
    }
}
