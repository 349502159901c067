//! What each worker counts for itself, to be added up by who asks.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More than the workers of any machine we know; two workers that share a place merely wait for each other sometimes.
const PLACES: usize = 64;

/// One `T` a worker, each behind a lock that only who adds them up contends for.
#[derive(Debug)]
pub(crate) struct PerWorker<T>([Place<T>; PLACES]);

/// On cache lines of its own: CPUs fetch them in pairs, and a line that two workers write to would travel between them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place<T>(Mutex<T>);

impl<T: Default> Default for PerWorker<T> {
    fn default() -> PerWorker<T> {
        PerWorker(std::array::from_fn(|_| Place::default()))
    }
}

impl<T> PerWorker<T> {
    /// This thread's.
    pub(crate) fn mine(&self) -> MutexGuard<'_, T> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static PLACE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % PLACES));
        self.0[PLACE.get()].lock()
    }

    /// One after the other.
    pub(crate) fn all(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(Place::lock)
    }
}

impl<T> Place<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
