//! Step-up transactions: one request that needs proof, what is to be proved, and what has been. Kept in memory, bounded,
//! each for ten minutes, and each good for one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use lb_policy::{Method, ProvedFactor, Requirement, ShownFact, UnixSeconds};

use super::cookies::MOST_TRANSACTIONS;
use super::counters::ByMethod;
use super::factor::approval::Approval;
use super::parking::Parked;
use super::random_id::{RandomId, random_bytes};
use super::terms::{Terms, is_per_action};

pub(super) struct Transaction {
    /// The login it belongs to. Not the session's id: that changes with every rise, and other tabs go on.
    pub(super) login: RandomId,
    pub(super) user: String,
    /// Opened by a browser that has proved more than the user's password before: others do not make it go.
    pub(super) device_known: bool,
    /// Of the value in the transaction's cookie: whoever has only the URL has nothing.
    pub(super) secret_hash: [u8; 32],
    pub(super) opened_at: UnixSeconds,
    pub(super) expires_at: UnixSeconds,
    pub(super) request: BoundRequest,
    /// What people are shown of it.
    pub(super) shown: Vec<ShownFact>,
    pub(super) unmet: Vec<(Arc<str>, Requirement)>,
    pub(super) terms: Terms,
    /// Proving all of any one of them will do; never empty.
    pub(super) ways: Vec<Vec<Method>>,
    pub(super) proved: Vec<ProvedFactor>,
    pub(super) tries_left: u8,
    /// Ways to an identity provider.
    pub(super) trips_left: u8,
    /// What the next proof that commits to this request must contain; each try has a new one.
    pub(super) nonce: [u8; 32],
    pub(super) onward: Onward,
}

/// The request a transaction is about, as far as it must be the same again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BoundRequest {
    pub(super) method: http::Method,
    pub(super) authority: String,
    pub(super) target: String,
    /// Of what else it says that rules or a backend may go by; see [`super::bound`].
    pub(super) headers_sha256: [u8; 32],
    /// `None`: the body was not read, so no proof can be tied to it.
    pub(super) body_sha256: Option<[u8; 32]>,
}

/// How the request goes on once everything is proved.
pub(super) enum Onward {
    /// The browser is sent back to the original path.
    Redirect,
    /// The browser posts to the original URL, and the parked body takes the place of what it posts.
    Parked(Box<Parked>),
    /// It was too large to keep: the browser's user sends it again.
    Retry,
    /// It came from a script or a tool, which sends it again. What it takes to prove may be opened in a browser.
    Elsewhere,
}

/// What pages show of a transaction.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) request: BoundRequest,
    pub(super) shown: Vec<ShownFact>,
    pub(super) secret_hash: [u8; 32],
    pub(super) opened_at: UnixSeconds,
    pub(super) expires_at: UnixSeconds,
    pub(super) nonce: [u8; 32],
    pub(super) unmet: Vec<(Arc<str>, Requirement)>,
    pub(super) terms: Terms,
    /// Still to be proved on the way that is nearest its end, the next one first.
    pub(super) missing: Vec<Method>,
    /// What could be proved next on other ways.
    pub(super) instead: Vec<Method>,
    pub(super) proved_count: usize,
    pub(super) tries_left: u8,
    pub(super) onward: OnwardKind,
}

impl View {
    /// What a proof now would approve.
    pub(super) fn approval<'a>(&'a self, user: &'a str) -> Approval<'a> {
        Approval {
            user,
            authority: &self.request.authority,
            method: self.request.method.as_str(),
            target: &self.request.target,
            facts: &self.shown,
            body_sha256: self.request.body_sha256,
            nonce: self.nonce,
            expires_at: self.expires_at,
        }
    }

    /// The ids of the rules that asked.
    pub(super) fn rules(&self) -> impl Iterator<Item = &str> {
        self.unmet.iter().map(|(rule, _)| &**rule)
    }

    /// What is proved counts for this request alone.
    pub(super) fn is_per_action(&self) -> bool {
        self.unmet.iter().any(|(_, requirement)| is_per_action(requirement))
    }

    /// Everything that may be answered next.
    pub(super) fn askable(&self) -> impl Iterator<Item = Method> {
        self.missing.iter().chain(&self.instead).copied()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnwardKind {
    Redirect,
    Parked,
    Retry,
    Elsewhere,
}

/// Why a transaction is of no use to this client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Finished, expired, given up, or never there.
    Gone,
    /// It belongs to another login, or was begun in another browser.
    NotYours,
    /// Something is still to be proved.
    Unproved,
    /// It is for another request.
    OtherRequest,
    NoTriesLeft,
    /// It leads to another site's pages.
    NeedsBrowser,
}

impl Refused {
    /// For the audit trail, and the last part of the problem's URN.
    pub(super) fn name(self) -> &'static str {
        match self {
            Refused::Gone => "transaction-gone",
            Refused::NotYours => "transaction-not-yours",
            Refused::Unproved => "unproved",
            Refused::OtherRequest => "other-request",
            Refused::NoTriesLeft => "no-tries-left",
            Refused::NeedsBrowser => "needs-browser",
        }
    }
}

