//! Whether a trail is whole.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::trail::{GENESIS, Line, hash_of, lines};

/// What was found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub events: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
    pub first_at: Option<String>,
    pub last_at: Option<String>,
    /// Of the last line: whoever noted it down can tell whether the end was cut off.
    pub last_hash: Option<String>,
}

/// Checks files one after the other, the oldest first.
#[derive(Debug, Default)]
pub struct Verifier {
    found: Verified,
}

impl Verifier {
    /// # Errors
    /// With the file and the line from which the chain does not hold. The first event of all must be given unless an
    /// earlier part was put away: then only what follows is checked.
    pub fn check(&mut self, path: &Path) -> Result<()> {
        let lines = lines(path).with_context(|| format!("cannot read {}", path.display()))?;
        for (number, line) in (1..).zip(lines) {
            self.line(&line?).with_context(|| format!("{}:{number}", path.display()))?;
        }
        Ok(())
    }

    fn line(&mut self, bytes: &[u8]) -> Result<()> {
        let line: Line<'_> = serde_json::from_slice(bytes).context("this is no audit event")?;
        match (&self.found.last_hash, self.found.last_seq) {
            (Some(hash), Some(seq)) => {
                ensure!(line.seq == seq + 1, "event {} follows event {seq}: {}", line.seq, missing(seq, line.seq));
                ensure!(line.prev == hash, "event {seq}, before this one, is not what was written, or this one is not");
            }
            _ => ensure!(line.seq != 1 || line.prev == GENESIS, "the first event follows another"),
        }
        let found = &mut self.found;
        found.events += 1;
        found.first_seq.get_or_insert(line.seq);
        found.first_at.get_or_insert_with(|| line.at.to_owned());
        found.last_seq = Some(line.seq);
        found.last_at = Some(line.at.to_owned());
        found.last_hash = Some(hash_of(bytes));
        Ok(())
    }

    pub fn found(self) -> Verified {
        self.found
    }
}

fn missing(before: u64, after: u64) -> &'static str {
    if after > before { "events are missing" } else { "events are out of order, or twice" }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::Event;
    use super::super::trail::{Trail, TrailConfig};
    use super::*;

    fn config(directory: &tempfile::TempDir, rotate_at_bytes: u64) -> TrailConfig {
        TrailConfig { file: directory.path().join("audit.jsonl"), rotate_at_bytes }
    }

    fn write(config: &TrailConfig, results: &[&str]) {
        let trail = Trail::open(config).unwrap();
        for result in results {
            trail.append(&Event { event: "verify", result, ..Event::default() });
        }
        trail.flush();
        assert_eq!(trail.lost(), 0);
    }

    fn check(files: &[PathBuf]) -> Result<Verified> {
        let mut verifier = Verifier::default();
        files.iter().try_for_each(|file| verifier.check(file))?;
        Ok(verifier.found())
    }

    #[test]
    fn a_trail_goes_on_over_restarts_and_files_and_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&directory, 400);
        write(&config, &["ok", "wrong"]);
        write(&config, &["replayed", "ok", "ok"]);
        let mut files: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort_by_key(|file| {
            let number = file.to_str().unwrap().rsplit('.').next().unwrap().parse::<u64>();
            number.unwrap_or(u64::MAX)
        });
        assert!(files.len() >= 2, "{files:?}");
        let found = check(&files).unwrap();
        assert_eq!((found.events, found.first_seq, found.last_seq), (5, Some(1), Some(5)));
        let later = check(&files[1..]).unwrap();
        assert!(later.first_seq > Some(1), "earlier files may have been put away");
    }

    #[test]
    fn whatever_is_done_to_a_trail_shows_at_its_line() {
        type Deed = fn(&mut Vec<String>);
        let rows: &[(&str, Deed, &str)] = &[
            ("an event changed", |lines| lines[1] = lines[1].replace("wrong", "ok"), ":3: event 2, before this one"),
            ("an event taken out", |lines| drop(lines.remove(1)), ":2: event 3 follows event 1: events are missing"),
            ("an event twice", |lines| lines.insert(1, lines[0].clone()), ":2: event 1 follows event 1"),
            ("two exchanged", |lines| lines.swap(1, 2), ":2: event 3 follows event 1"),
            ("something put in", |lines| lines.insert(0, "{}".to_owned()), ":1: this is no audit event"),
        ];
        for (name, deed, expected) in rows {
            let directory = tempfile::tempdir().unwrap();
            let config = config(&directory, u64::MAX);
            write(&config, &["ok", "wrong", "ok"]);
            let mut lines: Vec<String> = fs::read_to_string(&config.file).unwrap().lines().map(Into::into).collect();
            deed(&mut lines);
            fs::write(&config.file, lines.join("\n") + "\n").unwrap();
            let error = format!("{:#}", check(std::slice::from_ref(&config.file)).unwrap_err());
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn half_a_line_after_a_power_cut_is_taken_away_and_another_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&directory, u64::MAX);
        write(&config, &["ok"]);
        let whole = fs::read_to_string(&config.file).unwrap();
        fs::write(&config.file, format!("{whole}{{\"seq\":2,\"pre")).unwrap();
        write(&config, &["wrong"]);
        assert_eq!(check(std::slice::from_ref(&config.file)).unwrap().events, 2);

        for other in ["root:x:0:0:root\n", "no newline at all"] {
            fs::write(&config.file, other).unwrap();
            assert!(Trail::open(&config).is_err(), "{other}");
            assert_eq!(fs::read_to_string(&config.file).unwrap(), other);
        }
    }
}
