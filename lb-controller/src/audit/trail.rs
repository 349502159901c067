//! Events in a file, one JSON object a line, each with the hash of the line before it: nothing can be taken out, changed or
//! put in between without the chain showing it from there on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where the trail is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailConfig {
    pub file: PathBuf,
    /// A larger file is put aside under its name and the number of its last event; the chain goes on in a new one.
    pub rotate_at_bytes: u64,
}

/// Takes events from any thread and never waits for the disk.
#[derive(Debug)]
pub struct Trail {
    sender: SyncSender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
    waiting: AtomicU64,
    /// Unix milliseconds of the oldest event that is being written; 0: none is.
    writing_since_ms: AtomicU64,
}

/// How far the file is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Events that are not on disk yet.
    pub waiting: u64,
    /// How old the oldest of these is.
    pub seconds: f64,
}

/// Events that may wait for the disk. A burst of refused logins must not make a worker wait, nor take all memory.
const MOST_WAITING: usize = 16 * 1024;
/// What precedes the first event of all.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

enum Message {
    Event {
        at: OffsetDateTime,
        json: Box<RawValue>,
    },
    /// Answers when all before it is on disk.
    Flush(SyncSender<()>),
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<'a> {
    /// Counts up by one.
    pub(super) seq: u64,
    /// SHA-256 of the line before it, without its newline, in hex.
    pub(super) prev: &'a str,
    /// RFC 3339, UTC.
    pub(super) at: &'a str,
    #[serde(borrow)]
    pub(super) event: &'a RawValue,
}

