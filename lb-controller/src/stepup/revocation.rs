//! Sessions that ended before their cookie expired: by logout, by a rise in level, or by a fresh login.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use lb_policy::UnixSeconds;

use super::account::AccountId;
use super::random_id::RandomId;
use super::session::Session;
use crate::identity;
use crate::store::{Revoked, Store, StoreError};

/// What ended early, in memory for every request to ask and on disk for the next start.
pub(super) struct Revocations {
    live: RwLock<Live>,
    /// Asked before: to read the others takes a lock, and workers that take it for every request pass it to each other.
    hints: Arc<Hints>,
    store: Arc<Store>,
    /// What ended here is not all on disk: a write failed, and is made up for when the disk takes one again.
    unrecorded: AtomicBool,
}

#[derive(Default)]
struct Live {
    ended: HashMap<[u8; 16], Revoked>,
    by_user: HashMap<[u8; 16], Vec<[u8; 16]>>,
    hints: Arc<Hints>,
}

/// A bit for each id that ended, at a place that follows from the id. Where it is not set nothing of that id has ended; where it
/// is, another one may have set it. Seldom written, so every CPU keeps its copy.
struct Hints(Box<[AtomicU64]>);

/// 64 KiB: of ten thousand that ended, one question in fifty is asked in vain.
const HINT_WORDS: usize = 8_192;

/// Beyond this many, a user's sessions are ended as a whole: whoever logs in and out in a loop must not grow our memory.
const LIMIT_PER_USER: usize = 1024;

impl Revocations {
    pub(super) fn open(store: Arc<Store>, now: UnixSeconds) -> Result<Revocations, StoreError> {
        let mut live = Live::default();
        for revoked in store.revoked(now)? {
            live.insert(revoked);
        }
        let hints = live.hints.clone();
        Ok(Revocations { live: RwLock::new(live), hints, store, unrecorded: AtomicBool::new(false) })
    }

    pub(super) fn is_ended(&self, session: &Session) -> bool {
        self.is_any_ended([*session.id.bytes()], session) || self.is_login_ended(session)
    }

    /// As [`Revocations::is_ended`], but for a rise in level, which ends a session and not its login.
    pub(super) fn is_login_ended(&self, session: &Session) -> bool {
        let ids = [*session.login.bytes(), user_id(session.account())];
        self.is_any_ended(ids.into_iter().chain(session.ids_at_provider()), session)
    }

    fn is_any_ended(&self, ids: impl IntoIterator<Item = [u8; 16]>, session: &Session) -> bool {
        let mut hinted = ids.into_iter().filter(|id| self.hints.may_have(id)).peekable();
        if hinted.peek().is_none() {
            return false;
        }
        let live = self.live.read().expect("no holder of this lock panics");
        hinted.any(|id| live.ended.get(&id).is_some_and(|revoked| session.issued_at <= revoked.ended_at))
    }

    /// Ends this one session, at once and durably, for one that is raised to take its place. `false`: it had ended before,
    /// so whoever asks lost a race and must not act for the session. One that cannot be recorded goes on: there is nothing
    /// in its place. Blocks on the disk.
    pub(super) fn end_session(&self, session: &Session, now: UnixSeconds) -> Result<bool, StoreError> {
        let Some((recorded, superseded)) = self.begin_end(&session.id, session, now) else { return Ok(false) };
        let written = self.store.revoke(recorded, &superseded);
        if written.is_err() {
            if superseded.is_empty() {
                self.live.write().expect("no holder of this lock panics").take_back(&recorded);
            } else {
                self.unrecorded.store(true, Ordering::Relaxed);
            }
        }
        written.map(|()| true)
    }

    /// Ends everything that came of this login, here at once even when it cannot be recorded. Blocks on the disk.
    pub(super) fn end_login(&self, session: &Session, now: UnixSeconds) -> Result<(), StoreError> {
        match self.begin_end(&session.login, session, now) {
            Some((recorded, superseded)) => self.record(recorded, &superseded),
            None => self.make_up(),
        }
    }

