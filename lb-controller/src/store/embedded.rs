//! The store of a single host: one redb file. Every write is on disk when the call returns, so calls block for as long
//! as the disk takes: keep them off the worker threads.

mod api_keys;
mod enrolments;
mod habits;
mod id_tokens;
mod opened;
mod tokens;

use std::path::Path;

pub use enrolments::Change;
use lb_policy::UnixSeconds;
use opened::Opened;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

/// One host's durable state.
#[derive(Debug)]
pub struct Store {
    opened: Opened,
}

/// Sessions that ended early: everything under `id` (a session, a login, or a whole user) issued up to `ended_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub id: [u8; 16],
    pub user: [u8; 16],
    pub ended_at: UnixSeconds,
    /// When the last such cookie would have expired by itself; the entry is of no use after that.
    pub until: UnixSeconds,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: another lb-controller is using this store; stop it, or give this one another `state_dir`")]
    InUse { path: String },
    #[error("{path}: cannot open the store: {source}; if it is damaged, move it away: that ends all sessions")]
    Open { path: String, source: redb::Error },
    #[error("cannot use the store: {0}; is the disk full or read-only?")]
    Write(#[from] redb::Error),
    #[error("the store could not be written a moment ago; is the disk full or read-only?")]
    Resting,
    #[error("the store is closed: after a failure it could not be opened anew; is the disk full or read-only?")]
    Closed,
    #[error("a new lb-controller has taken this store over")]
    Elsewhere,
}

/// User, ended at, may be forgotten at.
type RevokedRow = ([u8; 16], u64, u64);

/// User → the last time step whose code was accepted.
const TOTP_STEPS: TableDefinition<'_, &str, u64> = TableDefinition::new("totp-steps-v1");
/// Session, login or user → what ended.
const REVOKED: TableDefinition<'_, [u8; 16], RevokedRow> = TableDefinition::new("revoked-v1");

impl Store {
    /// Opens the store, or makes it (mode 0600).
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let store = Store { opened: Opened::open(path)? };
        store.write(make_tables).map_err(|error| error.while_opening(path))?;
        Ok(store)
    }

    /// Whether the last read and the last write did what they should.
    pub fn is_up(&self) -> bool {
        self.opened.is_up()
    }

    /// Reads and writes that failed so far.
    pub fn failures(&self) -> u64 {
        self.opened.failures()
    }

    /// After a failure: tries whether the disk takes writes again, so that nobody's proof has to. Blocks on the disk.
    pub fn try_again(&self) -> Result<(), StoreError> {
        self.write(make_tables)?;
        self.read(|database| {
            database.begin_read()?.open_table(REVOKED)?;
            Ok(())
        })
    }

    /// Lets another process open the file: from now on reads see what it held, and writes wait. See decision 66.
    pub fn lend(&self) {
        self.opened.lend();
    }

    /// The other process has ended, and gave nothing to be taken over. Does nothing where nothing is lent.
    pub fn take_back(&self) {
        self.opened.take_back();
    }

    /// The other process keeps it: writes fail from now on.
    pub fn give_away(&self) {
        self.opened.give_away();
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.opened.read(read)
    }

    fn write<T>(&self, write: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.opened.write(write)
    }

    /// Accepts the code of `step` for `user`, unless that step or a later one was accepted before (RFC 6238 §5.2). Of any
    /// number of callers with one step exactly one is told `true`, and it stays so after a crash.
    pub fn accept_totp_step(&self, user: &str, step: u64) -> Result<bool, StoreError> {
        let write = |database: &Database| -> Result<bool, redb::Error> {
            let transaction = database.begin_write()?;
            let accepted = {
                let mut steps = transaction.open_table(TOTP_STEPS)?;
                let last = steps.get(user)?.map(|last| last.value());
                let accepted = last.is_none_or(|last| step > last);
                if accepted {
                    steps.insert(user, step)?;
                }
                accepted
            };
            transaction.commit()?;
            Ok(accepted)
        };
        self.write(write)
    }

    /// Remembers that sessions ended early; the entries `superseded` by it are dropped.
    pub fn revoke(&self, revoked: Revoked, superseded: &[[u8; 16]]) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(REVOKED)?;
                for id in superseded {
                    table.remove(id)?;
                }
                table.insert(revoked.id, (revoked.user, revoked.ended_at, revoked.until))?;
            }
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }

    /// Remembers all of these; some may be there already.
    pub fn revoke_all(&self, all: &[Revoked]) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(REVOKED)?;
                for revoked in all {
                    table.insert(revoked.id, (revoked.user, revoked.ended_at, revoked.until))?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }

    /// Forgets what no longer matters.
    pub fn sweep(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let write = |database: &Database| -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(REVOKED)?.retain(|_, (_, _, until)| until > now)?;
            transaction.open_table(id_tokens::ID_TOKENS)?.retain(|_, (until, _)| until > now)?;
            transaction.commit()?;
            Ok(())
        };
        self.write(write)
    }

    /// Everything revoked that still matters.
    pub fn revoked(&self, now: UnixSeconds) -> Result<Vec<Revoked>, StoreError> {
        let read = |database: &Database| -> Result<Vec<Revoked>, redb::Error> {
            let table = database.begin_read()?.open_table(REVOKED)?;
            let mut all = Vec::new();
            for row in table.iter()? {
                let (id, row) = row?;
                let (user, ended_at, until) = row.value();
                all.push(Revoked { id: id.value(), user, ended_at, until });
            }
            all.retain(|revoked| revoked.until > now);
            Ok(all)
        };
        self.read(read)
    }
}

