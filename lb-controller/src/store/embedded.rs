//! The store of a single host: one redb file. Every write is on disk when the call returns, so calls block for as long
//! as the disk takes: keep them off the worker threads.

mod api_keys;
mod enrolments;
mod habits;
mod id_tokens;
mod tokens;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use enrolments::Change;
use lb_policy::UnixSeconds;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// One host's durable state.
#[derive(Debug)]
pub struct Store {
    database: Database,
    health: Health,
}

/// How the store does, for metrics.
#[derive(Debug, Default)]
struct Health {
    last_failed: AtomicBool,
    failures: AtomicU64,
}

/// Sessions that ended early: everything under `id` (a session, a login, or a whole user) issued up to `ended_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    #[error("cannot write the store: {0}; is the disk full or read-only?")]
    Write(#[from] redb::Error),
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
        let display = || path.display().to_string();
        let open_error = |source| StoreError::Open { path: display(), source };
        // Made before redb opens it: left to itself it would be as readable as the umask allows.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(|error| open_error(redb::Error::Io(error)))?;
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: display() },
            other => open_error(other.into()),
        })?;
        let store = Store { database, health: Health::default() };
        store.make_tables().map_err(open_error)?;
        Ok(store)
    }

    /// Whether the last read or write did what it should.
    pub fn is_up(&self) -> bool {
        !self.health.last_failed.load(Ordering::Relaxed)
    }

    /// Reads and writes that failed so far.
    pub fn failures(&self) -> u64 {
        self.health.failures.load(Ordering::Relaxed)
    }

    /// The outcome of a read or write, remembered.
    fn told<T>(&self, outcome: Result<T, redb::Error>) -> Result<T, StoreError> {
        self.health.last_failed.store(outcome.is_err(), Ordering::Relaxed);
        if outcome.is_err() {
            self.health.failures.fetch_add(1, Ordering::Relaxed);
        }
        Ok(outcome?)
    }

    /// Accepts the code of `step` for `user`, unless that step or a later one was accepted before (RFC 6238 §5.2). Of any
    /// number of callers with one step exactly one is told `true`, and it stays so after a crash.
    pub fn accept_totp_step(&self, user: &str, step: u64) -> Result<bool, StoreError> {
        let write = || -> Result<bool, redb::Error> {
            let transaction = self.database.begin_write()?;
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
        self.told(write())
    }

    /// Remembers that sessions ended early; the entries `superseded` by it are dropped.
    pub fn revoke(&self, revoked: Revoked, superseded: &[[u8; 16]]) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
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
        self.told(write())
    }

    /// Forgets what no longer matters.
    pub fn sweep(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(REVOKED)?.retain(|_, (_, _, until)| until > now)?;
            transaction.open_table(id_tokens::ID_TOKENS)?.retain(|_, (until, _)| until > now)?;
            transaction.commit()?;
            Ok(())
        };
        self.told(write())
    }

    /// Everything revoked that still matters.
    pub fn revoked(&self, now: UnixSeconds) -> Result<Vec<Revoked>, StoreError> {
        let read = || -> Result<Vec<Revoked>, redb::Error> {
            let table = self.database.begin_read()?.open_table(REVOKED)?;
            let mut all = Vec::new();
            for row in table.iter()? {
                let (id, row) = row?;
                let (user, ended_at, until) = row.value();
                all.push(Revoked { id: id.value(), user, ended_at, until });
            }
            all.retain(|revoked| revoked.until > now);
            Ok(all)
        };
        self.told(read())
    }

    fn make_tables(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
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
    fn a_file_that_is_no_store_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        std::fs::write(&path, "this is not a database, whatever its name says").unwrap();
        assert!(Store::open(&path).unwrap_err().to_string().contains("store.redb"));
    }
}
