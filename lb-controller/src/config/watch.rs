//! Follows a configuration file and compiles it whenever it changes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Config, Diagnostics, TakenIn, compile_read, read};

/// Saving is often several steps (truncate and write; write aside, rename over): the file is read when they are over.
const QUIET: Duration = Duration::from_millis(100);

/// In a folder that is never quiet the file is read all the same.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Files that the configuration takes in are looked at this often: they may lie in many folders, some of them on other hosts.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file is empty between being truncated and being written; only one that stays empty is told of.
const EMPTY_PATIENCE: Duration = Duration::from_secs(2);

/// Follows one file until it is dropped.
pub struct Watcher {
    /// `None` while being dropped: the thread ends when the events do.
    events: Option<RecommendedWatcher>,
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
        // The folder is watched, not the file: editors put a new file in its place, and a watch would follow the old one.
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let fail = |error: &dyn std::error::Error| WatchError {
            folder: folder.clone(),
            source: std::io::Error::other(error.to_string()),
        };
        let (sender, receiver) = channel();
        let mut events =
            notify::recommended_watcher(move |event| forward(event, &sender)).map_err(|error| fail(&error))?;
        events.watch(&folder, RecursiveMode::NonRecursive).map_err(|error| fail(&error))?;
        let (known, taken_in) = known.map(|known| (known.text, known.taken_in)).unzip();
        let follower = Follower { file: file.to_owned(), known, taken_in: taken_in.unwrap_or_default(), changed };
        let thread = std::thread::Builder::new()
            .name("config-watch".into())
            .spawn(move || follower.follow(&receiver))
            .map_err(|error| fail(&error))?;
        Ok(Watcher { events: Some(events), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.events.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the callback has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// Passes on that something changed in the folder, whatever it was: behind a chain of symbolic links (as in mounted
/// Kubernetes ConfigMaps) the file changes without an event under its own name. Reading is no change: our own would
/// otherwise keep us busy for ever.
fn forward(event: notify::Result<Event>, sender: &Sender<()>) {
    let is_change = match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        // Events may have been lost, so the file may have changed.
        Err(_) => true,
    };
    if is_change {
        // Fails only while the watcher is being dropped.
        let _ = sender.send(());
    }
}

struct Follower<F> {
    file: PathBuf,
    known: Option<String>,
    /// What it took in when it was read last.
    taken_in: Vec<TakenIn>,
    changed: F,
}

impl<F: FnMut(Result<Config, Diagnostics>)> Follower<F> {
    fn follow(mut self, events: &Receiver<()>) {
        // Begins with a look, since the file may have changed between being loaded and being watched.
        loop {
            if self.settle(events).is_err() {
                return;
            }
            self.look();
            if !self.wait(events) {
                return;
            }
        }
    }

    /// Until something may have changed; `false`: nobody follows any more.
    fn wait(&self, events: &Receiver<()>) -> bool {
        loop {
            match events.recv_timeout(LOOK_EVERY) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) if !self.is_taken_in_anew() => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn is_taken_in_anew(&self) -> bool {
        self.taken_in.iter().any(TakenIn::has_changed)
    }

    /// Waits until whoever is saving has probably finished; fails when nobody follows any more.
    fn settle(&self, events: &Receiver<()>) -> Result<(), RecvTimeoutError> {
        let begin = Instant::now();
        loop {
            let is_quiet = match events.recv_timeout(QUIET) {
                Ok(()) => false,
                Err(RecvTimeoutError::Timeout) => true,
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