impl StoreError {
    /// The same at the start, where nothing was written yet.
    fn while_opening(self, path: &Path) -> StoreError {
        match self {
            StoreError::Write(source) => StoreError::Open { path: path.display().to_string(), source },
            other => other,
        }
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TOTP_STEPS)?;
    transaction.open_table(REVOKED)?;
    transaction.open_table(enrolments::ENROLMENTS)?;
    transaction.open_table(api_keys::API_KEYS)?;
    transaction.open_table(id_tokens::ID_TOKENS)?;
    transaction.open_table(tokens::ENROLMENT_TOKENS)?;
    transaction.open_table(habits::HABITS)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn open(directory: &tempfile::TempDir) -> Store {
        Store::open(&directory.path().join("store.redb")).unwrap()
    }

    #[test]
    fn a_step_is_accepted_once_and_no_earlier_one_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let rows = [
            ("the first code", "alice", 100, true),
            ("the same code again", "alice", 100, false),
            ("an older code", "alice", 99, false),
            ("the next code", "alice", 101, true),
            ("the same step of another user", "bob", 100, true),
        ];
        for (name, user, step, accepted) in rows {
            assert_eq!(store.accept_totp_step(user, step).unwrap(), accepted, "{name}");
        }
        drop(store);
        assert!(!open(&directory).accept_totp_step("alice", 101).unwrap(), "the same code after a restart");
    }

    #[test]
    fn of_many_racing_uses_of_one_code_exactly_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let wins = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16).map(|_| scope.spawn(|| store.accept_totp_step("alice", 7).unwrap())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
    }

    #[test]
    fn revocations_survive_a_restart_until_they_no_longer_matter() {
        let directory = tempfile::tempdir().unwrap();
        let short = Revoked { id: [1; 16], user: [9; 16], ended_at: 10, until: 50 };
        let long = Revoked { id: [2; 16], until: 500, ..short };
        let store = open(&directory);
        store.revoke(short, &[]).unwrap();
        store.revoke(long, &[]).unwrap();
        drop(store);
        let store = open(&directory);
        assert_eq!(store.revoked(49).unwrap(), [short, long]);
        assert_eq!(store.revoked(50).unwrap(), [long]);
        store.sweep(60).unwrap();
        assert_eq!(store.revoked(0).unwrap(), [long], "the first was swept away");
        store.revoke(short, &[long.id]).unwrap();
        assert_eq!(store.revoked(0).unwrap(), [short], "the second was superseded");
    }

    #[test]
    fn the_store_is_closed_to_others_and_to_a_second_controller() {
        let directory = tempfile::tempdir().unwrap();
        let _store = open(&directory);
        let path = directory.path().join("store.redb");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(Store::open(&path), Err(StoreError::InUse { .. })));
    }

    #[test]
    fn a_store_that_is_lent_is_read_from_and_written_to_again_only_once_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = open(&directory);
        assert!(store.accept_totp_step("alice", 100).unwrap());
        let revoked = Revoked { id: [1; 16], user: [9; 16], ended_at: 10, until: 50 };
        store.revoke(revoked, &[]).unwrap();
        store.lend();
        let successor = Store::open(&path).unwrap();
        assert_eq!(store.revoked(0).unwrap(), [revoked], "reads go on");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.accept_totp_step("alice", 101));
            assert!(successor.accept_totp_step("alice", 102).unwrap());
            drop(successor);
            store.take_back();
            assert!(!waiting.join().unwrap().unwrap(), "it waited, and saw what the other had accepted");
        });
        store.lend();
        let successor = Store::open(&path).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.accept_totp_step("alice", 103));
            store.give_away();
            assert!(matches!(waiting.join().unwrap(), Err(StoreError::Elsewhere)), "nothing is accepted twice");
        });
        assert!(successor.accept_totp_step("alice", 103).unwrap());
        store.take_back();
        assert!(store.accept_totp_step("alice", 104).is_err(), "what was given away does not come back");
        assert_eq!(store.revoked(0).unwrap(), [revoked]);
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        std::fs::write(&path, "this is not a database, whatever its name says").unwrap();
        assert!(Store::open(&path).unwrap_err().to_string().contains("store.redb"));
    }
}