    /// Whether something ended that the disk does not know of.
    pub(super) fn has_unrecorded(&self) -> bool {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// Records what could not be recorded before. Blocks on the disk.
    pub(super) fn make_up(&self) -> Result<(), StoreError> {
        if !self.unrecorded.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let all: Vec<Revoked> =
            self.live.read().expect("no holder of this lock panics").ended.values().copied().collect();
        self.remembering_failure(self.store.revoke_all(&all))
    }

    fn record(&self, revoked: Revoked, superseded: &[[u8; 16]]) -> Result<(), StoreError> {
        self.remembering_failure(self.store.revoke(revoked, superseded))
    }

    fn remembering_failure(&self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        if outcome.is_err() {
            self.unrecorded.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Ends every session of the user of `session` that was issued up to `now`, for as long as any of them could have gone
    /// on. Blocks on the disk.
    pub(super) fn end_user(
        &self,
        session: &Session,
        now: UnixSeconds,
        lifetime_seconds: u64,
    ) -> Result<(), StoreError> {
        let user = user_id(session.account());
        let ended_at = now.max(session.issued_at);
        let until = session.ends_at.max(now.saturating_add(lifetime_seconds));
        let revoked = Revoked { id: user, user, ended_at, until };
        let (recorded, superseded) = self.live.write().expect("no holder of this lock panics").end_all(revoked);
        self.record(recorded, &superseded)
    }

    /// In memory. `None`: it had ended before.
    fn begin_end(&self, id: &RandomId, session: &Session, now: UnixSeconds) -> Option<(Revoked, Vec<[u8; 16]>)> {
        let user = user_id(session.account());
        // A session issued by a clock that has since been set back must end all the same.
        let ended_at = now.max(session.issued_at);
        let revoked = Revoked { id: *id.bytes(), user, ended_at, until: session.ends_at };
        let mut live = self.live.write().expect("no holder of this lock panics");
        (!live.ended.contains_key(id.bytes())).then(|| live.insert(revoked))
    }

    /// Ends all sessions that `id` is part of: what a provider says of its own. Blocks on the disk.
    pub(super) fn end_all(&self, id: [u8; 16], now: UnixSeconds, until: UnixSeconds) -> Result<(), StoreError> {
        let (recorded, superseded) = {
            let mut live = self.live.write().expect("no holder of this lock panics");
            live.insert(Revoked { id, user: id, ended_at: now, until })
        };
        self.record(recorded, &superseded)
    }

    /// What ended at `since` or later, as this process knows it.
    pub(super) fn since(&self, since: UnixSeconds) -> Vec<Revoked> {
        let live = self.live.read().expect("no holder of this lock panics");
        live.ended.values().filter(|revoked| revoked.ended_at >= since).copied().collect()
    }

    /// Takes in what ended in another process that serves the same sessions.
    pub(super) fn take_in(&self, all: &[Revoked]) {
        let mut live = self.live.write().expect("no holder of this lock panics");
        for revoked in all {
            let is_news = live.ended.get(&revoked.id).is_none_or(|known| known.ended_at < revoked.ended_at);
            if is_news {
                live.insert(*revoked);
            }
        }
    }

    /// The same of one that can no longer record anything. Blocks on the disk.
    pub(super) fn take_over(&self, all: &[Revoked]) -> Result<(), StoreError> {
        self.take_in(all);
        self.remembering_failure(self.store.revoke_all(all))
    }

    /// Forgets, here and on disk, what no longer matters. Blocks on the disk.
    pub(super) fn sweep(&self, now: UnixSeconds) -> Result<(), StoreError> {
        self.live.write().expect("no holder of this lock panics").forget_expired(now);
        self.store.sweep(now)
    }
}

impl Live {
    /// Adds one, or, when the user has too many, ends all the user's sessions in their stead. Returns what was added and
    /// which ids it stands for.
    fn insert(&mut self, revoked: Revoked) -> (Revoked, Vec<[u8; 16]>) {
        let ids = self.by_user.entry(revoked.user).or_default();
        if ids.len() >= LIMIT_PER_USER {
            return self.end_all(Revoked { id: revoked.user, ..revoked });
        }
        ids.push(revoked.id);
        self.hints.set(&revoked.id);
        self.ended.insert(revoked.id, revoked);
        (revoked, Vec::new())
    }

    /// As if it had not been added.
    fn take_back(&mut self, added: &Revoked) {
        self.ended.remove(&added.id);
        if let Some(ids) = self.by_user.get_mut(&added.user) {
            ids.retain(|id| *id != added.id);
        }
    }

    /// One entry for all that the user has, in the stead of those there are.
    fn end_all(&mut self, mut added: Revoked) -> (Revoked, Vec<[u8; 16]>) {
        let ids = self.by_user.entry(added.user).or_default();
        let superseded = std::mem::replace(ids, vec![added.id]);
        for old in superseded.iter().filter_map(|id| self.ended.remove(id)) {
            added.until = added.until.max(old.until);
            added.ended_at = added.ended_at.max(old.ended_at);
        }
        self.hints.set(&added.id);
        self.ended.insert(added.id, added);
        (added, superseded)
    }

    fn forget_expired(&mut self, now: UnixSeconds) {
        self.ended.retain(|_, revoked| revoked.until > now);
        for ids in self.by_user.values_mut() {
            ids.retain(|id| self.ended.contains_key(id));
        }
        self.by_user.retain(|_, ids| !ids.is_empty());
        self.hints.replace(self.ended.keys());
    }
}

impl Default for Hints {
    fn default() -> Hints {
        Hints((0..HINT_WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Hints {
    /// Ids are random, or hashes.
    fn place(id: &[u8; 16]) -> (usize, u64) {
        let [low, high, bit, ..] = *id;
        (usize::from(u16::from_le_bytes([low, high])) % HINT_WORDS, 1 << (bit % 64))
    }

    fn may_have(&self, id: &[u8; 16]) -> bool {
        let (word, bit) = Hints::place(id);
        self.0[word].load(Ordering::Acquire) & bit != 0
    }

    fn set(&self, id: &[u8; 16]) {
        let (word, bit) = Hints::place(id);
        self.0[word].fetch_or(bit, Ordering::Release);
    }

    /// Only for who may write to what ended, so that no other bit is set meanwhile. Those of `ids` stay set throughout.
    fn replace<'i>(&self, ids: impl Iterator<Item = &'i [u8; 16]>) {
        let mut words = vec![0; HINT_WORDS];
        for (word, bit) in ids.map(Hints::place) {
            words[word] |= bit;
        }
        for (word, new) in self.0.iter().zip(words) {
            // Where nothing changes nothing is written.
            if word.load(Ordering::Relaxed) != new {
                word.store(new, Ordering::Release);
            }
        }
    }
}

/// Fixed in size however long the name, and apart from session ids, which are random.
fn user_id(account: &AccountId) -> [u8; 16] {
    id_of(&[account.key().as_bytes()])
}

/// Of one session at a provider.
pub(super) fn provider_session_id(provider: &str, session: &str) -> [u8; 16] {
    id_of(&[b"provider session", provider.as_bytes(), session.as_bytes()])
}

/// Of a user as a provider names them, whatever sessions go by.
pub(super) fn provider_subject_id(provider: &str, subject: &str) -> [u8; 16] {
    id_of(&[b"provider subject", provider.as_bytes(), subject.as_bytes()])
}

fn id_of(parts: &[&[u8]]) -> [u8; 16] {
    identity::hash(parts).first_chunk().copied().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn open(directory: &tempfile::TempDir) -> Revocations {
        let store = Store::open(&directory.path().join("store.redb")).unwrap();
        Revocations::open(Arc::new(store), 0).unwrap()
    }

    #[test]
    fn ending_one_session_leaves_its_sibling_and_ending_the_login_ends_both_even_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let revocations = open(&directory);
        let first = testing::session("alice", 100);
        let mut sibling = first.clone();
        sibling.id = RandomId::new();
        let other_login = testing::session("alice", 100);
        assert!(revocations.end_session(&first, 101).unwrap());
        assert!(!revocations.end_session(&first, 101).unwrap(), "the second to end it is told so");
        assert!(revocations.is_ended(&first) && !revocations.is_ended(&sibling));

        revocations.end_login(&sibling, 102).unwrap();
        drop(revocations);
        let revocations = open(&directory);
        assert!(revocations.is_ended(&first) && revocations.is_ended(&sibling));
        assert!(!revocations.is_ended(&other_login));
    }

    #[test]
    fn what_is_forgotten_is_no_longer_hinted_at_and_what_stays_is() {
        let mut live = Live::default();
        let revoked = |number: u32, until| {
            let id = id_of(&[&number.to_be_bytes()]);
            Revoked { id, user: id, ended_at: 100, until }
        };
        for number in 0..1_000 {
            live.insert(revoked(number, 200 + u64::from(number)));
        }
        let hinted = |live: &Live| (0..1_000).filter(|number| live.hints.may_have(&revoked(*number, 0).id)).count();
        assert_eq!(hinted(&live), 1_000);
        live.forget_expired(700);
        assert!((0..1_000).all(|number| number <= 500 || live.hints.may_have(&revoked(number, 0).id)));
        assert!((499..530).contains(&hinted(&live)), "{}", hinted(&live));
    }

    #[test]
    fn a_user_who_ends_sessions_without_end_is_ended_as_a_whole_and_others_are_not() {
        let mut live = Live::default();
        let id_of_user = |name: &str| user_id(&AccountId { issuer: None, name: name.into() });
        let revoked = |id: usize| Revoked {
            id: (id as u128).to_be_bytes(),
            user: id_of_user("alice"),
            ended_at: 100,
            until: 1000 + id as u64,
        };
        for id in 0..3 * LIMIT_PER_USER {
            live.insert(revoked(id));
        }
        assert!(live.ended.len() <= LIMIT_PER_USER + 1);
        assert!(live.ended.contains_key(&id_of_user("alice")));
        assert!(!live.ended.contains_key(&id_of_user("bob")));
    }
}
