//! The one place that reads the clock, so that tests can hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use lb_policy::UnixSeconds;

/// Wall-clock time, or a time that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(None)
    }

    /// A clock that stands at `now` until it is [set](Clock::set).
    pub fn fixed(now: UnixSeconds) -> Clock {
        Clock(Some(Arc::new(AtomicU64::new(now))))
    }

    /// Moves a fixed clock; the system's clock is not ours to move.
    pub fn set(&self, now: UnixSeconds) {
        if let Some(fixed) = &self.0 {
            fixed.store(now, Ordering::Relaxed);
        }
    }

    pub fn now(&self) -> UnixSeconds {
        match &self.0 {
            Some(fixed) => fixed.load(Ordering::Relaxed),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
        }
    }
}
