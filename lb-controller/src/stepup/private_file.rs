//! Files that only the controller may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::random_id::random_bytes;

/// Makes `directory` (mode 0700) if it is missing. Refuses one in which others could swap our files.
pub(super) fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| {
        format!("cannot make the state directory {}; choose another `state_dir` or run as root", directory.display())
    })?;
    let mode = fs::metadata(directory).with_context(|| format!("cannot look at {}", directory.display()))?.mode();
    if mode & 0o022 != 0 {
        bail!(
            "the state directory {0} may be written by others (mode {1:04o}), who could replace its keys; \
             run `chmod go-w {0}`",
            directory.display(),
            mode & 0o7777
        );
    }
    Ok(())
}

/// The bytes of `path`, or `None` when there is no such file. Refuses a file that others may read.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mode = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.mode();
    if mode & 0o077 != 0 {
        bail!(
            "{0} holds keys but others may read it (mode {1:04o}); run `chmod 600 {0}`, \
             or delete it if somebody may have read it: that ends all sessions and makes new keys",
            path.display(),
            mode & 0o7777
        );
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(bytes))
}

/// The 32 random bytes of `path`, which are made if there is no such file.
pub(super) fn secret(path: &Path) -> Result<Vec<u8>> {
    let secret = match read(path)? {
        Some(secret) => secret,
        None => {
            let secret = random_bytes::<32>().to_vec();
            replace(path, &secret)?;
            secret
        }
    };
    anyhow::ensure!(secret.len() == 32, "{} is damaged; delete it to have a new one made", path.display());
    Ok(secret)
}

/// Replaces `path` as a whole: after a power cut it holds the old bytes or the new ones, never a part.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new_path = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new_path)?;
        // A file left over from a crash keeps its old mode when it is opened again.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new_path, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().with_context(|| format!("cannot write {}; is the disk full or read-only?", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_read_back_and_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(read(&path).unwrap().is_none());
        replace(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn keys_that_others_may_read_and_directories_they_may_write_are_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        replace(&path, b"secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));

        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(make_directory(directory.path()).unwrap_err().to_string().contains("chmod go-w"));
    }
}
