//! Active health checks: one task a backend asks for a page; rise and fall decide; whoever needs it is told of changes.

mod machine;
mod probe;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    /// No reply of a backend may do harm.
    pub fn read_grpc_reply(body: &[u8]) {
        let _ = super::probe::read_reply(body);
    }
}

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::config::HealthConfig;
use crate::pool::{Backend, Dial, Pools};
use machine::Machine;
use probe::Prober;

/// Pools are tended this often: what changes with time alone need not be more exact.
const TEND_EVERY: Duration = Duration::from_millis(100);

/// A backend came back or went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    pub pool: Arc<str>,
    pub backend: SocketAddr,
    pub healthy: bool,
}

/// The thread that runs all health checks. They must go on when every worker is busy, or load alone would take
/// backends out. Dropping it ends the checks.
pub struct HealthChecks {
    /// `None` only while being dropped: closing the channel is what ends the thread.
    targets: Option<UnboundedSender<Pools>>,
    thread: Option<JoinHandle<()>>,
}

/// One backend to check, and how.
#[derive(Clone)]
struct Target {
    pool: Arc<str>,
    backend: Arc<Backend>,
    config: HealthConfig,
    dial: Arc<Dial>,
}

/// What all checks share.
struct Checks {
    /// Those in force.
    pools: Mutex<Pools>,
    on_change: Box<dyn Fn(HealthChange) + Send + Sync>,
}

impl HealthChecks {
    /// Starts the thread. `on_change` is called on it, and must not block.
    pub fn start(on_change: impl Fn(HealthChange) + Send + Sync + 'static) -> io::Result<HealthChecks> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (targets, receiver) = unbounded_channel();
        let checks = Arc::new(Checks { pools: Mutex::default(), on_change: Box::new(on_change) });
        let thread = std::thread::Builder::new()
            .name("health".into())
            .spawn(move || runtime.block_on(follow(receiver, checks)))?;
        Ok(HealthChecks { targets: Some(targets), thread: Some(thread) })
    }

    /// Checks the backends of `pools` from now on, and no others. Checks that stay the same go on undisturbed.
    pub fn watch(&self, pools: &Pools) {
        if let Some(sender) = &self.targets {
            // Fails only when the thread is gone, which only a panic in `on_change` can bring about.
            let _ = sender.send(pools.clone());
        }
    }
}

impl Drop for HealthChecks {
    fn drop(&mut self) {
        self.targets = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps one running check for each backend of the current pools, and tends these.
async fn follow(mut receiver: UnboundedReceiver<Pools>, checks: Arc<Checks>) {
    let mut running = HashMap::new();
    let mut tending = tokio::time::interval(TEND_EVERY);
    tending.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            next = receiver.recv() => {
                let Some(next) = next else { return };
                *checks.pools.lock().unwrap_or_else(PoisonError::into_inner) = next.clone();
                running = check_those_of(&next, running, &checks);
            }
            _ = tending.tick() => checks.pools().iter().for_each(|pool| pool.tend()),
        }
    }
}

/// Checks under way, by their backend.
type Running = HashMap<*const Backend, (Target, AbortHandle)>;

fn check_those_of(pools: &Pools, mut running: Running, checks: &Arc<Checks>) -> Running {
    let targets = pools.iter().flat_map(|pool| {
        let target = |backend: &Arc<Backend>| Target {
            pool: pool.name.clone(),
            backend: backend.clone(),
            config: pool.health.clone(),
            dial: pool.dial.clone(),
        };
        pool.backends().iter().map(target)
    });
    let mut next = Running::with_capacity(running.len());
    for target in targets {
        let key = Arc::as_ptr(&target.backend);
        let check = match running.remove(&key) {
            Some((old, handle)) if old.asks_as(&target) => (old, handle),
            other => {
                if let Some((_, handle)) = other {
                    handle.abort();
                }
                let task = tokio::spawn(check_forever(target.clone(), checks.clone()));
                (target, task.abort_handle())
            }
        };
        next.insert(key, check);
    }
    for (_, handle) in running.into_values() {
        handle.abort();
    }
    next
}

impl Target {
    /// Whether the one check asks the same way as the other.
    fn asks_as(&self, other: &Target) -> bool {
        self.config == other.config && self.dial.id() == other.dial.id()
    }
}

async fn check_forever(target: Target, checks: Arc<Checks>) {
    let config = &target.config;
    let prober = Prober::new(config, &target.dial, target.backend.address);
    let mut machine = Machine::new(target.backend.is_healthy(), config.rise, config.fall);
    loop {
        let outcome = prober.probe(config.timeout).await;
        let error = outcome.err();
        if let Some(healthy) = machine.observe(error.is_none()) {
            checks.publish(&target, healthy, error);
        } else if error.is_some() {
            target.backend.set_healthy(machine.is_healthy(), error);
        }
        let interval = if machine.is_healthy() { config.interval } else { config.interval_down };
        tokio::time::sleep(probe::jittered(interval, config.jitter_percent)).await;
    }
}

impl Checks {
    fn pools(&self) -> Pools {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, target: &Target, healthy: bool, error: Option<String>) {
        let (pool, address) = (&*target.pool, target.backend.address);
        match &error {
            None => tracing::info!(pool, %address, "backend is healthy again"),
            Some(error) => tracing::warn!(pool, %address, error, "backend is unhealthy and takes no new requests"),
        }
        target.backend.set_healthy(healthy, error);
        if let Some(pool) = self.pools().get(pool) {
            pool.refresh();
        }
        (self.on_change)(HealthChange { pool: target.pool.clone(), backend: address, healthy });
    }
}
