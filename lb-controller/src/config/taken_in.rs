//! Files that a configuration takes in: when one becomes another file, the configuration is another one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One such file, as it was just before it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenIn {
    file: PathBuf,
    stamp: Stamp,
}

/// Tells one state of a file from the next; nothing of a file that is not there.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

impl TakenIn {
    pub fn now(file: &Path) -> TakenIn {
        TakenIn { file: file.to_owned(), stamp: stamp(file) }
    }

    /// The same file as it is by now.
    pub(super) fn anew(&self) -> TakenIn {
        TakenIn::now(&self.file)
    }

    pub(super) fn has_changed(&self) -> bool {
        stamp(&self.file) != self.stamp
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}
