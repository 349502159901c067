//! One demo at a time: the claim on the scene's home folder.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held while a demo lives; the kernel lets it go when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Claim {
    home: PathBuf,
    _lock: Flock<File>,
}

impl Claim {
    /// Takes the folder and empties it, or says that another demo has it.
    pub(crate) fn take(home: &Path) -> Result<Claim> {
        for _ in 0..10 {
            // Passwords and the TOTP secret lie in it.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(home)?;
            let folder = File::open(home).with_context(|| format!("opening {}", home.display()))?;
            let lock = match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, Errno::EWOULDBLOCK)) => {
                    bail!("another demo is running (it holds {}); stop it with Ctrl-C first", home.display())
                }
                Err((_, error)) => return Err(error).with_context(|| format!("locking {}", home.display())),
            };
            // A demo that was just ending may have removed the folder between opening and locking.
            if fs::metadata(home).is_ok_and(|now| lock.metadata().is_ok_and(|held| held.ino() == now.ino())) {
                empty(home)?;
                return Ok(Claim { home: home.into(), _lock: lock });
            }
        }
        bail!("{} keeps vanishing; is something removing it?", home.display())
    }

    /// Removes the folder, and with it the claim.
    pub(crate) fn give_up(self) -> Result<()> {
        fs::remove_dir_all(&self.home).with_context(|| format!("removing {}", self.home.display()))
    }
}

fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_demo_is_refused_until_the_first_has_gone() {
        let home = std::env::temp_dir().join(format!("lb-claim-{}", std::process::id()));
        let first = Claim::take(&home).unwrap();
        fs::write(home.join("secret"), "x").unwrap();
        let refused = Claim::take(&home).unwrap_err().to_string();
        assert!(refused.starts_with("another demo is running"), "{refused}");
        first.give_up().unwrap();
        let second = Claim::take(&home).unwrap();
        assert!(!home.join("secret").exists());
        second.give_up().unwrap();
        assert!(!home.exists());
    }
}
