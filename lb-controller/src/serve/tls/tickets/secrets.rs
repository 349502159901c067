//! Where the keys of tickets come from: a file that a fleet shares, or this host's own state.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_policy::UnixSeconds;
use zeroize::Zeroizing;

use super::super::stamp::{self, Stamp};
use super::{KEY_BYTES, Keys, TicketKey};
use crate::config::TlsConfig;

/// Secrets in one file: today's, yesterday's, and some for whoever changes them by hand.
const MOST_SECRETS: usize = 8;
const MOST_FILE_BYTES: u64 = 16 * 1024;
const OWN_FILE: &str = "ticket-keys";

/// Why tickets cannot be sealed as configured, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TicketKeysError {
    #[error("cannot read {path}: {source}; check the path and that the controller's user may read it")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} may be read by others (mode {mode:04o}), who could then read what clients send; run `chmod 600` on it"
    )]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("{path}:{line}: {reason}; write one secret a line, made by `openssl rand -base64 48`")]
    BadLine { path: PathBuf, line: usize, reason: String },
    #[error("{path} holds no secret; write one a line, made by `openssl rand -base64 48`")]
    Empty { path: PathBuf },
    #[error("{path} holds more than {MOST_SECRETS} secrets; take the old ones out")]
    TooMany { path: PathBuf },
    #[error("cannot write {path}: {source}; check that state_dir is on a writable disk with room")]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("no key could be made of a secret")]
    NoKey,
}

type Secret = Zeroizing<Vec<u8>>;

/// Secrets, and for how long each of their keys is used.
#[derive(Debug)]
pub(super) struct Secrets {
    lifetime: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Each secret stands for a key in each period, the same on all hosts. The first seals.
    Shared { path: PathBuf, stamp: Stamp, secrets: Vec<Secret> },
    /// Made anew for each period, and forgotten after the next: who takes this host later opens no older ticket.
    Own { path: PathBuf, secrets: Vec<(UnixSeconds, Secret)> },
}

impl Secrets {
    pub(super) fn open(config: &TlsConfig, state_dir: &Path, now: UnixSeconds) -> Result<Secrets, TicketKeysError> {
        let lifetime = config.ticket_lifetime.as_secs().max(1);
        let source = match &config.ticket_keys {
            Some(path) => Source::Shared { path: path.clone(), stamp: stamp::of(path), secrets: read_shared(path)? },
            None => {
                let path = state_dir.join(OWN_FILE);
                // What a crash left half written is worth as much as nothing.
                let secrets = read_own(&path, now).unwrap_or_default();
                Source::Own { path, secrets }
            }
        };
        Ok(Secrets { lifetime, source })
    }

    /// Whether the file that a fleet shares is another one; then it is read. One that is broken is told of once, and what
    /// it held goes on.
    pub(super) fn have_changed(&mut self) -> bool {
        let Source::Shared { path, stamp, secrets } = &mut self.source else { return false };
        let current = stamp::of(path);
        if current == *stamp {
            return false;
        }
        *stamp = current;
        match read_shared(path) {
            Ok(new) => {
                tracing::info!(file = %path.display(), secrets = new.len(), "new secrets of session tickets in force");
                *secrets = new;
                true
            }
            Err(error) => {
                tracing::error!("new secrets of session tickets refused, the old ones go on: {error}");
                false
            }
        }
    }

