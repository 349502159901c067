//! Tells when something in a folder may have changed: a file was put there, taken away, or written and closed.
//!
//! Not at every write: a log that lies beside a configuration would wake its follower with each of its lines.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Folders that are watched until it is dropped.
pub(crate) struct Folders(Arc<Shared>);

/// What is told of them. For one thread.
pub(crate) struct Changes(Arc<Shared>);

#[derive(PartialEq, Eq)]
pub(crate) struct Watch(WatchDescriptor);

/// Why nothing was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// Nothing has changed.
    Yet,
    /// Nobody watches any more.
    EverMore,
}

struct Shared {
    inotify: Inotify,
    over: EventFd,
}

impl Folders {
    pub(crate) fn new() -> io::Result<(Folders, Changes)> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let over = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { inotify, over });
        Ok((Folders(shared.clone()), Changes(shared)))
    }

    pub(crate) fn watch(&self, folder: &Path) -> io::Result<Watch> {
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        Ok(Watch(self.0.inotify.add_watch(folder, changes | AddWatchFlags::IN_ONLYDIR)?))
    }

    pub(crate) fn unwatch(&self, watch: Watch) {
        // A folder that is gone is not watched any more anyway.
        let _ = self.0.inotify.rm_watch(watch.0);
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        // Fails only when it was told already.
        let _ = self.0.over.write(1);
    }
}

impl Changes {
    /// Waits until something may have changed; `None`: for as long as that takes.
    pub(crate) fn wait(&self, longest: Option<Duration>) -> Result<(), Nothing> {
        let deadline = longest.map(|longest| Instant::now() + longest);
        loop {
            // Rounded up: a wait of less than a millisecond would be none.
            let left =
                deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000));
            let left = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            let mut wanted =
                [&self.0.over.as_fd(), &self.0.inotify.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
            match poll(&mut wanted, left) {
                Ok(0) => return Err(Nothing::Yet),
                Ok(_) if wanted[0].any() == Some(true) => return Err(Nothing::EverMore),
                // Whatever it was, lost events among it.
                Ok(_) => {
                    let _ = self.0.inotify.read_events();
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                // Out of memory: whoever waits looks for itself meanwhile.
                Err(_) => {
                    std::thread::sleep(Duration::from_secs(1));
                    return Err(Nothing::Yet);
                }
            }
        }
    }
}

/// Where `file` lies. The folder is watched, not the file: most programs put a new file in its place, and a watch would follow
/// the old one.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// What is done to a folder.
    type Step<'s> = (&'s str, &'s dyn Fn(&Path));

    const SOON: Option<Duration> = Some(Duration::from_secs(10));
    const NOT_SOON: Option<Duration> = Some(Duration::from_millis(100));

    #[test]
    fn what_changes_files_is_told_and_what_only_reads_or_appends_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (folders, changes) = Folders::new().unwrap();
        let mut log = fs::File::create(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("file"), "old").unwrap();
        folders.watch(folder.path()).unwrap();
        log.write_all(b"a line\n").unwrap();
        fs::read(folder.path().join("file")).unwrap();
        assert_eq!(changes.wait(NOT_SOON), Err(Nothing::Yet));
        let steps: [Step<'_>; 4] = [
            ("written", &|folder| fs::write(folder.join("file"), "new").unwrap()),
            ("put there", &|folder| std::os::unix::fs::symlink("file", folder.join("link")).unwrap()),
            ("renamed", &|folder| fs::rename(folder.join("link"), folder.join("other")).unwrap()),
            ("removed", &|folder| fs::remove_file(folder.join("other")).unwrap()),
        ];
        for (step, change) in steps {
            change(folder.path());
            assert_eq!(changes.wait(SOON), Ok(()), "{step}");
            while changes.wait(NOT_SOON).is_ok() {}
        }
    }

    #[test]
    fn a_folder_is_let_go_and_the_end_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (folders, changes) = Folders::new().unwrap();
        let watch = folders.watch(folder.path()).unwrap();
        folders.unwatch(watch);
        while changes.wait(NOT_SOON).is_ok() {}
        fs::write(folder.path().join("file"), "new").unwrap();
        assert_eq!(changes.wait(NOT_SOON), Err(Nothing::Yet));
        let waiting = std::thread::spawn(move || changes.wait(None));
        drop(folders);
        assert_eq!(waiting.join().unwrap(), Err(Nothing::EverMore));
    }
}
