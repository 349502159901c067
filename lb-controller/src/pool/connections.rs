//! Connections that are open to one backend, of all workers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::backend::Backend;

/// The counts of one backend.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: AtomicU32,
    opened: AtomicU64,
    /// Requests that find the limit reached while others keep idle connections.
    wanted: AtomicU32,
}

/// One connection's place within the limit; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPlace(Arc<Backend>);

impl Connections {
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

impl ConnectionPlace {
    /// `None`: as many are open as may be.
    pub fn take(backend: &Arc<Backend>) -> Option<ConnectionPlace> {
        let connections = backend.connections();
        // Counted first and looked at then: of workers that race for the last place, no two have it.
        let before = connections.open.fetch_add(1, Ordering::Relaxed);
        let place = ConnectionPlace(backend.clone());
        (before < backend.most_connections()).then_some(place)
    }

    /// The connection is there.
    pub fn opened(&self) {
        self.0.connections().opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a request waits for an idle connection to be given up: this one then is.
    pub fn is_wanted(&self) -> bool {
        let wanted = &self.0.connections().wanted;
        // Only looked at as a rule.
        wanted.load(Ordering::Relaxed) > 0
            && wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |wanted| wanted.checked_sub(1)).is_ok()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.connections().open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backend {
    /// Whether one more may be opened.
    pub fn has_connections_left(&self) -> bool {
        self.connections().open() < self.most_connections()
    }

    /// Asks that an idle connection to it be given up, by whichever worker has one.
    pub fn want_connection(&self) {
        // One for each that waits would take away more than are needed: they ask again.
        self.connections().wanted.store(1, Ordering::Relaxed);
    }
}