    /// The keys for `now`; makes a secret if one is due.
    pub(super) fn keys(&mut self, now: UnixSeconds) -> Result<Keys, TicketKeysError> {
        let lifetime = self.lifetime;
        let key = |secret: &Secret, times| TicketKey::of(secret, times).ok_or(TicketKeysError::NoKey);
        let (all, ends_at) = match &mut self.source {
            Source::Shared { secrets, .. } => {
                let period = now - now % lifetime;
                // The one before, and the one to come: clocks of a fleet differ a little.
                let starts = [Some(period), period.checked_sub(lifetime), Some(period + lifetime)];
                let mut all = Vec::new();
                for secret in secrets.iter() {
                    for start in starts.into_iter().flatten() {
                        // From now on, because another host's clock may be in that period already.
                        let mut key = key(secret, start..start + 2 * lifetime)?;
                        key.times.start = key.times.start.min(now);
                        all.push(key);
                    }
                }
                (all, period + lifetime)
            }
            Source::Own { path, secrets } => {
                renew(path, secrets, lifetime, now)?;
                let keys = secrets.iter().rev().map(|(start, secret)| key(secret, *start..start + 2 * lifetime));
                let newest = secrets.last().map_or(now, |(start, _)| *start);
                (keys.collect::<Result<Vec<_>, _>>()?, newest + lifetime)
            }
        };
        Ok(Keys { all, lifetime: u32::try_from(lifetime).unwrap_or(u32::MAX), ends_at })
    }
}

/// Adds a secret when the newest has sealed for its time, and drops those that open nothing any more.
fn renew(
    path: &Path,
    secrets: &mut Vec<(UnixSeconds, Secret)>,
    lifetime: u64,
    now: UnixSeconds,
) -> Result<(), TicketKeysError> {
    // A clock that was set back leaves secrets from the future.
    secrets.retain(|(start, _)| *start <= now && now < start + 2 * lifetime);
    if secrets.last().is_some_and(|(start, _)| now < start + lifetime) {
        return Ok(());
    }
    let mut secret = Zeroizing::new(vec![0; KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| TicketKeysError::NoKey)?;
    secrets.push((now, secret));
    let mut text = Zeroizing::new(String::new());
    for (start, secret) in secrets.iter() {
        text.push_str(&format!("{start} "));
        STANDARD.encode_string(secret.as_slice(), &mut text);
        text.push('\n');
    }
    let unwritable = |source| TicketKeysError::Unwritable { path: path.to_owned(), source };
    write_private(path, text.as_bytes()).map_err(unwritable)
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let _ = fs::remove_file(&aside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(aside, path)
}

fn read_own(path: &Path, now: UnixSeconds) -> Option<Vec<(UnixSeconds, Secret)>> {
    let text = Zeroizing::new(fs::read_to_string(path).ok()?);
    let line = |line: &str| {
        let (start, secret) = line.split_once(' ')?;
        let secret = Zeroizing::new(STANDARD.decode(secret).ok()?);
        (secret.len() == KEY_BYTES).then_some((start.parse().ok().filter(|start| *start <= now)?, secret))
    };
    Some(text.lines().filter_map(line).take(MOST_SECRETS).collect())
}

/// Whether a file of secrets can be used.
pub(super) fn check(path: &Path) -> Result<(), TicketKeysError> {
    read_shared(path).map(drop)
}

fn read_shared(path: &Path) -> Result<Vec<Secret>, TicketKeysError> {
    let unreadable = |source| TicketKeysError::Unreadable { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.mode() & 0o007 != 0 {
        return Err(TicketKeysError::OpenToOthers { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    if metadata.len() > MOST_FILE_BYTES {
        return Err(TicketKeysError::TooMany { path: path.to_owned() });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    parse_shared(path, &text)
}

/// One secret a line in Base64; empty lines and those that begin with `#` say nothing.
fn parse_shared(path: &Path, text: &str) -> Result<Vec<Secret>, TicketKeysError> {
    let mut secrets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |reason: String| TicketKeysError::BadLine { path: path.to_owned(), line: index + 1, reason };
        let secret = Zeroizing::new(STANDARD.decode(line).map_err(|_| bad("this is no Base64".to_owned()))?);
        if secret.len() < KEY_BYTES {
            return Err(bad(format!("a secret has at least {KEY_BYTES} bytes, this one {}", secret.len())));
        }
        secrets.push(secret);
    }
    match secrets.len() {
        0 => Err(TicketKeysError::Empty { path: path.to_owned() }),
        count if count > MOST_SECRETS => Err(TicketKeysError::TooMany { path: path.to_owned() }),
        _ => Ok(secrets),
    }
}
