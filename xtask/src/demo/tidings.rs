//! What the controller says while somebody tries the demo: what became of an edit, and whatever went wrong.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Reads a log as it grows.
pub(super) struct Tidings {
    log: BufReader<File>,
    /// Of a line that was not written to its end.
    begun: String,
}

impl Tidings {
    /// Of what is written from now on.
    pub(super) fn from_now(log: &Path) -> Result<Tidings> {
        let mut file = File::open(log).with_context(|| format!("opening {}", log.display()))?;
        file.seek(SeekFrom::End(0)).with_context(|| format!("reading {}", log.display()))?;
        Ok(Tidings { log: BufReader::new(file), begun: String::new() })
    }

    /// What has been said since the last time.
    pub(super) fn next(&mut self) -> Result<Vec<String>> {
        let mut said = Vec::new();
        while self.log.read_line(&mut self.begun).context("reading the controller's log")? > 0 {
            if self.begun.ends_with('\n') {
                said.extend(worth_telling(&self.begun));
                self.begun.clear();
            }
        }
        Ok(said)
    }
}

fn worth_telling(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let is_of_an_edit = line["target"].as_str()?.ends_with("::reload");
    let message = line["message"].as_str()?;
    (is_of_an_edit || line["level"] == "ERROR").then(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn edits_and_errors_are_told_and_requests_are_not() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        writeln!(log, r#"{{"level":"ERROR","message":"before","target":"x"}}"#).unwrap();
        let mut tidings = Tidings::from_now(log.path()).unwrap();
        writeln!(log, r#"{{"level":"INFO","target":"access","path":"/"}}"#).unwrap();
        writeln!(log, r#"{{"level":"WARN","message":"odd","target":"lb_controller::run"}}"#).unwrap();
        write!(log, r#"{{"level":"INFO","message":"new configuration in force","tar"#).unwrap();
        assert!(tidings.next().unwrap().is_empty(), "a line that is not whole waits");
        writeln!(log, r#"get":"lb_controller::run::reload"}}"#).unwrap();
        writeln!(log, r#"{{"level":"ERROR","message":"lists\nbroke","target":"lb_controller::lists"}}"#).unwrap();
        assert_eq!(tidings.next().unwrap(), ["new configuration in force", "lists\nbroke"]);
        assert!(tidings.next().unwrap().is_empty());
    }
}
