//! The file behind the store. After a read or write that failed, redb refuses everything until its file is opened anew;
//! that is done here, or a disk that was full for a minute would cost all proofs until somebody restarts the program.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, StorageBackend as _};

use super::StoreError;

/// After a write that failed the next ones fail at once for this long. Opening the file anew reads all of it, and a flood
/// of attempts must not do that at each.
const REST: Duration = Duration::from_secs(1);

/// How long a write waits for a file that another process was lent. It takes over within a second or two, or ends.
const LENT_AT_MOST: Duration = Duration::from_secs(10);

/// A larger file is not copied to be read from while another process has it: reads fail then.
const MOST_COPIED_BYTES: u64 = 256 << 20;

/// A process that was killed gives its files up a moment after others learn of its end.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    /// `None`: it could not be opened anew either. Taken for writing only to open or close it. While the file is
    /// another's: what it held, in memory.
    database: RwLock<Option<Database>>,
    /// Whoever holds it is the one who writes, opens or closes.
    writing: Mutex<Writing>,
    /// Told when a file that was lent came back, or will not.
    settled: Condvar,
    health: Health,
}

#[derive(Debug, Default)]
struct Writing {
    /// When a write failed last.
    failed_at: Option<Instant>,
    file: Whose,
}

/// Who may open the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Whose {
    #[default]
    Ours,
    /// Another process's, which may still give it back.
    Lent,
    /// Another process's.
    Away,
}

/// How the store does, for metrics.
#[derive(Debug, Default)]
struct Health {
    writes_fail: AtomicBool,
    reads_fail: AtomicBool,
    failures: AtomicU64,
}

impl Opened {
    /// Opens the file, or makes it (mode 0600).
    pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
        Ok(Opened {
            path: path.to_owned(),
            database: RwLock::new(Some(database(path)?)),
            writing: Mutex::default(),
            settled: Condvar::new(),
            health: Health::default(),
        })
    }

    /// Whether the last write and the last read did what they should.
    pub(super) fn is_up(&self) -> bool {
        !self.health.writes_fail.load(Ordering::Relaxed) && !self.health.reads_fail.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.health.failures.load(Ordering::Relaxed)
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let outcome = self.with_database(read);
        self.health.reads_fail.store(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    /// Runs one write at a time, as redb does anyway. One that fails is told so, and the file is opened anew, so that reads
    /// go on meanwhile.
    pub(super) fn write<T>(&self, write: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let writing = self.writing.lock().expect("no holder of this lock panics");
        let waited = self.settled.wait_timeout_while(writing, LENT_AT_MOST, |writing| writing.file == Whose::Lent);
        let mut writing = waited.expect("no holder of this lock panics").0;
        if writing.file != Whose::Ours {
            return Err(StoreError::Elsewhere);
        }
        if writing.failed_at.is_some_and(|at| at.elapsed() < REST) {
            self.health.failures.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::Resting);
        }
        let outcome = self.with_database(write);
        self.health.writes_fail.store(outcome.is_err(), Ordering::Relaxed);
        writing.failed_at = outcome.is_err().then(Instant::now);
        if outcome.is_err() {
            self.open_anew();
        }
        outcome
    }

    /// Closes the file, for another process to open. Reads go on in what it held; writes wait for what becomes of it.
    pub(super) fn lend(&self) {
        let mut writing = self.writing.lock().expect("no holder of this lock panics");
        if writing.file != Whose::Ours {
            return;
        }
        let mut database = self.database.write().expect("no holder of this lock panics");
        drop(database.take());
        *database = copy_of(&self.path)
            .inspect_err(|error| tracing::warn!(%error, "the store cannot be read while a new process takes it over"))
            .ok();
        writing.file = Whose::Lent;
    }

    /// Opens it again: the other process has ended.
    pub(super) fn take_back(&self) {
        let mut writing = self.writing.lock().expect("no holder of this lock panics");
        if writing.file != Whose::Lent {
            return;
        }
        let deadline = Instant::now() + GIVEN_UP_WITHIN;
        let mut guard = self.database.write().expect("no holder of this lock panics");
        *guard = loop {
            match database(&self.path) {
                Ok(database) => break Some(database),
                Err(StoreError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot be opened again; trying with the next write");
                    break None;
                }
            }
        };
        drop(guard);
        *writing = Writing::default();
        self.settled.notify_all();
    }

    /// It stays the other process's. Reads go on in what it held at the time, and no write has an effect.
    pub(super) fn give_away(&self) {
        self.writing.lock().expect("no holder of this lock panics").file = Whose::Away;
        self.settled.notify_all();
    }

    fn with_database<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let guard = self.database.read().expect("no holder of this lock panics");
        let outcome = guard.as_ref().ok_or(StoreError::Closed).and_then(|database| Ok(work(database)?));
        if outcome.is_err() {
            self.health.failures.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    fn open_anew(&self) {
        let mut guard = self.database.write().expect("no holder of this lock panics");
        // Closed first: a store has one opener.
        drop(guard.take());
        match database(&self.path) {
            Ok(database) => *guard = Some(database),
            Err(error) => tracing::error!(%error, "the store cannot be opened anew; trying again with the next write"),
        }
    }
}

/// What the file holds, in memory.
fn copy_of(path: &Path) -> Result<Database, redb::Error> {
    let length = std::fs::metadata(path)?.len();
    if length > MOST_COPIED_BYTES {
        return Err(redb::Error::Io(std::io::ErrorKind::FileTooLarge.into()));
    }
    let (bytes, memory) = (std::fs::read(path)?, InMemoryBackend::new());
    memory.set_len(bytes.len() as u64)?;
    memory.write(0, &bytes)?;
    Ok(Database::builder().create_with_backend(memory)?)
}

fn database(path: &Path) -> Result<Database, StoreError> {
    let display = || path.display().to_string();
    let open_error = |source| StoreError::Open { path: display(), source };
    // Made before redb opens it: left to itself it would be as readable as the umask allows.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|error| open_error(redb::Error::Io(error)))?;
    Database::create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: display() },
        other => open_error(other.into()),
    })
}
