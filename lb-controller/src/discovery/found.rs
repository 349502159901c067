//! What was found for one pool, and how it changes. Pure but for the clock that it is given.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{BackendConfig, DiscoverConfig};
use crate::report::DiscoveredPool;

/// The answer to one question.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) again_after: Duration,
    pub(super) outcome: Outcome,
    /// Addresses that may be no backends, and why; each once.
    pub(super) refused: Vec<(SocketAddr, String)>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// These and no others. Never none.
    Backends(Vec<BackendConfig>),
    /// Nobody knows: what is known stands. For people to read.
    Failed(String),
    /// Nothing was asked, since nothing can have changed.
    Unchanged,
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) wanted: DiscoverConfig,
    entries: Vec<Entry>,
    succeeded: Option<Instant>,
    pub(super) failures: u64,
    error: Option<String>,
    refused: Vec<(SocketAddr, String)>,
    left_out: usize,
}

#[derive(Debug)]
struct Entry {
    backend: BackendConfig,
    /// It was not among what was found last.
    gone: Option<Instant>,
}

impl Asked {
    /// To be asked again at once.
    pub(super) fn failed(error: &str) -> Asked {
        let (at, again_after) = (Instant::now(), Duration::ZERO);
        Asked { at, again_after, outcome: Outcome::Failed(error.to_owned()), refused: Vec::new() }
    }
}

impl Found {
    pub(super) fn new(wanted: DiscoverConfig) -> Found {
        let (entries, refused) = Default::default();
        Found { wanted, entries, succeeded: None, failures: 0, error: None, refused, left_out: 0 }
    }

    /// In order of address. Those that have gone drain for a while.
    pub(super) fn backends(&self) -> impl Iterator<Item = BackendConfig> {
        self.entries
            .iter()
            .map(|entry| BackendConfig { drain: entry.backend.drain || entry.gone.is_some(), ..entry.backend.clone() })
    }

    pub(super) fn count(&self) -> (usize, usize) {
        let gone = self.entries.iter().filter(|entry| entry.gone.is_some()).count();
        (self.entries.len() - gone, gone)
    }

