//! Where lines end up: whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use memchr::{memchr_iter, memrchr};
use nix::fcntl::OFlag;

use crate::config::{LogFileConfig, Rotation};

/// Lines that could not be written, and why.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lines: usize,
    pub(super) error: io::Error,
}

/// Who takes lines.
#[derive(Debug)]
pub(super) enum Sink {
    Stream(Stream),
    File(LogFile),
}

impl Sink {
    pub(super) fn stream(stream: impl Write + Send + 'static) -> Sink {
        Sink::Stream(Stream { stream: Box::new(stream), is_within_line: false })
    }

    /// `lines` are whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        match self {
            Sink::Stream(stream) => stream.write(lines),
            Sink::File(file) => file.write(lines),
        }
    }

    /// Somebody has put the file aside: begins it anew.
    pub(super) fn reopen(&mut self) -> Result<()> {
        match self {
            Sink::Stream(_) => Ok(()),
            Sink::File(file) => file.reopen(),
        }
    }
}

/// What cannot be put aside, such as standard error.
pub(super) struct Stream {
    stream: Box<dyn Write + Send>,
    /// It failed within a line, of which nothing can be taken back.
    is_within_line: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let nothing_written = |error| Lost { lines: count(lines), error };
        if self.is_within_line {
            self.stream.write_all(b"\n").map_err(nothing_written)?;
            self.is_within_line = false;
        }
        if let Err((written, error)) = write_all(&mut self.stream, lines) {
            let whole = after_last_line(&lines[..written]);
            self.is_within_line = whole < written;
            return Err(Lost { lines: count(&lines[whole..]), error });
        }
        self.stream.flush().map_err(|error| Lost { lines: 0, error })
    }
}

/// A file that is only appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Option<Rotation>,
    file: File,
    /// It ends within a line that could not be taken back.
    is_within_line: bool,
}

impl LogFile {
    /// Goes on where the file ends, or begins it.
    ///
    /// # Errors
    /// It cannot be opened, or is something else than a file.
    pub(super) fn open(config: &LogFileConfig) -> Result<LogFile> {
        let file = open(&config.path)?;
        Ok(LogFile { path: config.path.clone(), rotation: config.rotation, file, is_within_line: false })
    }

    fn reopen(&mut self) -> Result<()> {
        self.file = open(&self.path)?;
        self.is_within_line = false;
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        // Lines in a file that is larger than it should be are better than none.
        let rotated = self.rotate_before(lines.len());
        if self.is_within_line {
            self.file.write_all(b"\n").map_err(|error| Lost { lines: count(lines), error })?;
            self.is_within_line = false;
        }
        let Err((written, error)) = write_all(&mut self.file, lines) else {
            return rotated.map_err(|error| Lost { lines: 0, error });
        };
        let whole = after_last_line(&lines[..written]);
        self.is_within_line = whole < written && self.take_back(written - whole).is_err();
        Err(Lost { lines: count(&lines[whole..]), error })
    }

    /// Half a line, on a disk that is full, would make one with the next.
    fn take_back(&self, bytes: usize) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        self.file.set_len(end.saturating_sub(bytes as u64))
    }

    fn rotate_before(&mut self, more_bytes: usize) -> io::Result<()> {
        let Some(Rotation { size_bytes, keep }) = self.rotation else { return Ok(()) };
        let bytes = self.file.metadata()?.len();
        if bytes == 0 || bytes + more_bytes as u64 <= size_bytes {
            return Ok(());
        }
        for number in (1..keep).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        rename(&self.path, &numbered(&self.path, 1))?;
        self.reopen().map_err(io::Error::other)
    }
}

/// What is not there stays where it is.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// For the owner and, to read, the group. No link is followed: where others may write to the folder, they could lead the
/// lines into any file of ours.
fn open(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
        made.with_context(|| format!("cannot make the folder {} of the access log", folder.display()))?;
    }
    // Without O_NONBLOCK a pipe that nobody reads would hold the start up.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags.bits()).open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            bail!("the access log {} is a symbolic link; name the file itself", path.display());
        }
        opened => opened.with_context(|| format!("cannot open the access log {}", path.display()))?,
    };
    if !file.metadata()?.is_file() {
        bail!("the access log {} is no file", path.display());
    }
    Ok(file)
}

/// Errors: how many bytes were written before.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

fn after_last_line(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

fn count(lines: &[u8]) -> usize {
    memchr_iter(b'\n', lines).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(folder: &Path, rotation: Option<Rotation>) -> LogFile {
        LogFile::open(&LogFileConfig { path: folder.join("log/access.log"), rotation }).unwrap()
    }

    fn text(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join("log").join(name)).unwrap_or_default()
    }

    #[test]
    fn a_file_is_put_aside_before_it_is_too_large_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = file(folder.path(), Some(Rotation { size_bytes: 12, keep: 2 }));
        for line in ["one\n", "two\n", "three\n", "four\n", "a line that is too long\n", "five\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        let names = ["access.log", "access.log.1", "access.log.2", "access.log.3"];
        let texts = names.map(|name| text(folder.path(), name));
        assert_eq!(texts, ["five\n", "a line that is too long\n", "three\nfour\n", ""]);
    }

    #[test]
    fn a_file_that_was_put_aside_by_somebody_else_is_begun_anew_and_goes_on_until_then() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = file(folder.path(), None);
        log.write(b"one\n").unwrap();
        fs::rename(folder.path().join("log/access.log"), folder.path().join("log/aside")).unwrap();
        log.write(b"two\n").unwrap();
        log.reopen().unwrap();
        log.write(b"three\n").unwrap();
        assert_eq!(["aside", "access.log"].map(|name| text(folder.path(), name)), ["one\ntwo\n", "three\n"]);
        let mode = fs::metadata(folder.path().join("log/access.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{mode:o}: others read it, or the group may write");
    }

    #[test]
    fn what_is_no_file_is_refused_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("link")).unwrap();
        nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, told) in [("link", "symbolic link"), ("pipe", "cannot open"), (".", "cannot open")] {
            let config = LogFileConfig { path: folder.path().join(name), rotation: None };
            let error = LogFile::open(&config).unwrap_err().to_string();
            assert!(error.contains(told), "{name}: {error}");
        }
    }

    /// Takes so many bytes more, then fails.
    struct Full(usize, Vec<u8>);

    impl Write for &mut Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.0 -= taken;
            self.1.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn how_far_a_write_came_is_known_to_the_byte() {
        let mut full = Full(6, Vec::new());
        let (written, error) = write_all(&mut &mut full, b"one\ntwo\nthree\n").unwrap_err();
        assert_eq!((written, error.kind()), (6, ErrorKind::StorageFull));
        assert_eq!((after_last_line(b"one\ntw"), count(b"two\nthree\n")), (4, 2));
    }
}
