//! What the backends of one pool have in common, across configurations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::budget::Budget;
use super::queue::Queue;
use crate::config::{Balance, EjectionConfig, PoolConfig};

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Where the next pick in turn begins; wraps around. Workers share it: turns are turns of the whole edge.
    cursor: AtomicUsize,
    /// On a line that all workers keep: what follows is seldom written.
    _apart: Apart,
    measures_latency: AtomicBool,
    /// What requests go by is older than the last change of a backend.
    is_stale: AtomicBool,
    most_requests: AtomicU32,
    most_connections: AtomicU32,
    most_failures_in_a_row: AtomicU32,
    ejected: AtomicU32,
    most_ejected: AtomicU32,
    queue: Queue,
    budget: Budget,
    ejection: ArcSwap<Option<EjectionConfig>>,
}

/// Two cache lines, since processors fetch them in pairs.
#[derive(Debug)]
pub(super) struct Apart(#[expect(dead_code, reason = "it is there to take room")] [u8; 128]);

impl Default for Apart {
    fn default() -> Apart {
        Apart([0; 128])
    }
}

impl Shared {
    /// What the configuration says now.
    pub(super) fn configure(&self, config: &PoolConfig) {
        let in_a_row = config.ejection.as_ref().map_or(0, |ejection| ejection.consecutive_failures);
        self.measures_latency.store(config.balance == Balance::Latency, Ordering::Relaxed);
        let most_requests = config.limits.most_requests(config.protocol).unwrap_or(u32::MAX);
        self.most_requests.store(most_requests, Ordering::Relaxed);
        self.most_connections.store(config.limits.connections_per_backend.unwrap_or(u32::MAX), Ordering::Relaxed);
        // 0 is any number.
        self.most_failures_in_a_row.store(in_a_row.checked_sub(1).map_or(u32::MAX, |less| less + 1), Ordering::Relaxed);
        self.ejection.store(Arc::new(config.ejection.clone()));
    }

    pub(super) fn measures_latency(&self) -> bool {
        self.measures_latency.load(Ordering::Relaxed)
    }

    /// That may be under way to one backend.
    pub(super) fn most_requests(&self) -> u32 {
        self.most_requests.load(Ordering::Relaxed)
    }

    /// That may be open to one backend.
    pub(super) fn most_connections(&self) -> u32 {
        self.most_connections.load(Ordering::Relaxed)
    }

    pub(super) fn most_failures_in_a_row(&self) -> u32 {
        self.most_failures_in_a_row.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn ejection(&self) -> Guard<Arc<Option<EjectionConfig>>> {
        self.ejection.load()
    }

    /// Whether one more backend may be left alone, which then counts.
    pub(super) fn take_ejection(&self) -> bool {
        let most = self.most_ejected.load(Ordering::Relaxed);
        let one_more = |ejected: u32| (ejected < most).then_some(ejected + 1);
        self.ejected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// How many of the backends that are `at_work` are left alone, counted anew.
    pub(super) fn count_ejected(&self, ejected: usize, at_work: usize) {
        let percent = self.ejection().as_ref().as_ref().map_or(0, |config| usize::from(config.most_ejected_percent));
        self.ejected.store(ejected as u32, Ordering::Relaxed);
        self.most_ejected.store((at_work * percent / 100) as u32, Ordering::Relaxed);
    }

    pub(super) fn next_turn(&self) -> usize {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }

    /// A backend became available, or ceased to be.
    pub(super) fn changed(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    pub(super) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// Whether anything changed since the last call.
    pub(super) fn take_stale(&self) -> bool {
        self.is_stale.swap(false, Ordering::AcqRel)
    }
}
