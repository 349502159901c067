//! Deny and allow lists: read from the configuration and its files, put in force as a whole or refused as a whole, and
//! read again when a file changes. XDP looks addresses up; here is where they come from.

mod catalogue;
mod follow;
mod load;
mod progress;
mod read;
mod stamp;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use lb_datapath::CompiledLists;

use crate::config::ListsConfig;
use progress::Progress;
use stamp::Stamps;

pub use catalogue::{Catalogue, Decision, Source};
pub use follow::{FollowError, Follower};
pub use load::{Loaded, Refusal};
pub use progress::Loading;
pub use read::{Mistake, read as read_text};

/// What takes compiled lists to the maps.
type Sink = Box<dyn Fn(CompiledLists) + Send + Sync>;

/// The lists of one edge. Reading and compiling happen on the thread that asks for it.
pub struct Lists {
    sink: Sink,
    /// Held while lists are loaded, so that two changes do not overtake each other.
    state: Mutex<State>,
    progress: Progress,
    in_force: ArcSwapOption<Catalogue>,
    /// Why the newest files were refused; `None` if they are in force.
    refusal: ArcSwapOption<Refusal>,
}

#[derive(Default)]
struct State {
    config: ListsConfig,
    /// The files as they were when they were last looked at, accepted or refused.
    stamps: Stamps,
}

/// Lists that were read for a configuration, not yet in force.
pub struct Prepared {
    config: ListsConfig,
    stamps: Stamps,
    loaded: Loaded,
}

impl Prepared {
    /// What the maps should hold.
    pub fn compiled(&self) -> &CompiledLists {
        &self.loaded.compiled
    }

    pub fn prefixes(&self) -> usize {
        self.loaded.catalogue.prefixes()
    }
}

/// Reads the lists that `config` names, without putting them in force.
pub fn check(config: &ListsConfig) -> Result<Prepared, Refusal> {
    prepare(config, &Progress::default())
}

fn prepare(config: &ListsConfig, progress: &Progress) -> Result<Prepared, Refusal> {
    // Taken before reading: a file that changes meanwhile is read again.
    let stamps = Stamps::of(config.files());
    progress.begin();
    let loaded = load::load(config, progress);
    progress.end();
    Ok(Prepared { config: config.clone(), stamps, loaded: loaded? })
}

impl Lists {
    /// `first` is in the maps already; later lists go to `sink`.
    pub fn new(first: Prepared, sink: impl Fn(CompiledLists) + Send + Sync + 'static) -> Lists {
        let Prepared { config, stamps, loaded } = first;
        Lists {
            sink: Box::new(sink),
            state: Mutex::new(State { config, stamps }),
            progress: Progress::default(),
            in_force: ArcSwapOption::from_pointee(loaded.catalogue),
            refusal: ArcSwapOption::empty(),
        }
    }

    /// Reads what a new configuration names, unless nothing about it has changed. Puts nothing in force yet.
    pub fn prepare(&self, config: &ListsConfig) -> Result<Option<Prepared>, Refusal> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.config == *config && state.stamps == Stamps::of(config.files()) {
            return Ok(None);
        }
        prepare(config, &self.progress).map(Some)
    }

    /// Puts lists in force.
    pub fn put(&self, prepared: Prepared) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_in(&mut state, prepared);
    }

    fn put_in(&self, state: &mut State, prepared: Prepared) {
        let Prepared { config, stamps, loaded } = prepared;
        *state = State { config, stamps };
        let catalogue = loaded.catalogue;
        tracing::info!(
            prefixes = catalogue.prefixes(),
            took_ms = catalogue.took().as_millis() as u64,
            "lists were loaded"
        );
        self.in_force.store(Some(Arc::new(catalogue)));
        self.refusal.store(None);
        (self.sink)(loaded.compiled);
    }

    /// Reads the files again if one of them is another than before. What is refused leaves the old lists in force.
    fn look_at_files(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = Stamps::of(state.config.files());
        if stamps == state.stamps {
            return;
        }
        match prepare(&state.config, &self.progress) {
            Ok(prepared) => self.put_in(&mut state, prepared),
            Err(refusal) => {
                tracing::error!("new lists refused, the old ones go on:\n{refusal}");
                state.stamps = stamps;
                self.refusal.store(Some(Arc::new(refusal)));
            }
        }
    }

    pub fn in_force(&self) -> Option<Arc<Catalogue>> {
        self.in_force.load_full()
    }

    /// The loading that is under way.
    pub fn loading(&self) -> Option<Loading> {
        self.progress.now()
    }

    /// Why the files as they are now are not in force.
    pub fn refusal(&self) -> Option<Arc<Refusal>> {
        self.refusal.load_full()
    }

    fn config(&self) -> ListsConfig {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).config.clone()
    }
}

#[cfg(test)]
mod tests;
