//! What all workers share: the current snapshot, the step-up engine, metrics.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use arc_swap::{ArcSwap, Guard};

use crate::clock::Clock;
use crate::config::Config;
use crate::explain::Recent;
use crate::identity::{ApiKeys, Identities};
use crate::joint::Joint;
use crate::metrics::Metrics;
use crate::pool::Pools;
use crate::serve::access_log::Recorder;
use crate::serve::body_memory::BodyMemory;
use crate::serve::tls::ClientAuthorities;
use crate::signals::{Signals, Sources};
use crate::stepup::StepUp;
use crate::tail::Tail;

/// One edge host's state. Each request takes one snapshot and keeps it to its end.
pub struct Edge {
    snapshot: ArcSwap<Snapshot>,
    pub step_up: StepUp,
    pub signals: Signals,
    pub joint: Joint,
    pub(crate) api_keys: Arc<ApiKeys>,
    pub client_authorities: Arc<ClientAuthorities>,
    pub metrics: Metrics,
    pub(crate) recorder: Recorder,
    pub body_memory: Arc<BodyMemory>,
    /// Why requests were refused lately.
    pub recent: Recent,
    pub clock: Clock,
    /// Another process has taken over, and this one only ends what it has under way.
    is_leaving: AtomicBool,
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
        recorder: Recorder,
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
            metrics: recorder.metrics.clone(),
            recorder,
            body_memory,
            recent,
            clock,
            is_leaving: AtomicBool::new(false),
        })
    }

    /// Tells whoever looks of requests.
    pub(crate) fn tail(&self) -> &Tail {
        &self.recorder.tail
    }

    /// From now on the process that took over says what is not simply let through.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Makes `next` the snapshot of every request that begins from now on.
    pub fn replace_snapshot(&self, next: Snapshot) {
        self.snapshot.store(Arc::new(next));
    }
}

/// The edge as one worker sees it. What a request holds to its end is counted here by one thread: counts that all workers
/// write to would travel from CPU to CPU with every request.
pub struct WorkerEdge {
    edge: Arc<Edge>,
    snapshot: RefCell<Rc<Counted>>,
    pub(crate) recorder: Rc<Recorder>,
}

impl WorkerEdge {
    pub fn new(edge: Arc<Edge>) -> WorkerEdge {
        let snapshot = RefCell::new(Rc::new(Counted(Arc::clone(&edge.snapshot()))));
        let recorder = edge.recorder.clone().into();
        WorkerEdge { edge, snapshot, recorder }
    }

    /// The snapshot in force.
    pub(crate) fn current(&self) -> Rc<Counted> {
        let in_force = self.edge.snapshot();
        let mut known = self.snapshot.borrow_mut();
        if !Arc::ptr_eq(&known.0, &in_force) {
            *known = Rc::new(Counted(Arc::clone(&in_force)));
        }
        known.clone()
    }
}

/// A snapshot, as one worker counts its requests in it.
pub(crate) struct Counted(Arc<Snapshot>);

impl Deref for Counted {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl Deref for WorkerEdge {
    type Target = Arc<Edge>;

    fn deref(&self) -> &Arc<Edge> {
        &self.edge
    }
}