pub(super) fn hash_of(line: &[u8]) -> String {
    digest(&SHA256, line).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Trail {
    /// Goes on where the file ends, or begins it (mode 0600).
    ///
    /// # Errors
    /// The file's last line is no event of a trail: it is some other file, and must not be written to.
    pub fn open(config: &TrailConfig) -> Result<Trail> {
        let chain = Chain::open(config).with_context(|| format!("the audit trail {}", config.file.display()))?;
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(chain, &receiver, &counted))
            .context("cannot start the thread that writes the audit trail")?;
        Ok(Trail { sender, counts })
    }

    pub(super) fn append(&self, event: &impl Serialize) {
        let Ok(json) = serde_json::value::to_raw_value(event) else { return self.lose() };
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        match self.sender.try_send(Message::Event { at: OffsetDateTime::now_utc(), json }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
                self.lose();
            }
        }
    }

    fn lose(&self) {
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    pub(super) fn lag(&self) -> Lag {
        let since_ms = self.counts.writing_since_ms.load(Ordering::Relaxed);
        let now_ms = milliseconds(OffsetDateTime::now_utc());
        let seconds = if since_ms == 0 { 0.0 } else { now_ms.saturating_sub(since_ms) as f64 / 1_000.0 };
        Lag { waiting: self.counts.waiting.load(Ordering::Relaxed), seconds }
    }

    pub(super) fn flush(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let (done, is_done) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

/// Whatever has gathered while the disk was busy is written, and synced, together.
fn write_all(mut chain: Chain, receiver: &Receiver<Message>, counts: &Counts) {
    while let Ok(first) = receiver.recv() {
        let (mut waiting, mut written) = (Vec::new(), 0);
        for message in std::iter::once(first).chain(receiver.try_iter()) {
            match message {
                Message::Event { at, json } => {
                    written += 1;
                    if written == 1 {
                        counts.writing_since_ms.store(milliseconds(at), Ordering::Relaxed);
                    }
                    if let Err(error) = chain.append(at, &json)
                        && counts.lost.fetch_add(1, Ordering::Relaxed) == 0
                    {
                        tracing::error!(%error, "the audit trail cannot be written; events are lost and counted");
                    }
                }
                Message::Flush(done) => waiting.push(done),
            }
        }
        if let Err(error) = chain.end_batch() {
            tracing::error!(%error, "the audit trail cannot be written to disk");
        }
        counts.writing_since_ms.store(0, Ordering::Relaxed);
        counts.waiting.fetch_sub(written, Ordering::Relaxed);
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn milliseconds(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// The end of the chain, and the file it goes on in. While a new process takes over from an old one both write to it, each
/// its batch under the file's lock and after the other's last line.
struct Chain {
    config: TrailConfig,
    file: File,
    /// The file's lock is held.
    in_batch: bool,
    bytes: u64,
    next_seq: u64,
    last_hash: String,
}

impl Chain {
    fn open(config: &TrailConfig) -> Result<Chain> {
        if let Some(folder) = config.file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (config, last_hash) = (config.clone(), GENESIS.to_owned());
        let file = Chain::file(&config.file, false)?;
        let mut chain = Chain { config, file, in_batch: false, bytes: 0, next_seq: 1, last_hash };
        chain.lock()?;
        chain.read_end()?;
        chain.end_batch()?;
        Ok(chain)
    }

    fn file(path: &Path, anew: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(path)?;
        if anew {
            file.set_len(0)?;
        }
        Ok(file)
    }

    /// Waits for the lock of the file that has the trail's name: another process may have put that one aside.
    fn lock(&mut self) -> io::Result<()> {
        loop {
            self.file.lock()?;
            let (ours, named) = (self.file.metadata()?, fs::metadata(&self.config.file));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
                self.in_batch = true;
                return Ok(());
            }
            self.file = Chain::file(&self.config.file, false)?;
            // Its length says nothing of what is in it.
            self.bytes = u64::MAX;
        }
    }

    fn read_end(&mut self) -> Result<()> {
        if let Some(line) = last_line(&mut self.file)? {
            let parsed: Line<'_> = serde_json::from_slice(&line)
                .context("its last line is no audit event; name another file, or move this one away")?;
            (self.next_seq, self.last_hash) = (parsed.seq + 1, hash_of(&line));
        }
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }

    fn append(&mut self, at: OffsetDateTime, event: &RawValue) -> io::Result<()> {
        if !self.in_batch {
            self.lock()?;
            if self.file.metadata()?.len() != self.bytes {
                self.read_end().map_err(|error| io::Error::other(format!("{error:#}")))?;
            }
        }
        let at = at.format(&Rfc3339).unwrap_or_default();
        let mut line = serde_json::to_vec(&Line { seq: self.next_seq, prev: &self.last_hash, at: &at, event })?;
        let hash = hash_of(&line);
        line.push(b'\n');
        if self.bytes >= self.config.rotate_at_bytes {
            self.rotate(&line)?;
        } else {
            self.write(&line)?;
        }
        self.last_hash = hash;
        self.next_seq += 1;
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            // Half a line, on a disk that is full, would break the chain for good.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Goes on in a new file, which has this first line before anybody finds it: whoever reads an empty one would begin the
    /// chain anew.
    fn rotate(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.sync_data()?;
        let beside = |suffix: &str| {
            let mut name = self.config.file.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (next, aside) = (beside(".next"), beside(&format!(".{}", self.next_seq - 1)));
        let mut file = Chain::file(&next, true)?;
        file.lock()?;
        file.write_all(line)?;
        // A second name first, so that the trail's own is never without a file.
        match fs::hard_link(&self.config.file, &aside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&self.config.file, &aside)?,
            _ => {}
        }
        fs::rename(&next, &self.config.file)?;
        (self.file, self.bytes) = (file, line.len() as u64);
        Ok(())
    }

    /// What was appended is on disk, and others may append.
    fn end_batch(&mut self) -> io::Result<()> {
        self.in_batch = false;
        let synced = self.file.sync_data();
        self.file.unlock()?;
        synced
    }
}

/// The last whole line. Half of one, left by a power cut, was never told to anybody and is taken away.
fn last_line(file: &mut File) -> Result<Option<Vec<u8>>> {
    const LONGEST: u64 = 64 * 1024;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(LONGEST).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        ensure!(length == 0 || start == 0 && tail.starts_with(b"{\"seq\":1,"), "it is no audit trail");
        file.set_len(0)?;
        return Ok(None);
    };
    if end + 1 < tail.len() {
        tracing::warn!("the audit trail ended within a line, as after a power cut; the rest of it is taken away");
        file.set_len(start + end as u64 + 1)?;
    }
    let line = tail[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Some(line.to_vec()))
}

/// The lines of a trail's file, for whoever checks it.
pub(super) fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>>> {
    Ok(BufReader::new(File::open(path)?).split(b'\n'))
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;

    #[test]
    fn two_processes_that_write_to_one_trail_leave_one_chain_across_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrailConfig { file: folder.path().join("audit.jsonl"), rotate_at_bytes: 2_000 };
        let mut chains = [Chain::open(&config).unwrap(), Chain::open(&config).unwrap()];
        let event = serde_json::value::to_raw_value(&serde_json::json!({"event": "verify", "result": "ok"})).unwrap();
        for turn in [0, 1, 0, 0, 1, 1, 1, 0, 1, 0].repeat(6) {
            chains[turn].append(OffsetDateTime::now_utc(), &event).unwrap();
            chains[turn].end_batch().unwrap();
        }
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<(u64, String, String)> = Vec::new();
        for path in names {
            for line in lines(&path).unwrap() {
                let line = line.unwrap();
                let parsed: Line<'_> = serde_json::from_slice(&line).unwrap();
                all.push((parsed.seq, parsed.prev.to_owned(), hash_of(&line)));
            }
        }
        all.sort();
        assert!(all.iter().map(|(seq, ..)| *seq).eq(1..=60), "{all:?}");
        let mut before = GENESIS.to_owned();
        for (seq, prev, hash) in all {
            assert_eq!(prev, before, "event {seq}");
            before = hash;
        }
    }

    #[test]
    fn while_the_disk_takes_nothing_nobody_waits_and_what_finds_no_room_is_counted() {
        // Nobody takes what is sent.
        let (sender, _receiver) = sync_channel(2);
        let trail = Trail { sender, counts: Arc::default() };
        for _ in 0..5 {
            trail.append(&Event { event: "verify", result: "ok", ..Event::default() });
        }
        assert_eq!((trail.lost(), trail.lag().waiting), (3, 2));
    }
}
