//! Lists of addresses with something against them, each valid for a time after it was written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use lb_policy::{Network, PrefixSet, UnixSeconds};

use super::followed::Followed;
use crate::config::ReputationListConfig;

/// All lists in force.
#[derive(Default)]
pub(super) struct Reputation(Vec<List>);

struct List {
    config: ReputationListConfig,
    scores: Arc<Followed<Scores>>,
}

/// The networks of one file by their score, and when it was written.
struct Scores {
    by_score: BTreeMap<u8, PrefixSet>,
    written_at: UnixSeconds,
}

const MOST_LINES: usize = 2_000_000;

impl Reputation {
    /// Opens what the configuration names, but for what is open in `old`.
    pub(super) fn open(configs: &[ReputationListConfig], old: &Reputation) -> Result<Reputation> {
        let open = |config: &ReputationListConfig| {
            let scores = match old.0.iter().find(|list| list.config == *config) {
                Some(list) => list.scores.clone(),
                None => Arc::new(Followed::open(&config.file, |file| read(file, config.score))?),
            };
            Ok(List { config: config.clone(), scores })
        };
        Ok(Reputation(configs.iter().map(open).collect::<Result<_>>()?))
    }

    /// Looks for new files. Reads them: call it off the worker threads.
    pub(super) fn follow(&self) {
        for list in &self.0 {
            list.scores.look(|file| read(file, list.config.score));
        }
    }

    /// The worst that any valid list says, 0 where none names the address; `None` without a valid list: what was said
    /// long ago is no longer known.
    pub(super) fn score(&self, address: IpAddr, now: UnixSeconds) -> Option<u8> {
        let score_by = |list: &List| {
            let scores = list.scores.current();
            let is_valid = now < scores.written_at.saturating_add(list.config.valid_for.as_secs());
            is_valid.then(|| scores.of(address))
        };
        self.0.iter().filter_map(score_by).max()
    }
}

impl Scores {
    fn of(&self, address: IpAddr) -> u8 {
        let named = self.by_score.iter().rev().find(|(_, networks)| networks.contains(address));
        named.map_or(0, |(score, _)| *score)
    }
}

/// A network or an address a line, and behind it a score of its own if it has one.
fn read(file: &Path, default_score: u8) -> Result<Scores> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let modified = std::fs::metadata(file)?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let written_at = modified.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let mut networks = BTreeMap::<u8, Vec<Network>>::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = || format!("{}:{number}", file.display());
        if number > MOST_LINES {
            bail!("{}: at most {MOST_LINES} lines are read", place());
        }
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(network) = words.next() else { continue };
        let network = Network::parse_or_host(network).with_context(place)?;
        let score = match words.next() {
            None => default_score,
            Some(text) => score_of(text).with_context(place)?,
        };
        if let Some(more) = words.next() {
            bail!("{}: `{more}` is one word too many; write a network and a score", place());
        }
        networks.entry(score).or_default().push(network);
    }
    let by_score = networks.into_iter().map(|(score, networks)| (score, networks.into_iter().collect())).collect();
    Ok(Scores { by_score, written_at })
}

/// 0 to 100.
fn score_of(text: &str) -> Result<u8> {
    let score = text.parse().ok().filter(|score| *score <= 100);
    score.with_context(|| format!("`{text}` is no score from 0 to 100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(folder: &Path, name: &str, text: &str, valid_for_seconds: u64) -> ReputationListConfig {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        ReputationListConfig { file, score: 80, valid_for: Duration::from_secs(valid_for_seconds) }
    }

    #[test]
    fn the_worst_that_a_valid_list_says_counts() {
        let folder = tempfile::tempdir().unwrap();
        let text = "# bad\n192.0.2.0/24\n192.0.2.7 95 ; worse\n2001:db8::/32 20\n\n198.51.100.1\n";
        let lists = [
            list(folder.path(), "day", text, 86_400),
            list(folder.path(), "hour", "198.51.100.1 100\n203.0.113.0/24\n", 3_600),
        ];
        let reputation = Reputation::open(&lists, &Reputation::default()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let rows = [
            ("192.0.2.1", 60, Some(80)),
            ("192.0.2.7", 60, Some(95)),
            ("2001:db8::1", 60, Some(20)),
            ("10.0.0.1", 60, Some(0)),
            ("198.51.100.1", 60, Some(100)),
            ("198.51.100.1", 7_200, Some(80)),
            ("203.0.113.1", 7_200, Some(0)),
            ("192.0.2.1", 90_000, None),
        ];
        for (address, later, expected) in rows {
            assert_eq!(reputation.score(address.parse().unwrap(), now + later), expected, "{address} after {later} s");
        }
        assert_eq!(Reputation::default().score([192, 0, 2, 1].into(), now), None);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [
            ("192.0.2.0/24\nexample.com\n", ":2: not an IPv4 or IPv6 address before the `/`"),
            ("192.0.2.1/24\n", ":1: bits beyond the prefix are set; the block starts at 192.0.2.0"),
            ("192.0.2.0/24 101\n", ":1: `101` is no score from 0 to 100"),
            ("192.0.2.0/24 80 x\n", ":1: `x` is one word too many; write a network and a score"),
        ];
        for (text, expected) in rows {
            let error =
                Reputation::open(&[list(folder.path(), "bad", text, 60)], &Reputation::default()).err().expect(text);
            assert!(format!("{error:#}").ends_with(expected), "{error:#}");
        }
    }
}
