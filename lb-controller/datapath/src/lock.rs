//! One instance for one set of pins.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held while the instance lives. The kernel gives the lock up with the process, however that ends, so a lock file
/// that a dead process left behind is no obstacle.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: Flock<File>,
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
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Removed between opening and locking: what is locked is not what the next instance will find.
                Ok(file) if !is_at(&file, &path) => {}
                Ok(mut file) => {
                    write_pid(&mut file).map_err(failed)?;
                    return Ok(Self { _file: file, path });
                }
                Err((mut file, Errno::EWOULDBLOCK)) => return Err(LockError::Held { pid: read_pid(&mut file), path }),
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
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

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
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
    fn a_file_that_a_dead_process_left_is_no_obstacle_and_other_pins_are_another_lock() {
        let folder = folder("stale");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("sys-fs-bpf-lb.lock"), "4194303\n").expect("written");
        let _one = InstanceLock::acquire(&folder, Path::new("/sys/fs/bpf/lb")).expect("stale");
        let _other = InstanceLock::acquire(&folder, Path::new("/sys/fs/bpf/lb2")).expect("other pins");
        std::fs::remove_dir_all(folder).expect("cleaned up");
    }
}
