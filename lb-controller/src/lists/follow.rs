//! Follows the files of the lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Lists;
use crate::folders::{Changes, Folders, Nothing, Watch, folder_of};

/// Whoever writes a long file writes for a while: it is read when that is over.
const QUIET: Duration = Duration::from_millis(200);

/// In a folder that is never quiet the files are looked at all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// So they are when nothing was told: whoever appends to a file and keeps it open is not told of, nor a folder that was put in
/// another's place.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks at the files of `lists` whenever something changes in their folders, until it is dropped.
pub struct Follower {
    lists: Arc<Lists>,
    watched: Mutex<Watched>,
    thread: Option<JoinHandle<()>>,
}

struct Watched {
    /// `None` while being dropped: the thread ends with it.
    folders: Option<Folders>,
    watches: BTreeMap<PathBuf, Watch>,
}

/// Why files cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("the lists in {} cannot be followed for changes; they are read at every change of the configuration", folder.display())]
pub struct FollowError {
    folder: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Follower {
    pub fn start(lists: Arc<Lists>) -> std::io::Result<Follower> {
        let (folders, changes) = Folders::new()?;
        let looking = lists.clone();
        let thread = std::thread::Builder::new().name("lists-watch".into()).spawn(move || {
            while wait(&changes).is_ok() {
                looking.look_at_files();
            }
        })?;
        let watched = Mutex::new(Watched { folders: Some(folders), watches: BTreeMap::new() });
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
        let Watched { folders: Some(folders), watches } = &mut *watched else { return Ok(()) };
        let before = std::mem::take(watches);
        let mut failed = Ok(());
        for folder in wanted {
            // Anew, for it may be another folder by now.
            match folders.watch(&folder) {
                Ok(watch) => _ = watches.insert(folder, watch),
                Err(source) => failed = Err(FollowError { folder, source }),
            }
        }
        for watch in before.into_values().filter(|watch| watches.values().all(|wanted| wanted != watch)) {
            folders.unwatch(watch);
        }
        drop(watched);
        // A file may have changed between being read and being followed.
        self.lists.look_at_files();
        failed
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.watched.lock().unwrap_or_else(PoisonError::into_inner).folders.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// Until the files are to be looked at; fails when nobody follows any more.
fn wait(changes: &Changes) -> Result<(), Nothing> {
    match changes.wait(Some(LOOK_EVERY)) {
        Ok(()) => settle(changes),
        Err(Nothing::Yet) => Ok(()),
        gone => gone,
    }
}

/// Fails when nobody follows any more.
fn settle(changes: &Changes) -> Result<(), Nothing> {
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_WAIT {
        match changes.wait(Some(QUIET)) {
            Ok(()) => {}
            Err(Nothing::Yet) => return Ok(()),
            Err(gone) => return Err(gone),
        }
    }
    Ok(())
}
