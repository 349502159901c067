//! Follows the files of the lists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::Lists;

/// Whoever writes a long file writes for a while: it is read when that is over.
const QUIET: Duration = Duration::from_millis(200);

/// In a folder that is never quiet the files are looked at all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Looks at the files of `lists` whenever something changes in their folders, until it is dropped.
pub struct Follower {
    lists: Arc<Lists>,
    watched: Mutex<Watched>,
    thread: Option<JoinHandle<()>>,
}

struct Watched {
    /// `None` while being dropped: the thread ends when the events do.
    events: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

/// Why files cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("the lists in {} cannot be followed for changes; they are read at every change of the configuration", folder.display())]
pub struct FollowError {
    folder: PathBuf,
    #[source]
    source: notify::Error,
}

impl Follower {
    pub fn start(lists: Arc<Lists>) -> std::io::Result<Follower> {
        let (sender, receiver) = channel();
        let events =
            notify::recommended_watcher(move |event| forward(event, &sender)).map_err(std::io::Error::other)?;
        let looking = lists.clone();
        let thread = std::thread::Builder::new().name("lists-watch".into()).spawn(move || {
            while receiver.recv().is_ok() && settle(&receiver).is_ok() {
                looking.look_at_files();
            }
        })?;
        let watched = Mutex::new(Watched { events: Some(events), folders: BTreeSet::new() });
        let follower = Follower { lists, watched, thread: Some(thread) };
        if let Err(error) = follower.follow_files() {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        Ok(follower)
    }

    /// Follows the files that the lists in force name, and no others any more. To be called after a change of these.
    pub fn follow_files(&self) -> Result<(), FollowError> {
        let config = self.lists.config();
        let wanted: BTreeSet<PathBuf> = config.files().map(folder_of).collect();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Watched { events: Some(events), folders } = &mut *watched else { return Ok(()) };
        for folder in folders.difference(&wanted) {
            // A folder that is gone is not watched any more anyway.
            let _ = events.unwatch(folder);
        }
        folders.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            if !folders.contains(&folder) {
                events
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .map_err(|source| FollowError { folder: folder.clone(), source })?;
                folders.insert(folder);
            }
        }
        drop(watched);
        // A file may have changed between being read and being followed.
        self.lists.look_at_files();
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.watched.lock().unwrap_or_else(PoisonError::into_inner).events.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// The folder is watched, not the file: lists are mostly written aside and renamed over, and a watch would follow the
/// old one.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn forward(event: notify::Result<Event>, sender: &Sender<()>) {
    let is_change = match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        // Events may have been lost, so a file may have changed.
        Err(_) => true,
    };
    if is_change {
        // Fails only while the follower is being dropped.
        let _ = sender.send(());
    }
}

/// Fails when nobody follows any more.
fn settle(events: &Receiver<()>) -> Result<(), RecvTimeoutError> {
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_WAIT {
        match events.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(gone) => return Err(gone),
        }
    }
    Ok(())
}
