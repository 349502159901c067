//! Factors: each module verifies one kind of proof. To add one: its file and a line in [`FACTORS`].

pub(in crate::stepup) mod certificate;
pub(in crate::stepup) mod idp;
pub(crate) mod password;
pub(in crate::stepup) mod token;
pub(crate) mod totp;

use std::sync::Arc;

use lb_policy::{Method, ProvedFactor, Strength, UnixSeconds};
use zeroize::Zeroizing;

use super::account::{Account, AccountId};
use super::enrolments::Enrolment;
use crate::store::{Store, StoreError};

const FACTORS: &[&Factor] = &[&password::FACTOR, &totp::FACTOR];

/// Proof that `account` has just shown `proved.method`. Only the modules below can make one, and sessions begin and rise
/// only from one.
#[derive(Debug)]
pub(super) struct FactorVerified {
    account: AccountId,
    proved: ProvedFactor,
    /// What else the same proof shows: the methods that an identity provider says were used.
    also: Vec<ProvedFactor>,
}

impl FactorVerified {
    fn new(attempt: &Attempt, method: Method, strength: Strength) -> FactorVerified {
        FactorVerified {
            account: attempt.account.id.clone(),
            proved: ProvedFactor { method, at: attempt.now, strength },
            also: Vec::new(),
        }
    }

    pub(super) fn account(&self) -> &AccountId {
        &self.account
    }

    pub(super) fn proved(&self) -> ProvedFactor {
        self.proved
    }

    /// Everything that it shows.
    pub(super) fn all(&self) -> impl Iterator<Item = ProvedFactor> {
        std::iter::once(self.proved).chain(self.also.iter().copied())
    }
}

/// One kind of proof.
pub(super) struct Factor {
    pub(super) method: Method,
    pub(super) input: Input,
    /// How strong a proof the account could give; `None`: it has no such factor.
    pub(super) provable: fn(&Account, &[Enrolment]) -> Option<Strength>,
    /// May take as long as a password hash or a disk write: never call it on a worker thread.
    pub(super) verify: fn(&Attempt) -> Result<FactorVerified, Failure>,
}

/// How a page asks for it.
#[derive(Debug)]
pub(super) struct Input {
    /// The form field.
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// Where the user finds it.
    pub(super) hint: &'static str,
    /// HTML `type`, `autocomplete` and `inputmode`: they bring up the right keyboard and let password managers help.
    pub(super) kind: &'static str,
    pub(super) autocomplete: &'static str,
    pub(super) inputmode: &'static str,
    /// The answer is so short that it is shown in large, spaced digits.
    pub(super) is_code: bool,
    /// What the page says when the answer is refused. It is the same for every reason, or it would help who guesses.
    pub(super) refused: &'static str,
}

/// One answer to be checked.
pub(super) struct Attempt {
    pub(super) account: Account,
    pub(super) answer: Zeroizing<String>,
    pub(super) now: UnixSeconds,
    pub(super) store: Arc<Store>,
}

/// Why an answer proves nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("wrong")]
    Wrong,
    #[error("replayed")]
    Replayed,
    #[error("not-enrolled")]
    NotEnrolled,
    /// Nothing is proved while it cannot be recorded: a code could be used again after a crash.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The factor that verifies `method`; `None`: nobody is asked for it on a page.
pub(super) fn of(method: Method) -> Option<&'static Factor> {
    FACTORS.iter().copied().find(|factor| factor.method == method)
}

/// All of them, those to be asked for first in front.
pub(super) fn all() -> impl Iterator<Item = &'static Factor> {
    Method::all().filter_map(of)
}

/// What people call it.
pub(super) fn label(method: Method) -> &'static str {
    of(method).map_or(method.name(), |factor| factor.input.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_factor_has_a_method_and_a_field_of_its_own() {
        let names: std::collections::BTreeSet<_> = all().map(|factor| factor.input.name).collect();
        assert_eq!(names.len(), FACTORS.len());
    }
}
