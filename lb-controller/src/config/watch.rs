//! Follows a configuration file and compiles it whenever it changes.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Config, Diagnostics, TakenIn, compile_read, read};
use crate::folders::{Changes, Folders, Nothing, folder_of};

/// Saving is often several steps (truncate and write; write aside, rename over): the file is read when they are over.
const QUIET: Duration = Duration::from_millis(100);

/// In a folder that is never quiet the file is read all the same.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// All files are looked at this often, told of or not: what the configuration takes in may lie in many folders, some of them
/// on other hosts, and a folder may be put in another's place.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file is empty between being truncated and being written; only one that stays empty is told of.
const EMPTY_PATIENCE: Duration = Duration::from_secs(2);

/// Follows one file until it is dropped.
pub struct Watcher {
    /// `None` while being dropped: the thread ends with it.
    folders: Option<Folders>,
    thread: Option<JoinHandle<()>>,
}

/// What was loaded last.
#[derive(Clone, Debug)]
pub struct Known {
    pub text: String,
    pub taken_in: Vec<TakenIn>,
}

/// Why a file cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be followed for changes", folder.display())]
pub struct WatchError {
    folder: PathBuf,
    source: std::io::Error,
}

impl Watcher {
    /// Calls `changed` on a thread of its own with each new content that differs from `known`, what was loaded last:
    /// compiled, or with everything that is wrong with it. A file that it takes in is part of the content.
    pub fn start(
        file: &Path,
        known: Option<Known>,
        changed: impl FnMut(Result<Config, Diagnostics>) + Send + 'static,
    ) -> Result<Watcher, WatchError> {
        let folder = folder_of(file);
        let start = || {
            let (folders, changes) = Folders::new()?;
            folders.watch(&folder)?;
            let (known, taken_in) = known.map(|known| (known.text, known.taken_in)).unzip();
            let (itself, taken_in) = (TakenIn::now(file), taken_in.unwrap_or_default());
            let follower = Follower { file: file.to_owned(), itself, known, taken_in, changed };
            let thread = std::thread::Builder::new().name("config-watch".into());
            let thread = thread.spawn(move || follower.follow(&changes))?;
            Ok(Watcher { folders: Some(folders), thread: Some(thread) })
        };
        start().map_err(|source| WatchError { folder, source })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.folders.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the callback has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

struct Follower<F> {
    file: PathBuf,
    /// As it was just before it was looked at last.
    itself: TakenIn,
    known: Option<String>,
    /// What it took in when it was read last.
    taken_in: Vec<TakenIn>,
    changed: F,
}

impl<F: FnMut(Result<Config, Diagnostics>)> Follower<F> {
    /// Whatever changes in the folder, the file is looked at: behind a chain of symbolic links (as in mounted Kubernetes
    /// ConfigMaps) it changes without an event under its own name.
    fn follow(mut self, changes: &Changes) {
        // Begins with a look, since the file may have changed between being loaded and being watched.
        loop {
            if self.settle(changes).is_err() {
                return;
            }
            self.look();
            if !self.wait(changes) {
                return;
            }
        }
    }

    /// Until something may have changed; `false`: nobody follows any more.
    fn wait(&self, changes: &Changes) -> bool {
        loop {
            match changes.wait(Some(LOOK_EVERY)) {
                Ok(()) => return true,
                Err(Nothing::Yet) if !self.itself.has_changed() && !self.is_taken_in_anew() => {}
                Err(Nothing::Yet) => return true,
                Err(Nothing::EverMore) => return false,
            }
        }
    }

    fn is_taken_in_anew(&self) -> bool {
        self.taken_in.iter().any(TakenIn::has_changed)
    }

    /// Waits until whoever is saving has probably finished; fails when nobody follows any more.
    fn settle(&self, changes: &Changes) -> Result<(), Nothing> {
        let begin = Instant::now();
        loop {
            let is_quiet = match changes.wait(Some(QUIET)) {
                Ok(()) => false,
                Err(Nothing::Yet) => true,
                Err(gone) => return Err(gone),
            };
            let is_empty = std::fs::metadata(&self.file).is_ok_and(|metadata| metadata.len() == 0);
            let patience = if is_empty { EMPTY_PATIENCE } else { LONGEST_WAIT };
            if (is_quiet && !is_empty) || begin.elapsed() >= patience {
                return Ok(());
            }
        }
    }

    fn look(&mut self) {
        self.itself = TakenIn::now(&self.file);
        match read(&self.file) {
            Ok(text) if self.known.as_ref() == Some(&text) && !self.is_taken_in_anew() => {}
            Ok(text) => {
                let compiled = compile_read(&self.file, &text);
                self.known = Some(text);
                self.taken_in = match &compiled {
                    Ok(config) => config.taken_in.clone(),
                    // What the configuration in force took in is followed on.
                    Err(_) => self.taken_in.iter().map(TakenIn::anew).collect(),
                };
                (self.changed)(compiled);
            }
            // Told once, not with every other change in the folder.
            Err(diagnostics) => {
                if self.known.take().is_some() {
                    (self.changed)(Err(diagnostics));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
