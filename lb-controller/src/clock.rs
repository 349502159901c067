//! The one place that reads the clock, so that tests can hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_policy::UnixSeconds;
use nix::time::{ClockId, clock_gettime};

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
            None => coarse_time().as_secs(),
        }
    }
}

/// Since the epoch, at the kernel's last tick: some milliseconds ago at most. It is asked several times for each request, and
/// costs a tenth of the exact time.
pub(crate) fn coarse_time() -> Duration {
    let exact = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or_else(|_| exact(), Duration::from)
}

/// Of a clock that nobody sets, at the kernel's last tick.
pub(crate) fn coarse_monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or_else(|_| Duration::ZERO, Duration::from)
}
