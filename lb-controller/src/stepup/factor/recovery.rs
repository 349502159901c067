//! Recovery codes: ten, each good once, for who has lost everything else. Kept as keyed hashes.

use lb_policy::{Method, Strength};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::enrolments::Wanted;
use super::super::random_id::random_bytes;
use super::base32;
use super::keyed_hash::KeyedHash;
use super::{Attempt, Factor, FactorVerified, Failure, Field, Input, Shape, Verify};
use crate::texts::say;

pub(in crate::stepup) const FACTOR: Factor = Factor {
    method: Method::RecoveryCode,
    input: Input {
        name: "recovery",
        label: say::recovery_label,
        hint: say::recovery_hint,
        shape: Shape::Typed(Field { kind: "text", autocomplete: "off", inputmode: "text", is_code: false }),
        refused: say::recovery_refused,
    },
    provable: |owner| {
        let of_method = owner.enrolled.iter().filter(|enrolment| enrolment.method() == Some(Method::RecoveryCode));
        let mut codes = of_method.filter_map(|enrolment| read(&enrolment.record));
        codes.any(|codes| codes.is_usable()).then_some(Strength::Ordinary)
    },
    verify: Verify::Disk(verify),
};

fn read(record: &[u8]) -> Option<RecoveryCodes> {
    serde_json::from_slice(record).ok()
}

fn verify(attempt: &Attempt) -> Result<FactorVerified, Failure> {
    let owner = attempt.account.id.key();
    let enrolled = attempt.enrolled(Method::RecoveryCode, read)?;
    if enrolled.is_empty() {
        return Err(Failure::NotEnrolled);
    }
    for (enrolment, _) in enrolled {
        // Read and used up in one step: of a hundred at once, one finds the code still there.
        let taken = attempt.enrolments.change(&attempt.account.id, &enrolment.id, |enrolment| {
            let codes = read(&enrolment.record).filter(RecoveryCodes::is_usable);
            let Some(left) = codes.and_then(|codes| codes.without(&attempt.tools.keyed, &owner, &attempt.answer))
            else {
                return (Wanted::Nothing, false);
            };
            enrolment.record = left.record().into();
            enrolment.last_used_at = Some(attempt.now);
            (Wanted::Save, true)
        })?;
        if taken == Some(true) {
            return Ok(FactorVerified::new(attempt, Method::RecoveryCode, Strength::Ordinary));
        }
    }
    Err(Failure::Wrong)
}

/// 80 bits.
const CODE_BYTES: usize = 10;
const COUNT: usize = 10;
const PURPOSE: &str = "recovery-code";

/// The codes of one user that were not used yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecoveryCodes {
    hashes: Vec<[u8; 32]>,
    /// One was used, and no other factor was added since: until then no second one works, so that nobody lives on them.
    used_since_enrolment: bool,
}

impl RecoveryCodes {
    /// New codes for `user`: what is kept, and what is shown once.
    pub(crate) fn generate(keyed: &KeyedHash, user: &str) -> (RecoveryCodes, Vec<Zeroizing<String>>) {
        let codes: Vec<_> = (0..COUNT).map(|_| Zeroizing::new(base32::encode(&random_bytes::<CODE_BYTES>()))).collect();
        let hashes = codes.iter().map(|code| keyed.of(PURPOSE, user, code)).collect();
        (RecoveryCodes { hashes, used_since_enrolment: false }, codes)
    }

    /// What is left when `answer` has been used; `None` when it is none of them. The caller stores what is left before
    /// the proof counts, and only if nobody else has changed it meanwhile.
    pub(crate) fn without(&self, keyed: &KeyedHash, user: &str, answer: &str) -> Option<RecoveryCodes> {
        let code = Zeroizing::new(base32::normalized(answer, CODE_BYTES)?);
        let hash = keyed.of(PURPOSE, user, &code);
        // Comparing hashes tells nothing about the codes: nobody can choose a hash.
        let at = self.hashes.iter().position(|candidate| *candidate == hash)?;
        let mut left = self.clone();
        left.hashes.remove(at);
        left.used_since_enrolment = true;
        Some(left)
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.used_since_enrolment && !self.hashes.is_empty()
    }

    /// The record once another factor has been added.
    pub(crate) fn record_after_enrolment(record: &[u8]) -> Option<Vec<u8>> {
        let codes = read(record).filter(|codes| codes.used_since_enrolment)?;
        Some(RecoveryCodes { used_since_enrolment: false, ..codes }.record())
    }

    pub(crate) fn record(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("hashes and a flag")
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.hashes.len()
    }
}

/// As pages show it: `ABCD-EFGH-IJKL-MNOP`.
pub(crate) fn grouped(code: &str) -> String {
    let groups: Vec<&str> = code.as_bytes().chunks(4).filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ten_different_codes_work_once_each() {
        let keyed = KeyedHash::for_tests();
        let (mut codes, shown) = RecoveryCodes::generate(&keyed, "alice");
        assert_eq!(shown.iter().map(|code| code.as_str()).collect::<HashSet<_>>().len(), COUNT);
        for code in &shown {
            assert_eq!(code.len(), 16);
            let left = codes.without(&keyed, "alice", &grouped(code).to_lowercase()).unwrap();
            assert_eq!(left.left(), codes.left() - 1);
            assert!(left.without(&keyed, "alice", code).is_none(), "used before");
            codes = left;
        }
        assert_eq!(codes.left(), 0);
    }

    #[test]
    fn codes_are_their_owners_and_nothing_kept_shows_them() {
        let keyed = KeyedHash::for_tests();
        let (codes, shown) = RecoveryCodes::generate(&keyed, "alice");
        assert!(codes.without(&keyed, "bob", &shown[0]).is_none());
        for wrong in ["", "AAAA-AAAA-AAAA-AAAA", "not a code", &shown[0][..15]] {
            assert!(codes.without(&keyed, "alice", wrong).is_none(), "{wrong}");
        }
        let kept = serde_json::to_string(&codes).unwrap();
        assert!(shown.iter().all(|code| !kept.contains(code.as_str())));
        assert_eq!(serde_json::from_str::<RecoveryCodes>(&kept).unwrap(), codes);
    }
}
