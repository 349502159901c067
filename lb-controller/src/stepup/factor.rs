//! Factors: each module verifies one kind of proof. To add one: its file and a line in [`FACTORS`].

pub(super) mod approval;
pub(super) mod base32;
mod captcha;
pub(in crate::stepup) mod certificate;
pub(super) mod developer_key;
pub(super) mod email;
pub(super) mod external;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub(super) mod fuzzing;
pub(in crate::stepup) mod idp;
pub(super) mod keyed_hash;
pub(super) mod passkey;
pub(crate) mod password;
pub(super) mod pin;
pub(super) mod proof_of_work;
mod public_key;
pub(super) mod recovery;
pub(super) mod sent_code;
pub(super) mod services;
pub(super) mod sms;
pub(in crate::stepup) mod token;
pub(crate) mod totp;

use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use lb_policy::{Method, ProvedFactor, Strength, UnixSeconds};
use zeroize::Zeroizing;

use self::approval::Approved;
use self::keyed_hash::KeyedHash;
use self::proof_of_work::{Difficulty, ProofOfWork, Scope};
use self::sent_code::SentCodes;
use self::services::Services;
use super::account::{Account, AccountId};
use super::enrolments::{Enrolment, Enrolments, Wanted};
use super::form::FORM_LIMIT_BYTES;
use super::random_id::RandomId;
use crate::config::FactorsConfig;
use crate::store::{Store, StoreError};
use crate::texts::{Message, say};

const FACTORS: &[&Factor] = &[
    &password::FACTOR,
    &pin::FACTOR,
    &passkey::FACTOR,
    &totp::FACTOR,
    &developer_key::FACTOR,
    &recovery::FACTOR,
    &email::FACTOR,
    &sms::FACTOR,
    &external::FACTOR,
    &proof_of_work::FACTOR,
];

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

    #[cfg(test)]
    pub(super) fn in_tests(account: &AccountId, method: Method, at: UnixSeconds) -> FactorVerified {
        FactorVerified { account: account.clone(), proved: ProvedFactor::ordinary(method, at), also: Vec::new() }
    }

    pub(super) fn account(&self) -> &AccountId {
        &self.account
    }

    pub(super) fn proved(&self) -> ProvedFactor {
        self.proved
    }

    pub(super) fn into_account(self) -> AccountId {
        self.account
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
    pub(super) provable: fn(&Owner<'_>) -> Option<Strength>,
    pub(super) verify: Verify,
}

/// Whose factors are looked at.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) account: &'a Account,
    pub(super) enrolled: &'a [Enrolment],
    pub(super) config: &'a FactorsConfig,
}

impl Owner<'_> {
    fn has(&self, method: Method) -> bool {
        self.enrolled.iter().any(|enrolment| enrolment.method() == Some(method))
    }
}

/// Where an answer is checked: never on a worker thread.
#[derive(Clone, Copy)]
pub(super) enum Verify {
    /// Takes as long as a password hash, and waits among them.
    Hashing(Check),
    /// Takes as long as a disk write at most.
    Disk(Check),
    /// Asks somebody else.
    Service(for<'a> fn(&'a Attempt) -> Asking<'a>),
}

pub(super) type Check = fn(&Attempt) -> Result<FactorVerified, Failure>;
pub(super) type Asking<'a> = Pin<Box<dyn Future<Output = Result<FactorVerified, Failure>> + Send + 'a>>;

/// How a page asks for it.
#[derive(Debug)]
pub(super) struct Input {
    /// The form field.
    pub(super) name: &'static str,
    pub(super) label: Say,
    /// Where the user finds it.
    pub(super) hint: Say,
    pub(super) shape: Shape,
    /// What the page says when the answer is refused. It is the same for every reason, or it would help who guesses.
    pub(super) refused: Say,
}

/// A text, in whatever language it is then shown.
pub(super) type Say = fn() -> Message;

/// What the user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Types something that is known or at hand.
    Typed(Field),
    /// Asks for a code, then types it.
    Sent(Field),
    /// Lets the browser ask a passkey; needs JavaScript.
    Passkey,
    /// Signs a text elsewhere and pastes the signature.
    Signature,
    /// Lets the browser work; needs JavaScript, or somebody else's captcha.
    Work,
}

/// HTML `type`, `autocomplete` and `inputmode`: they bring up the right keyboard and let password managers help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) kind: &'static str,
    pub(super) autocomplete: &'static str,
    pub(super) inputmode: &'static str,
    /// The answer is so short that it is shown in large, spaced characters.
    pub(super) is_code: bool,
}

