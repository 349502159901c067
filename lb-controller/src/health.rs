//! Active health checks: one task a backend asks for a page; rise and fall decide; whoever needs it is told of changes.

mod machine;
mod probe;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::config::HealthConfig;
use crate::pool::{Backend, Pools};
use machine::Machine;

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
    targets: Option<UnboundedSender<Vec<Target>>>,
    thread: Option<JoinHandle<()>>,
}

/// One backend to check, and how.
#[derive(Clone)]
struct Target {
    pool: Arc<str>,
    backend: Arc<Backend>,
    config: HealthConfig,
}

type OnChange = Arc<dyn Fn(HealthChange) + Send + Sync>;

impl HealthChecks {
    /// Starts the thread. `on_change` is called on it, and must not block.
    pub fn start(on_change: impl Fn(HealthChange) + Send + Sync + 'static) -> io::Result<HealthChecks> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (targets, receiver) = unbounded_channel();
        let on_change: OnChange = Arc::new(on_change);
        let thread = std::thread::Builder::new()
            .name("health".into())
            .spawn(move || runtime.block_on(follow(receiver, on_change)))?;
        Ok(HealthChecks { targets: Some(targets), thread: Some(thread) })
    }

    /// Checks the backends of `pools` from now on, and no others. Checks that stay the same go on undisturbed.
    pub fn watch(&self, pools: &Pools) {
        let targets = pools.iter().flat_map(|pool| {
            pool.backends().iter().map(|backend| Target {
                pool: pool.name.clone(),
                backend: backend.clone(),
                config: pool.health.clone(),
            })
        });
        if let Some(sender) = &self.targets {
            // Fails only when the thread is gone, which only a panic in `on_change` can bring about.
            let _ = sender.send(targets.collect());
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

/// Keeps one running check for each current target.
async fn follow(mut receiver: UnboundedReceiver<Vec<Target>>, on_change: OnChange) {
    let mut running: HashMap<*const Backend, (Target, AbortHandle)> = HashMap::new();
    while let Some(targets) = receiver.recv().await {
        let mut next = HashMap::with_capacity(targets.len());
        for target in targets {
            let key = Arc::as_ptr(&target.backend);
            let check = match running.remove(&key) {
                Some((old, handle)) if old.config == target.config => (old, handle),
                other => {
                    if let Some((_, handle)) = other {
                        handle.abort();
                    }
                    let task = tokio::spawn(check_forever(target.clone(), on_change.clone()));
                    (target, task.abort_handle())
                }
            };
            next.insert(key, check);
        }
        for (_, handle) in running.into_values() {
            handle.abort();
        }
        running = next;
    }
}

async fn check_forever(target: Target, on_change: OnChange) {
    let mut machine = Machine::new(target.backend.is_healthy(), target.config.rise, target.config.fall);
    loop {
        let outcome = probe::probe(target.backend.address, &target.config).await;
        let error = outcome.err();
        if let Some(healthy) = machine.observe(error.is_none()) {
            publish(&target, healthy, error, &on_change);
        } else if error.is_some() {
            target.backend.set_healthy(machine.is_healthy(), error);
        }
        tokio::time::sleep(probe::jittered(target.config.interval)).await;
    }
}

fn publish(target: &Target, healthy: bool, error: Option<String>, on_change: &OnChange) {
    let (pool, address) = (&*target.pool, target.backend.address);
    match &error {
        None => tracing::info!(pool, %address, "backend is healthy again"),
        Some(error) => tracing::warn!(pool, %address, error, "backend is unhealthy and takes no new requests"),
    }
    target.backend.set_healthy(healthy, error);
    on_change(HealthChange { pool: target.pool.clone(), backend: address, healthy });
}
