//! Whether files are as they were, without reading them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

/// The change time moves with every write, whatever a program does to the modification time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Stamps {
    pub(super) fn of<'f>(files: impl Iterator<Item = &'f Path>) -> Stamps {
        Stamps(files.map(|file| (file.to_owned(), stamp(file))).collect())
    }
}

/// `None` if there is no such file.
fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        changed_s: metadata.ctime(),
        changed_ns: metadata.ctime_nsec(),
    })
}