/// A line of text.
pub(super) const PLAIN_FIELD: Field = Field { kind: "text", autocomplete: "off", inputmode: "text", is_code: false };

impl Shape {
    pub(super) fn longest_answer_bytes(self) -> usize {
        match self {
            Shape::Typed(_) | Shape::Sent(_) => 1024,
            Shape::Passkey | Shape::Signature | Shape::Work => FORM_LIMIT_BYTES,
        }
    }
}

/// One answer to be checked.
pub(super) struct Attempt {
    pub(super) account: Account,
    pub(super) answer: Zeroizing<String>,
    pub(super) now: UnixSeconds,
    pub(super) store: Arc<Store>,
    pub(super) enrolments: Arc<Enrolments>,
    pub(super) tools: Arc<Tools>,
    pub(super) services: Arc<Services>,
    /// `None`: it opens a login, and is for nothing else.
    pub(super) aim: Option<Aim>,
}

/// What a proof is for.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub(super) transaction: RandomId,
    /// Of the transaction's cookie.
    pub(super) browser: [u8; 32],
    /// What is approved; see [`approval`].
    pub(super) approval: Approved,
    pub(super) client: IpAddr,
    pub(super) host: String,
    /// Ids of those that asked, after commas.
    pub(super) rules: String,
    /// Of puzzles, at this time.
    pub(super) difficulty: Difficulty,
}

impl Aim {
    /// What a puzzle is good for.
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { client: self.client, rules: &self.rules, difficulty: self.difficulty }
    }
}

impl Attempt {
    /// The account's enrolments of one method, each with what `read` makes of its record; those it cannot read are left
    /// out.
    fn enrolled<T>(&self, method: Method, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<(Enrolment, T)>, Failure> {
        let of_method = self.enrolments.of(&self.account.id)?.into_iter().filter(|one| one.method() == Some(method));
        Ok(of_method.filter_map(|enrolment| read(&enrolment.record).map(|record| (enrolment, record))).collect())
    }

    fn aim(&self) -> Result<&Aim, Failure> {
        self.aim.as_ref().ok_or(Failure::NotEnrolled)
    }

    /// Remembers that an enrolment has proved its owner; `false`: it was removed meanwhile.
    fn used(&self, enrolment: &Enrolment) -> Result<bool, Failure> {
        let changed = self.enrolments.change(&self.account.id, &enrolment.id, |enrolment| {
            enrolment.last_used_at = Some(self.now);
            (Wanted::Save, ())
        })?;
        Ok(changed.is_some())
    }
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
    #[error(transparent)]
    Passkey(#[from] passkey::Refusal),
    #[error(transparent)]
    DeveloperKey(#[from] developer_key::Refusal),
    #[error(transparent)]
    Work(#[from] proof_of_work::Refusal),
    #[error(transparent)]
    Captcha(captcha::Refusal),
    /// Whoever should have checked it could not be asked.
    #[error("unavailable")]
    Unavailable(String),
    /// Nothing is proved while it cannot be recorded: a code could be used again after a crash.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// For metrics: whether it was checked, and why it proves nothing. What is not of a fixed list stays out.
    pub(super) fn labels(&self) -> (&'static str, String) {
        match self {
            Failure::Store(_) => ("unchecked", "store".to_owned()),
            Failure::Unavailable(_) => ("unchecked", "unavailable".to_owned()),
            other => ("refused", other.to_string()),
        }
    }

    /// Nothing was checked, so nobody has guessed.
    pub(super) fn is_unchecked(&self) -> bool {
        matches!(self, Failure::Store(_) | Failure::Unavailable(_))
    }
}

/// What verifying needs beside the store: all of it in memory, all of it bounded.
pub(super) struct Tools {
    pub(super) codes: SentCodes,
    pub(super) work: ProofOfWork,
    pub(super) keyed: KeyedHash,
}

impl Tools {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Tools> {
        Ok(Tools { codes: SentCodes::new(), work: ProofOfWork::new(), keyed: KeyedHash::open(directory)? })
    }
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
pub(super) fn label(method: Method) -> Message {
    match (method, of(method)) {
        (_, Some(factor)) => (factor.input.label)(),
        (Method::IdentityProvider, None) => say::idp_label(),
        (Method::ClientCertificate, None) => say::certificate_label(),
        (method, None) => Message::Literal(method.name().to_owned()),
    }
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
