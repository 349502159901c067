//! One instance for one set of pins.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held while the instance lives. The kernel gives the lock up with the last descriptor of it, however its process ends,
/// so a lock file that a dead process left behind is no obstacle. Whoever is handed a descriptor holds it too: between two
/// processes of which one takes over from the other there is no moment without a holder.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    file: File,
    path: PathBuf,
}

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    /// `None` if the holder has not written its process id yet.
    Held {
        pid: Option<u32>,
        path: PathBuf,
    },
    Failed {
        path: PathBuf,
        source: io::Error,
    },
}

impl InstanceLock {
    /// `folder` is created if needed. A BPF file system cannot hold a lock file, hence a folder of its own.
    pub(crate) fn acquire(folder: &Path, pin_root: &Path) -> Result<Self, LockError> {
        let path = folder.join(file_name(pin_root));
        let failed = |source| LockError::Failed { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        loop {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                // Removed between opening and locking: what is locked is not what the next instance will find.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    let lock = Self { file, path: path.clone() };
                    lock.name_holder().map_err(failed)?;
                    return Ok(lock);
                }
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { pid: read_pid(&mut file), path }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// The lock of a process that hands it over. The file goes on naming that one until [`InstanceLock::name_holder`].
    pub(crate) fn adopt(handed: &OwnedFd, folder: &Path, pin_root: &Path) -> Result<Self, LockError> {
        let path = folder.join(file_name(pin_root));
        let failed = |source| LockError::Failed { path: path.clone(), source };
        let file = File::from(handed.try_clone().map_err(failed)?);
        if !is_at(&file, &path) {
            return Err(failed(io::Error::other("what was handed over is the lock of another instance")));
        }
        Ok(Self { file, path })
    }

    /// A second descriptor of it, to hand over.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Says in the file that this process holds it: for those who are refused.
    pub(crate) fn name_holder(&self) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }

    /// Gives the lock up for good, file and all, and the folder when nothing else is in it.
    pub(crate) fn remove(self) {
        // What stays is no obstacle to anybody.
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(inode).ok() == std::fs::metadata(path).map(inode).ok()
}

fn file_name(pin_root: &Path) -> String {
    let path = pin_root.to_string_lossy();
    format!("{}.lock", path.trim_matches('/').replace('/', "-"))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("lb-lock-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_second_instance_learns_who_holds_the_lock_until_the_first_is_gone() {
        let folder = folder("second");
        let pins = Path::new("/sys/fs/bpf/lb");
        let first = InstanceLock::acquire(&folder, pins).expect("free");
        let Err(LockError::Held { pid, .. }) = InstanceLock::acquire(&folder, pins) else { panic!("not refused") };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        assert!(InstanceLock::acquire(&folder, pins).is_ok());
        std::fs::remove_dir_all(folder).expect("cleaned up");
    }

    #[test]
    fn a_lock_that_was_handed_over_outlives_who_took_it() {
        let folder = folder("handed");
        let pins = Path::new("/sys/fs/bpf/lb");
        let first = InstanceLock::acquire(&folder, pins).expect("free");
        let handed = first.share().expect("a second descriptor");
        let second = InstanceLock::adopt(&handed, &folder, pins).expect("adopted");
        drop((first, handed));
        assert!(matches!(InstanceLock::acquire(&folder, pins), Err(LockError::Held { .. })), "there is still a holder");
        let other = InstanceLock::acquire(&folder, Path::new("/sys/fs/bpf/lb2")).expect("free");
        let of_other = other.share().expect("a second descriptor");
        assert!(InstanceLock::adopt(&of_other, &folder, pins).is_err(), "that is another's");
        drop(second);
        assert!(InstanceLock::acquire(&folder, pins).is_ok());
        std::fs::remove_dir_all(folder).expect("cleaned up");
    }

    #[test]
    fn a_file_that_a_dead_process_left_is_no_obstacle_and_other_pins_are_another_lock() {
        let folder = folder("stale");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("sys-fs-bpf-lb.lock"), "4194303\n").expect("written");
        let _one = InstanceLock::acquire(&folder, Path::new("/sys/fs/bpf/lb")).expect("stale");
        let _other = InstanceLock::acquire(&folder, Path::new("/sys/fs/bpf/lb2")).expect("other pins");
        std::fs::remove_dir_all(folder).expect("cleaned up");
    }
}
