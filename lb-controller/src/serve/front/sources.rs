//! How many connections each source holds.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lb_common::Source;

/// So that workers seldom wait for each other.
const SHARDS: usize = 16;

/// Of all workers. It has an entry for each source that holds a connection, and no others: connections bound it.
#[derive(Debug, Default)]
pub(super) struct Sources {
    shards: [Mutex<HashMap<Source, u32>>; SHARDS],
    /// Which shard is whose; an attacker does not know.
    hasher: RandomState,
}

/// One connection of a source, counted until dropped.
#[derive(Debug)]
pub(in crate::serve) struct Place {
    sources: Arc<Sources>,
    source: Source,
}

impl Sources {
    /// `None`: there are `most` already.
    pub(super) fn enter(self: &Arc<Self>, source: Source, most: u32) -> Option<Place> {
        let mut shard = self.shard(&source);
        let held = shard.get(&source).copied().unwrap_or(0);
        if held >= most {
            return None;
        }
        shard.insert(source, held + 1);
        Some(Place { sources: self.clone(), source })
    }

    fn shard(&self, source: &Source) -> MutexGuard<'_, HashMap<Source, u32>> {
        let index = self.hasher.hash_one(source) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.sources.shard(&self.source);
        if let Entry::Occupied(mut held) = shard.entry(self.source) {
            match held.get() {
                0 | 1 => {
                    held.remove();
                }
                _ => *held.get_mut() -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_places_and_nothing_is_left_of_one_that_has_gone() {
        let sources: Arc<Sources> = Arc::default();
        let source = |text: &str| Source::of(text.parse().unwrap());
        let first = [sources.enter(source("192.0.2.1"), 2), sources.enter(source("192.0.2.1"), 2)];
        assert!(first.iter().all(Option::is_some) && sources.enter(source("192.0.2.1"), 2).is_none());
        assert!(sources.enter(source("192.0.2.1"), 3).is_some(), "given back at once");
        assert!(sources.enter(source("192.0.2.2"), 1).is_some());
        let same_network = sources.enter(source("2001:db8::1"), 1);
        assert!(same_network.is_some() && sources.enter(source("2001:db8::2"), 1).is_none());
        assert!(sources.enter(source("2001:db8:0:1::1"), 1).is_some());
        drop((first, same_network));
        assert!(sources.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn of_threads_that_race_for_places_no_more_have_one_than_there_are() {
        let sources: Arc<Sources> = Arc::default();
        let source = Source::of("192.0.2.1".parse().unwrap());
        let take = || -> Vec<Place> { (0..100).filter_map(|_| sources.enter(source, 150)).collect() };
        let taken: Vec<Place> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), 150);
    }
}
