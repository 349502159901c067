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

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::config::HealthConfig;
use crate::descriptors;
use crate::pool::{Backend, Dial, Pools};
use crate::seldom::Seldom;
use machine::Machine;
use probe::{Outcome, Prober};

/// Pools are tended this often: what changes with time alone need not be more exact.
const TEND_EVERY: Duration = Duration::from_millis(100);

/// First checks begin one after the other, and not all at once.
const FIRST_EVERY: Duration = Duration::from_micros(100);

/// Checks that are under way at once, each on a connection: thousands of backends that are silent are asked in turns.
const MOST_AT_ONCE: usize = 4_096;

/// Checks may have one in so many of the descriptors that the process may have: the others are for requests.
const SHARE_OF_DESCRIPTORS: usize = 4;

/// That backends could not be asked for want of descriptors is told of so often.
static CANNOT_ASK: Seldom = Seldom::every(Duration::from_secs(5));

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
    /// One for each that is under way.
    places: Semaphore,
}

impl HealthChecks {
    /// Starts the thread. `on_change` is called on it, and must not block.
    pub fn start(on_change: impl Fn(HealthChange) + Send + Sync + 'static) -> io::Result<HealthChecks> {
        let most = (descriptors::most() / SHARE_OF_DESCRIPTORS).clamp(1, MOST_AT_ONCE);
        HealthChecks::start_with(most, on_change)
    }

    /// At most so many of which are under way at once.
    fn start_with(most: usize, on_change: impl Fn(HealthChange) + Send + Sync + 'static) -> io::Result<HealthChecks> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (targets, receiver) = unbounded_channel();
        let places = Semaphore::new(most);
        let checks = Arc::new(Checks { pools: Mutex::default(), on_change: Box::new(on_change), places });
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
    let (mut next, mut first_after) = (Running::with_capacity(running.len()), Duration::ZERO);
    for target in targets {
        let key = Arc::as_ptr(&target.backend);
        let check = match running.remove(&key) {
            Some((old, handle)) if old.asks_as(&target) => (old, handle),
            other => {
                if let Some((_, handle)) = other {
                    handle.abort();
                }
                let task = tokio::spawn(check_forever(target.clone(), checks.clone(), first_after));
                first_after += FIRST_EVERY;
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

async fn check_forever(target: Target, checks: Arc<Checks>, first_after: Duration) {
    let config = &target.config;
    let prober = Prober::new(config, &target.dial, target.backend.address);
    let mut machine = Machine::new(target.backend.is_healthy(), config.rise, config.fall);
    // A sleep takes a millisecond at least, and the first ones need not wait.
    if first_after >= Duration::from_millis(1) {
        tokio::time::sleep(first_after).await;
    }
    let mut is_first = true;
    loop {
        checks.ask(&target, &prober, &mut machine).await;
        let interval = if machine.is_healthy() { config.interval } else { config.interval_down };
        // The checks that began together do not go on together.
        let pause = if std::mem::take(&mut is_first) { interval.mul_f64(fastrand::f64()) } else { interval };
        tokio::time::sleep(probe::jittered(pause, config.jitter_percent)).await;
    }
}

impl Checks {
    /// Asks once there is a place, and tells whoever needs it what came of that.
    async fn ask(&self, target: &Target, prober: &Prober, machine: &mut Machine) {
        let outcome = {
            // It is never closed.
            let _place = self.places.acquire().await;
            prober.probe(target.config.timeout).await
        };
        let error = match outcome {
            Outcome::Good => None,
            Outcome::Bad(error) => Some(error),
            Outcome::NotAsked(error) => {
                if let Some(times) = CANNOT_ASK.happened() {
                    tracing::warn!(%error, times, "backends cannot be asked how they are; what is known of them stands");
                }
                return;
            }
        };
        if let Some(healthy) = machine.observe(error.is_none()) {
            self.publish(target, healthy, error);
        } else if error.is_some() {
            target.backend.set_healthy(machine.is_healthy(), error);
        }
    }

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
            pool.refresh_soon();
        }
        (self.on_change)(HealthChange { pool: target.pool.clone(), backend: address, healthy });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Instant;

    use super::*;
    use crate::config::{HealthKind, PoolConfig};

    /// Backends that accept nothing: their connections stand in the kernel's queue, and no answer comes.
    fn silent(listener: &TcpListener, count: u8) -> Pools {
        let port = listener.local_addr().unwrap().port();
        let address = |last| SocketAddr::from(([127, 0, 0, last], port)).into();
        let health = HealthConfig {
            kind: HealthKind::http("/healthz"),
            timeout: Duration::from_millis(100),
            ..HealthConfig::default()
        };
        let backends = (1..=count).map(address).collect();
        Pools::build(&[PoolConfig { name: "silent".into(), backends, health, ..PoolConfig::default() }], None)
    }

    #[test]
    fn no_more_are_asked_at_once_than_may_be_and_all_in_their_turn() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let pools = silent(&listener, 40);
        let (changes, changed) = std::sync::mpsc::channel();
        let begin = Instant::now();
        let checks = HealthChecks::start_with(10, move |change| changes.send(change).unwrap()).unwrap();
        checks.watch(&pools);
        for _ in 0..40 {
            assert!(!changed.recv_timeout(Duration::from_secs(10)).unwrap().healthy);
        }
        // Four times ten, one after the other.
        assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    }
}