/// Who asks for a transaction: both must be the ones it was opened with.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) login: RandomId,
    /// The value of the transaction's cookie; `None` when it did not come.
    pub(super) secret: Option<&'a str>,
    pub(super) now: UnixSeconds,
}

#[derive(Default)]
pub(super) struct Transactions {
    open: Mutex<HashMap<RandomId, Transaction>>,
    /// Those that ended with something still to be proved.
    abandoned: ByMethod,
}

/// With the longest targets that the guard lets through, some 100 MiB. Each needs a login, so this is far away.
const MOST: usize = 16 * 1024;
/// Whoever logs in again and again must not take all the room there is.
const MOST_PER_USER: usize = 64;
pub(super) const TRIES: u8 = 5;
/// One, and one more: a provider that cannot give what is asked for must not be asked for ever.
pub(super) const TRIPS: u8 = 2;

impl Transactions {
    /// Opens one. Returns the ids that had to make room: the oldest of the same login, or user. `None` when there is no
    /// room at all.
    pub(super) fn open(&self, id: RandomId, transaction: Transaction, now: UnixSeconds) -> Option<Vec<RandomId>> {
        let mut open = self.lock();
        let mut evicted = self.evict(&mut open, MOST_TRANSACTIONS, |other| other.login == transaction.login);
        evicted.extend(self.evict(&mut open, MOST_PER_USER, |other| {
            (&other.user, other.device_known) == (&transaction.user, transaction.device_known)
        }));
        if open.len() >= MOST {
            self.keep(&mut open, |other| other.expires_at > now);
        }
        if open.len() >= MOST {
            return None;
        }
        open.insert(id, transaction);
        Some(evicted)
    }

    pub(super) fn view(&self, id: &RandomId, claim: Claim<'_>) -> Result<View, Refused> {
        Ok(claimed(&mut self.lock(), id, claim)?.view())
    }

    /// Takes one try, before the answer is checked: answers sent at once count each. The last one that fails ends the
    /// transaction.
    pub(super) fn take_try(&self, id: &RandomId, claim: Claim<'_>) -> Result<View, Refused> {
        let mut open = self.lock();
        let transaction = claimed(&mut open, id, claim)?;
        let Some(left) = transaction.tries_left.checked_sub(1) else {
            return Err(Refused::NoTriesLeft);
        };
        let view = transaction.view();
        transaction.tries_left = left;
        transaction.nonce = random_bytes();
        Ok(View { tries_left: left, ..view })
    }

    /// Gives back a try whose answer was not checked.
    pub(super) fn return_try(&self, id: &RandomId) {
        if let Some(transaction) = self.lock().get_mut(id) {
            transaction.tries_left = (transaction.tries_left + 1).min(TRIES);
        }
    }

    /// Takes one way to an identity provider.
    pub(super) fn take_trip(&self, id: &RandomId, claim: Claim<'_>) -> Result<(), Refused> {
        let mut open = self.lock();
        let transaction = claimed(&mut open, id, claim)?;
        transaction.trips_left = transaction.trips_left.checked_sub(1).ok_or(Refused::NoTriesLeft)?;
        Ok(())
    }

    /// Gives back one that led nowhere, because the provider does not answer.
    pub(super) fn return_trip(&self, id: &RandomId) {
        if let Some(transaction) = self.lock().get_mut(id) {
            transaction.trips_left = (transaction.trips_left + 1).min(TRIPS);
        }
    }

    /// Records a proof.
    pub(super) fn prove(&self, id: &RandomId, claim: Claim<'_>, proved: ProvedFactor) -> Result<View, Refused> {
        let mut open = self.lock();
        let transaction = claimed(&mut open, id, claim)?;
        transaction.proved.retain(|other| other.method != proved.method);
        transaction.proved.push(proved);
        transaction.tries_left = TRIES;
        Ok(transaction.view())
    }

    /// Hands the transaction over, once: of any number of callers one gets it. Left as it was when it is not fully
    /// proved, or when `matches` says it is for another request.
    pub(super) fn consume(
        &self,
        id: &RandomId,
        claim: Claim<'_>,
        matches: impl FnOnce(&Transaction) -> bool,
    ) -> Result<Transaction, Refused> {
        let mut open = self.lock();
        let transaction = claimed(&mut open, id, claim)?;
        if !transaction.missing().is_empty() {
            return Err(Refused::Unproved);
        }
        if !matches(transaction) {
            return Err(Refused::OtherRequest);
        }
        open.remove(id).ok_or(Refused::Gone)
    }

