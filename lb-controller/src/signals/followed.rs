//! A file that is read anew when another one is put in its place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;

/// What a file holds, and how to tell that it is another one by now.
pub(super) struct Followed<T> {
    file: PathBuf,
    current: ArcSwap<T>,
    stamp: Mutex<Stamp>,
}

/// Differs whenever a file was renamed over another, or was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl<T> Followed<T> {
    pub(super) fn open(file: &Path, read: impl FnOnce(&Path) -> Result<T>) -> Result<Followed<T>> {
        let stamp = Stamp::of(file)?;
        let current = ArcSwap::from_pointee(read(file)?);
        Ok(Followed { file: file.to_owned(), current, stamp: Mutex::new(stamp) })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the file if it is another one than before. One that cannot be read is told of once, and the old content goes
    /// on.
    pub(super) fn look(&self, read: impl FnOnce(&Path) -> Result<T>) {
        let mut known = self.stamp.lock().expect("no holder of this lock panics");
        let stamp = match Stamp::of(&self.file) {
            Ok(stamp) if stamp == *known => return,
            Ok(stamp) => stamp,
            // Between being removed and being there again, or gone; either way it will be looked at anew.
            Err(_) => return,
        };
        *known = stamp;
        match read(&self.file) {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!(file = %self.file.display(), "new file in force");
            }
            Err(error) => tracing::error!("new file refused, the old one goes on: {error:#}"),
        }
    }
}

impl Stamp {
    fn of(file: &Path) -> Result<Stamp> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(Stamp { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(file: &Path) -> Result<u32> {
        Ok(fs::read_to_string(file)?.trim().parse()?)
    }

    #[test]
    fn a_file_renamed_over_is_read_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        let replace = |text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), &file).unwrap();
        };
        assert!(Followed::open(&file, read).is_err(), "there is none yet");
        replace("1");
        let followed = Followed::open(&file, read).unwrap();
        let rows = [("2", 2), ("nonsense", 2), ("3", 3)];
        for (text, expected) in rows {
            replace(text);
            followed.look(read);
            assert_eq!(*followed.current(), expected, "{text}");
        }
        fs::remove_file(&file).unwrap();
        followed.look(read);
        assert_eq!(*followed.current(), 3, "gone, and what it held goes on");
        followed.look(|_| panic!("what did not change is not read"));
    }
}
