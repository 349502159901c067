//! How far a loading is, for the log and whoever asks meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shorter loadings are told of only when they are over.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Looking at the clock for every prefix would take longer than reading it.
const LOOK_EVERY: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Reading,
    Compiling,
}

impl Stage {
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Reading => "reading",
            Stage::Compiling => "compiling",
        }
    }
}

/// A loading that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Loading {
    pub stage: Stage,
    pub prefixes: usize,
    pub began: Instant,
    told: Instant,
}

/// `None` inside while nothing is being loaded.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<Loading>>);

impl Progress {
    pub(super) fn now(&self) -> Option<Loading> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) {
        let now = Instant::now();
        self.set(Some(Loading { stage: Stage::Reading, prefixes: 0, began: now, told: now }));
    }

    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, loading: Option<Loading>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = loading;
    }

    /// So many have been read in all.
    pub(super) fn read(&self, prefixes: usize) {
        if prefixes.is_multiple_of(LOOK_EVERY) {
            self.update(|loading| loading.prefixes = prefixes);
        }
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.update(|loading| loading.stage = stage);
    }

    fn update(&self, change: impl FnOnce(&mut Loading)) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(loading) = place.as_mut() else { return };
        change(loading);
        if loading.told.elapsed() >= TELL_EVERY {
            loading.told = Instant::now();
            let seconds = loading.began.elapsed().as_secs();
            tracing::info!(
                prefixes = loading.prefixes,
                seconds,
                stage = loading.stage.name(),
                "lists are being loaded"
            );
        }
    }
}
