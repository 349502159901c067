//! Backends in a file that somebody else writes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::found::{Asked, Outcome};
use crate::config::{Config, DiscoverConfig, TakenIn, read_backends};

/// It may lie on another host, where nothing tells of changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Asker {
    file: PathBuf,
    /// As it was when it was looked at last.
    seen: Option<TakenIn>,
    /// That was read.
    is_read: bool,
}

impl Asker {
    pub(super) fn new(file: PathBuf) -> Asker {
        Asker { file, seen: None, is_read: false }
    }

    /// Reads it once it has been as it is since the last look: half of one is somebody's who is writing still. The first
    /// look reads at once.
    pub(super) fn ask(&mut self, pool: &str, wanted: &DiscoverConfig, config: &Config) -> Asked {
        let (now, at) = (TakenIn::now(&self.file), Instant::now());
        let is_first = self.seen.is_none();
        let is_settled = is_first || self.seen.as_ref() == Some(&now);
        let is_news = !self.is_read || !is_settled;
        self.seen = Some(now);
        self.is_read = is_settled;
        let outcome = if is_settled && is_news { self.read(pool, wanted, config) } else { Outcome::Unchanged };
        Asked { at, again_after: LOOK_EVERY, outcome, refused: Vec::new() }
    }

    fn read(&self, pool: &str, wanted: &DiscoverConfig, config: &Config) -> Outcome {
        match read_backends(&self.file, pool, wanted.zone.as_deref(), config) {
            Ok(backends) => Outcome::Backends(backends),
            Err(diagnostics) => Outcome::Failed(diagnostics.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DiscoverFrom, compile_read};

    #[test]
    fn a_file_is_read_when_it_has_settled_and_a_broken_one_is_told_of_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backends.json");
        let config = compile_read(
            &folder.path().join("lb.yaml"),
            "pools: [{name: shop, backends: \"10.0.0.9:80\"}]\nroutes: [{path: /**, pool: shop}]\n",
        )
        .unwrap();
        let from = DiscoverFrom::File(path.clone());
        let wanted = DiscoverConfig { from, most: 10, drain_for: Duration::ZERO, zone: None };
        let mut asker = Asker::new(path.clone());
        let mut look = || match asker.ask("shop", &wanted, &config).outcome {
            Outcome::Backends(backends) => Ok(backends.len()),
            Outcome::Failed(error) => Err(Some(error)),
            Outcome::Unchanged => Err(None),
        };
        assert!(look().unwrap_err().unwrap().contains("cannot be read"), "it is not there");
        assert_eq!(look(), Err(None), "and still is not");
        for (text, expected) in [
            ("[\"10.0.0.1:80\", {\"address\": \"10.0.0.2:80\", \"weight\": 3}]", Ok(2)),
            ("- 10.0.0.1:80\n", Ok(1)),
            ("[]", Err("no backend")),
            ("[\"10.0.0.1:80\", ", Err("")),
            ("[\"10.0.0.1\"]", Err("")),
            ("[{address: \"10.0.0.1:80\", wait: 3}]", Err("wait")),
            ("{}", Err("")),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(look(), Err(None), "{text}: somebody may be writing");
            match expected {
                Ok(count) => assert_eq!(look(), Ok(count), "{text}"),
                Err(part) => {
                    let error = look().unwrap_err().unwrap_or_default();
                    assert!(!error.is_empty() && error.contains(part), "{text}: {error}");
                }
            }
            assert_eq!(look(), Err(None), "{text}: it was read");
        }
    }
}
