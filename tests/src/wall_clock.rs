//! A wall clock that jumps, for one process and what it starts: libfaketime answers for the machine's. The monotonic clock
//! stays what it is, as when somebody sets the time.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// One clock, which starts as the machine's.
#[derive(Debug)]
pub struct WallClock(TempDir);

impl WallClock {
    pub fn new() -> Result<WallClock> {
        let clock = WallClock(TempDir::new()?);
        clock.set_ahead_seconds(0)?;
        Ok(clock)
    }

    /// What is lacking to have one, if anything.
    pub fn lacking() -> Option<&'static str> {
        library().is_none().then_some("needs libfaketime; as root: cargo xtask setup --for test")
    }

    /// From now on it is so far ahead of the machine's; below 0, behind.
    pub fn set_ahead_seconds(&self, seconds: i64) -> Result<()> {
        // Aside and renamed: it is read at every look at the clock, and half a line would be another time.
        let aside = self.0.path().join("new");
        fs::write(&aside, format!("{seconds:+}\n"))?;
        Ok(fs::rename(aside, self.file())?)
    }

    /// Of a process that is to go by it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let library = library().unwrap_or_default();
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Files keep their times.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    /// What it says to a process that goes by it, in seconds since the epoch.
    pub fn read(&self) -> Result<u64> {
        let said = std::process::Command::new("date").arg("+%s").envs(self.environment()).output()?;
        String::from_utf8(said.stdout)?.trim().parse().context("`date` tells no time")
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }
}

/// Debian's, which knows that it is asked by many threads.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file())
}
