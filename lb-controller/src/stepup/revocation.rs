//! Sessions that ended before their cookie expired: by logout, by a rise in level, or by a fresh login.

use std::collections::HashMap;
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
    store: Arc<Store>,
}

#[derive(Default)]
struct Live {
    ended: HashMap<[u8; 16], Revoked>,
    by_user: HashMap<[u8; 16], Vec<[u8; 16]>>,
}

/// Beyond this many, a user's sessions are ended as a whole: whoever logs in and out in a loop must not grow our memory.
const LIMIT_PER_USER: usize = 1024;

impl Revocations {
    pub(super) fn open(store: Arc<Store>, now: UnixSeconds) -> Result<Revocations, StoreError> {
        let mut live = Live::default();
        for revoked in store.revoked(now)? {
            live.insert(revoked);
        }
        Ok(Revocations { live: RwLock::new(live), store })
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
        let live = self.live.read().expect("no holder of this lock panics");
        ids.into_iter().any(|id| live.ended.get(&id).is_some_and(|revoked| session.issued_at <= revoked.ended_at))
    }

    /// Ends this one session, at once and durably. `false`: it had ended before, so whoever asks lost a race and must
    /// not act for the session. Blocks on the disk.
    pub(super) fn end_session(&self, session: &Session, now: UnixSeconds) -> Result<bool, StoreError> {
        self.end(&session.id, session, now)
    }

    /// Ends everything that came of this login. Blocks on the disk.
    pub(super) fn end_login(&self, session: &Session, now: UnixSeconds) -> Result<bool, StoreError> {
        self.end(&session.login, session, now)
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
        self.store.revoke(recorded, &superseded)
    }

    fn end(&self, id: &RandomId, session: &Session, now: UnixSeconds) -> Result<bool, StoreError> {
        let user = user_id(session.account());
        // A session issued by a clock that has since been set back must end all the same.
        let ended_at = now.max(session.issued_at);
        let revoked = Revoked { id: *id.bytes(), user, ended_at, until: session.ends_at };
        let (recorded, superseded) = {
            let mut live = self.live.write().expect("no holder of this lock panics");
            if live.ended.contains_key(id.bytes()) {
                return Ok(false);
            }
            live.insert(revoked)
        };
        self.store.revoke(recorded, &superseded)?;
        Ok(true)
    }

    /// Ends all sessions that `id` is part of: what a provider says of its own. Blocks on the disk.
    pub(super) fn end_all(&self, id: [u8; 16], now: UnixSeconds, until: UnixSeconds) -> Result<(), StoreError> {
        let (recorded, superseded) = {
            let mut live = self.live.write().expect("no holder of this lock panics");
            live.insert(Revoked { id, user: id, ended_at: now, until })
        };
        self.store.revoke(recorded, &superseded)
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
        self.ended.insert(revoked.id, revoked);
        (revoked, Vec::new())
    }

    /// One entry for all that the user has, in the stead of those there are.
    fn end_all(&mut self, mut added: Revoked) -> (Revoked, Vec<[u8; 16]>) {
        let ids = self.by_user.entry(added.user).or_default();
        let superseded = std::mem::replace(ids, vec![added.id]);
        for old in superseded.iter().filter_map(|id| self.ended.remove(id)) {
            added.until = added.until.max(old.until);
            added.ended_at = added.ended_at.max(old.ended_at);
        }
        self.ended.insert(added.id, added);
        (added, superseded)
    }

    fn forget_expired(&mut self, now: UnixSeconds) {
        self.ended.retain(|_, revoked| revoked.until > now);
        for ids in self.by_user.values_mut() {
            ids.retain(|id| self.ended.contains_key(id));
        }
        self.by_user.retain(|_, ids| !ids.is_empty());
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

        assert!(revocations.end_login(&sibling, 102).unwrap());
        drop(revocations);
        let revocations = open(&directory);
        assert!(revocations.is_ended(&first) && revocations.is_ended(&sibling));
        assert!(!revocations.is_ended(&other_login));
    }

    #[test]
    fn a_user_who_ends_sessions_without_end_is_ended_as_a_whole_and_others_are_not() {
        let mut live = Live::default();
        let id_of_user = |name: &str| user_id(&AccountId { issuer: None, name: name.to_owned() });
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