    pub(super) fn knows_nothing(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes what an earlier run had found, for as long as nothing is found.
    pub(super) fn remember(&mut self, pool: &str, at: Instant, mut backends: Vec<BackendConfig>) {
        if !backends.is_empty() {
            tracing::warn!(pool, from = %self.wanted.from, count = backends.len(), "going on with what was found before the start");
            backends.truncate(self.wanted.most);
            self.put(pool, at, backends);
        }
    }

    /// When to ask again, and whether pools are to be put together anew.
    pub(super) fn take(&mut self, pool: &str, asked: Asked) -> (Duration, bool) {
        let Asked { at, mut again_after, outcome, refused } = asked;
        if matches!(outcome, Outcome::Unchanged) && self.entries.iter().all(|entry| entry.gone.is_none()) {
            return (again_after, false);
        }
        let before: Vec<BackendConfig> = self.backends().collect();
        match outcome {
            Outcome::Backends(backends) => self.replace(pool, at, backends, refused),
            Outcome::Failed(error) => {
                self.failures += 1;
                // Told when it begins, not at every question.
                if self.error.as_ref() != Some(&error) {
                    let kept = self.entries.len();
                    tracing::warn!(pool, from = %self.wanted.from, error, kept, "no backends were found; the known ones stay");
                }
                self.error = Some(error);
            }
            Outcome::Unchanged => {}
        }
        let drain_for = self.wanted.drain_for;
        self.entries.retain(|entry| entry.gone.is_none_or(|gone| at.duration_since(gone) < drain_for));
        let ends = self.entries.iter().filter_map(|entry| Some(drain_for.saturating_sub(at - entry.gone?)));
        if let Some(soonest) = ends.min() {
            again_after = again_after.min(soonest.max(Duration::from_millis(100)));
        }
        (again_after, !before.iter().eq(self.backends().collect::<Vec<_>>().iter()))
    }

    fn replace(
        &mut self,
        pool: &str,
        at: Instant,
        mut backends: Vec<BackendConfig>,
        refused: Vec<(SocketAddr, String)>,
    ) {
        for (address, why) in refused.iter().filter(|refused| !self.refused.contains(refused)) {
            tracing::warn!(pool, %address, why, "this address was found, and is not taken");
        }
        self.refused = refused;
        // In one order, so that of too many the same are taken each time.
        backends.sort_by_key(|backend| backend.address);
        backends.dedup_by_key(|backend| backend.address);
        let left_out = backends.len().saturating_sub(self.wanted.most);
        if left_out > self.left_out {
            tracing::warn!(pool, left_out, most = self.wanted.most, "more backends were found than are taken");
        }
        self.left_out = left_out;
        backends.truncate(self.wanted.most);
        if self.error.take().is_some() {
            tracing::info!(pool, from = %self.wanted.from, "backends are found again");
        }
        self.succeeded = Some(at);
        self.put(pool, at, backends);
    }

    fn put(&mut self, pool: &str, at: Instant, backends: Vec<BackendConfig>) {
        let there: HashSet<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
        for entry in &mut self.entries {
            if !there.contains(&entry.backend.address) && entry.gone.is_none() {
                tracing::info!(pool, address = %entry.backend.address, "backend is found no more, and drains");
                entry.gone = Some(at);
            }
        }
        let known: HashMap<SocketAddr, usize> =
            self.entries.iter().zip(0..).map(|(entry, index)| (entry.backend.address, index)).collect();
        for backend in backends {
            match known.get(&backend.address) {
                Some(index) => self.entries[*index] = Entry { backend, gone: None },
                None => {
                    tracing::info!(pool, address = %backend.address, "backend found");
                    self.entries.push(Entry { backend, gone: None });
                }
            }
        }
        self.entries.sort_by_key(|entry| entry.backend.address);
        // Those that drain are beyond what is taken, but not without bound: names may change with every answer.
        let bound = 2 * self.wanted.most;
        while self.entries.len() > bound {
            let oldest = (0..self.entries.len()).filter(|index| self.entries[*index].gone.is_some());
            let Some(oldest) = oldest.min_by_key(|index| self.entries[*index].gone) else { return };
            self.entries.remove(oldest);
        }
    }

    pub(super) fn report(&self, pool: &str) -> DiscoveredPool {
        let (backends, draining) = self.count();
        DiscoveredPool {
            pool: pool.to_owned(),
            from: self.wanted.from.to_string(),
            backends,
            draining,
            left_out: self.left_out,
            refused: self.refused.iter().map(|(address, why)| format!("{address}: {why}")).collect(),
            found_seconds_ago: self.succeeded.map(|at| at.elapsed().as_secs()),
            failures: self.failures,
            error: self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiscoverFrom;

    fn found(most: usize) -> Found {
        let (from, drain_for) = (DiscoverFrom::File("/nowhere".into()), Duration::from_secs(60));
        Found::new(DiscoverConfig { from, most, drain_for, zone: None })
    }

    fn backend(number: u8) -> BackendConfig {
        SocketAddr::from(([10, 0, 0, number], 80)).into()
    }

    fn asked(at: Instant, outcome: Outcome) -> Asked {
        Asked { at, again_after: Duration::from_secs(300), outcome, refused: vec![] }
    }

    fn of(found: &Found) -> Vec<(u8, bool)> {
        let number = |address: SocketAddr| match address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        found.backends().map(|backend| (number(backend.address), backend.drain)).collect()
    }

    #[test]
    fn what_is_found_no_more_drains_for_its_time_and_what_comes_back_is_at_work_again() {
        let (mut found, begin) = (found(10), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut take = |at, numbers: &[u8]| {
            let backends = numbers.iter().map(|number| backend(*number)).collect();
            let (again_after, changed) = found.take("shop", asked(at, Outcome::Backends(backends)));
            (of(&found), changed, again_after)
        };
        let rest = Duration::from_secs(300);
        assert_eq!(take(after(0), &[2, 1]), (vec![(1, false), (2, false)], true, rest));
        assert_eq!(take(after(10), &[1, 2]), (vec![(1, false), (2, false)], false, rest));
        let minute = Duration::from_secs(60);
        assert_eq!(take(after(20), &[2, 3]), (vec![(1, true), (2, false), (3, false)], true, minute));
        assert_eq!(take(after(30), &[1, 2]), (vec![(1, false), (2, false), (3, true)], true, minute));
        assert_eq!(take(after(90), &[1, 2]), (vec![(1, false), (2, false)], true, rest));
    }

    #[test]
    fn no_failure_takes_a_backend_out_however_long_it_lasts() {
        let (mut found, begin) = (found(10), Instant::now());
        found.take("shop", asked(begin, Outcome::Backends(vec![backend(1)])));
        for day in 1..10 {
            let at = begin + Duration::from_secs(86_400 * day);
            let (_, changed) = found.take("shop", asked(at, Outcome::Failed("SERVFAIL".to_owned())));
            assert!(!changed && found.error.is_some());
        }
        assert_eq!(of(&found), [(1, false)]);
        found.take("shop", asked(begin + Duration::from_secs(864_000), Outcome::Backends(vec![backend(1)])));
        assert!(found.error.is_none());
    }

    #[test]
    fn of_too_many_the_same_are_taken_each_time_and_those_that_drain_are_bounded_too() {
        let (mut found, begin) = (found(2), Instant::now());
        for turn in 0..50_u8 {
            let backends = vec![backend(200 - turn), backend(turn), backend(100), backend(250)];
            found.take("shop", asked(begin + Duration::from_millis(turn.into()), Outcome::Backends(backends)));
            assert!(found.count().0 <= 2 && found.entries.len() <= 4, "{:?}", of(&found));
        }
        assert_eq!(found.report("shop").left_out, 2);
    }
}