    /// Undoes [`Transactions::consume`] where the request did not go on after all. One given up meanwhile, with its login,
    /// is claimed by nobody and swept in its time.
    pub(super) fn put_back(&self, id: RandomId, transaction: Transaction) {
        self.lock().insert(id, transaction);
    }

    /// Forgets those whose time is over, and everything parked with them.
    pub(super) fn sweep(&self, now: UnixSeconds) {
        self.keep(&mut self.lock(), |transaction| transaction.expires_at > now);
    }

    /// Forgets everything of a login that ended.
    pub(super) fn forget_login(&self, login: &RandomId) {
        self.keep(&mut self.lock(), |transaction| transaction.login != *login);
    }

    /// Counts what ends unfinished.
    pub(super) fn abandoned(&self) -> ByMethod {
        self.abandoned.clone()
    }

    fn keep(&self, open: &mut HashMap<RandomId, Transaction>, is_kept: impl Fn(&Transaction) -> bool) {
        open.retain(|_, transaction| {
            let is_kept = is_kept(transaction);
            if !is_kept {
                self.count_if_abandoned(transaction);
            }
            is_kept
        });
    }

    /// Removes the oldest of those that are alike, so that with one more there are `most`.
    fn evict(
        &self,
        open: &mut HashMap<RandomId, Transaction>,
        most: usize,
        is_alike: impl Fn(&Transaction) -> bool,
    ) -> Vec<RandomId> {
        let alike = open.iter().filter(|(_, other)| is_alike(other));
        let mut alike: Vec<_> = alike.map(|(id, other)| (other.expires_at, *id)).collect();
        alike.sort_by_key(|(expires_at, _)| *expires_at);
        let surplus = (alike.len() + 1).saturating_sub(most);
        let evicted: Vec<_> = alike.into_iter().take(surplus).map(|(_, id)| id).collect();
        for transaction in evicted.iter().filter_map(|id| open.remove(id)) {
            self.count_if_abandoned(&transaction);
        }
        evicted
    }

    fn count_if_abandoned(&self, transaction: &Transaction) {
        if let Some(method) = transaction.missing().first() {
            self.abandoned.get_or_create(&[("method", method.name())]).inc();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RandomId, Transaction>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

fn claimed<'t>(
    open: &'t mut HashMap<RandomId, Transaction>,
    id: &RandomId,
    claim: Claim<'_>,
) -> Result<&'t mut Transaction, Refused> {
    let transaction = open.get_mut(id).filter(|transaction| transaction.expires_at > claim.now).ok_or(Refused::Gone)?;
    let same_browser = claim
        .secret
        .is_some_and(|secret| verify_slices_are_equal(&hash_secret(secret), &transaction.secret_hash).is_ok());
    if transaction.login != claim.login || !same_browser {
        return Err(Refused::NotYours);
    }
    Ok(transaction)
}

pub(super) fn hash_secret(secret: &str) -> [u8; 32] {
    sha256(secret.as_bytes())
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

impl Transaction {
    pub(super) fn is_per_action(&self) -> bool {
        self.unmet.iter().any(|(_, requirement)| is_per_action(requirement))
    }

    /// What each way still takes.
    fn open_ways(&self) -> impl Iterator<Item = Vec<Method>> {
        let is_proved = |method: &Method| self.proved.iter().any(|proved| proved.method == *method);
        self.ways.iter().map(move |way| way.iter().copied().filter(|method| !is_proved(method)).collect())
    }

    /// What the way that is nearest its end still takes; of several the first.
    fn missing(&self) -> Vec<Method> {
        self.open_ways().min_by_key(Vec::len).unwrap_or_default()
    }

    fn instead(&self, missing: &[Method]) -> Vec<Method> {
        let mut instead: Vec<Method> = Vec::new();
        for method in self.open_ways().flatten() {
            if !missing.contains(&method) && !instead.contains(&method) {
                instead.push(method);
            }
        }
        instead
    }

    fn view(&self) -> View {
        let missing = self.missing();
        View {
            request: self.request.clone(),
            shown: self.shown.clone(),
            secret_hash: self.secret_hash,
            opened_at: self.opened_at,
            expires_at: self.expires_at,
            nonce: self.nonce,
            unmet: self.unmet.clone(),
            terms: self.terms.clone(),
            instead: self.instead(&missing),
            missing,
            proved_count: self.proved.len(),
            tries_left: self.tries_left,
            onward: match self.onward {
                Onward::Redirect => OnwardKind::Redirect,
                Onward::Parked(_) => OnwardKind::Parked,
                Onward::Retry => OnwardKind::Retry,
                Onward::Elsewhere => OnwardKind::Elsewhere,
            },
        }
    }
}

#[cfg(test)]
mod tests;
