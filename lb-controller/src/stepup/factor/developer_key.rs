//! Developer keys: an SSH key signs the text that says what is approved (`ssh-keygen -Y sign`, OpenSSH PROTOCOL.sshsig).

mod authorized;
mod sshsig;
#[cfg(test)]
mod tests;
mod wire;

use lb_policy::{Method, Strength};

pub(crate) use self::authorized::DeveloperKey;
use self::sshsig::SshSignature;
use super::{Attempt, Factor, FactorVerified, Failure, Input, Shape, Verify};
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::DeveloperKey,
    input: Input {
        name: "signature",
        label: say::developer_key_label,
        hint: say::developer_key_hint,
        shape: Shape::Signature,
        refused: say::developer_key_refused,
    },
    provable: |owner| owner.has(Method::DeveloperKey).then_some(Strength::Ordinary),
    verify: Verify::Disk(verify_attempt),
};

fn verify_attempt(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let read = |record: &[u8]| DeveloperKey::parse(str::from_utf8(record).ok()?).ok();
    let (enrolments, keys): (Vec<_>, Vec<_>) = attempt.enrolled(Method::DeveloperKey, read)?.into_iter().unzip();
    if keys.is_empty() {
        return Err(Failure::NotEnrolled);
    }
    let signer = verify(&attempt.answer, &attempt.aim()?.approval.text, &keys)?;
    let at = keys.iter().position(|key| key == signer).ok_or(Failure::NotEnrolled)?;
    if !attempt.used(&enrolments[at])? {
        return Err(Failure::NotEnrolled);
    }
    Ok(FactorVerified::new(attempt, Method::DeveloperKey, Strength::Ordinary))
}

/// Signatures made for anything else, such as a commit, are for another namespace and prove nothing here.
pub(crate) const NAMESPACE: &str = "step-up@lb";

/// Why a signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed")]
    Malformed,
    #[error("wrong-namespace")]
    Namespace,
    #[error("unknown-key")]
    UnknownKey,
    /// A kind of key or signature that is too weak, or that is not known here.
    #[error("algorithm")]
    Algorithm,
    #[error("user-not-present")]
    NotPresent,
    #[error("wrong-signature")]
    Signature,
}

/// Which of `enrolled` signed `text`: an armored signature as `ssh-keygen -Y sign -n step-up@lb` writes it.
pub(crate) fn verify<'k>(armored: &str, text: &str, enrolled: &'k [DeveloperKey]) -> Result<&'k DeveloperKey, Refusal> {
    let signature = SshSignature::parse(armored)?;
    if signature.namespace != NAMESPACE {
        return Err(Refusal::Namespace);
    }
    let key = enrolled.iter().find(|key| key.blob == signature.public_key).ok_or(Refusal::UnknownKey)?;
    key.verify(&signature.signed_bytes(text)?, &signature.signature)?;
    Ok(key)
}
