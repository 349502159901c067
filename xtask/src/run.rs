//! Starting other programs, with errors that say what was run, where it failed and what to do.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs `command` with the terminal's input and output, and fails with `remedy` unless it succeeds.
pub(crate) fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let status = command.status().with_context(|| not_started(command))?;
    if !status.success() {
        bail!("`{}` failed ({status}); {remedy}", words(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed; its error text goes into the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| not_started(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", words(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", words(command)))
}

/// Says what is being done and about how long it takes, does it, and says how long it took.
pub(crate) fn timed<T>(what: &str, about: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what} ({about})");
    let start = Instant::now();
    let done = work()?;
    eprintln!("    done in {:.1} s", start.elapsed().as_secs_f32());
    Ok(done)
}

/// The full path of a program that the shell would find.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    // Debian keeps `ip` and other administration tools out of an ordinary user's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The command as one would type it.
pub(crate) fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn not_started(command: &Command) -> String {
    format!("`{}` could not be started; is {} installed?", words(command), command.get_program().to_string_lossy())
}
