//! What all workers share: the current snapshot, the step-up engine, metrics.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::{ArcSwap, Guard};

use crate::clock::Clock;
use crate::config::Config;
use crate::explain::Recent;
use crate::identity::{ApiKeys, Identities};
use crate::joint::Joint;
use crate::metrics::Metrics;
use crate::pool::Pools;
use crate::serve::body_memory::BodyMemory;
use crate::serve::tls::ClientAuthorities;
use crate::signals::{Signals, Sources};
use crate::stepup::StepUp;

/// One edge host's state. Each request takes one snapshot and keeps it to its end.
pub struct Edge {
    snapshot: ArcSwap<Snapshot>,
    pub step_up: StepUp,
    pub signals: Signals,
    pub joint: Joint,
    pub(crate) api_keys: Arc<ApiKeys>,
    pub client_authorities: Arc<ClientAuthorities>,
    pub metrics: Metrics,
    pub body_memory: Arc<BodyMemory>,
    /// Why requests were refused lately.
    pub recent: Recent,
    pub clock: Clock,
}

/// Configuration, rules, sources of facts and backends, swapped as a whole.
pub struct Snapshot {
    /// Counts up with every configuration that took effect.
    pub version: u64,
    pub config: Arc<Config>,
    pub pools: Pools,
    /// Who vouches for users.
    pub identities: Arc<Identities>,
    /// Where facts come from.
    pub sources: Sources,
}

impl Edge {
    /// Errors: the API keys cannot be read from the store.
    pub fn new(
        first: Snapshot,
        step_up: StepUp,
        signals: Signals,
        joint: Joint,
        metrics: Metrics,
        clock: Clock,
    ) -> anyhow::Result<Edge> {
        let snapshot = ArcSwap::from_pointee(first);
        let api_keys = ApiKeys::open(step_up.store().clone()).context("cannot read the API keys")?;
        let (body_memory, recent) = (Arc::default(), Recent::default());
        Ok(Edge {
            snapshot,
            step_up,
            signals,
            joint,
            api_keys: Arc::new(api_keys),
            client_authorities: Arc::default(),
            metrics,
            body_memory,
            recent,
            clock,
        })
    }

    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Makes `next` the snapshot of every request that begins from now on.
    pub fn replace_snapshot(&self, next: Snapshot) {
        self.snapshot.store(Arc::new(next));
    }
}
