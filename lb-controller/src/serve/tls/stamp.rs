//! How to tell that a file is another one by now.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

/// Differs whenever a file was renamed over another, was written to, or went away; nothing of a file that is not there.
pub(super) type Stamp = Option<(u64, u64, u64, Option<SystemTime>)>;

pub(super) fn of(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok()))
}
