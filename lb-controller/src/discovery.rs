//! Backends that are found: by the DNS, or in a file that somebody else writes. What is found is put beside the backends
//! that the configuration names, and goes every way that those go.
//!
//! What was found last stays until something else is found: no failure, no empty answer and no broken file takes a backend
//! out. See decision 67.

mod dns;
mod file;
mod found;
mod memory;
mod metrics;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_common::maps::MAX_BACKENDS;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::config::{BackendConfig, BackendOrigin, Config, DiscoverConfig, DiscoverFrom};
use crate::report::DiscoveredPool;
use found::{Asked, Found, Outcome};

pub use metrics::DiscoveryCollector;

/// A start waits so long for the first answers, and then begins with what is there.
pub const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// What was found so far, by pool. Shared by the thread that asks and everybody who wants to know.
#[derive(Debug, Default)]
pub struct Discovered(Mutex<BTreeMap<String, Found>>);

type Changed = Box<dyn Fn() + Send + Sync>;

/// What is asked for, and how it is told.
#[derive(Default)]
struct Shared {
    discovered: Arc<Discovered>,
    /// Addresses are held against it.
    config: Mutex<Arc<Config>>,
    changed: OnceLock<Changed>,
}

/// The thread that asks. It outlives every worker; dropping this ends it.
pub struct Discovery {
    shared: Arc<Shared>,
    /// `None` only while being dropped.
    wanted: Option<watch::Sender<Wanted>>,
    thread: Option<JoinHandle<()>>,
}

/// Pools whose backends are found, and how.
type Wanted = HashMap<String, DiscoverConfig>;

fn wanted(config: &Config) -> Wanted {
    let of_pool = |pool: &crate::config::PoolConfig| Some((pool.name.clone(), pool.discover.clone()?));
    config.pools.iter().filter_map(of_pool).collect()
}

impl Discovered {
    /// Asks once for everything that `config` wants found, and waits for [`FIRST_WITHIN`] at most. Needs a runtime with
    /// timers and sockets, and starts no thread.
    pub async fn first(config: &Arc<Config>) -> Arc<Discovered> {
        let shared = Arc::new(Shared { config: Mutex::new(config.clone()), ..Shared::default() });
        shared.ask_all_once().await;
        shared.discovered.clone()
    }

    /// Puts what was found into the pools of `config`, in the place of what was there.
    pub fn fill(&self, config: &mut Config) {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = MAX_BACKENDS.saturating_sub(config.pools.iter().map(configured).sum());
        for pool in &mut config.pools {
            pool.backends.retain(|backend| backend.origin == BackendOrigin::Configured);
            let Some(found) = found.get(&pool.name).filter(|found| Some(&found.wanted) == pool.discover.as_ref())
            else {
                continue;
            };
            let known: HashSet<_> = pool.backends.iter().map(|backend| backend.address).collect();
            let new = found.backends().filter(|backend| !known.contains(&backend.address)).take(room);
            let before = pool.backends.len();
            pool.backends.extend(new);
            room -= pool.backends.len() - before;
        }
    }

    /// For people.
    pub fn list(&self) -> Vec<DiscoveredPool> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().map(|(pool, found)| found.report(pool)).collect()
    }
}

fn configured(pool: &crate::config::PoolConfig) -> usize {
    pool.backends.iter().filter(|backend| backend.origin == BackendOrigin::Configured).count()
}

impl Discovery {
    /// Goes on from what was found at the start.
    pub fn start(discovered: Arc<Discovered>) -> io::Result<Discovery> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared { discovered, ..Shared::default() });
        let (sender, receiver) = watch::channel(Wanted::new());
        let asking = shared.clone();
        let work = move || runtime.block_on(asking.follow(receiver));
        let thread = std::thread::Builder::new().name("discovery".to_owned()).spawn(work)?;
        Ok(Discovery { shared, wanted: Some(sender), thread: Some(thread) })
    }

    pub fn discovered(&self) -> Arc<Discovered> {
        self.shared.discovered.clone()
    }

    /// Whom to tell that something else was found. It may block; only the first call has an effect.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.changed.set(Box::new(changed));
    }

    /// Asks for what `config` wants found from now on, and for nothing else.
    pub fn follow(&self, config: &Arc<Config>) {
        *self.shared.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        if let Some(sender) = &self.wanted {
            let wanted = wanted(config);
            let mut found = self.shared.discovered.0.lock().unwrap_or_else(PoisonError::into_inner);
            found.retain(|pool, found| wanted.get(pool) == Some(&found.wanted));
            drop(found);
            sender.send_if_modified(|current| {
                let is_new = *current != wanted;
                if is_new {
                    *current = wanted;
                }
                is_new
            });
        }
    }

    /// Waits until everything that is asked for was answered once, or could not be, but not for ever. Blocks.
    pub fn await_first(&self, config: &Config) {
        let deadline = std::time::Instant::now() + FIRST_WITHIN;
        let names: Vec<String> = wanted(config).into_keys().collect();
        let is_there = |found: &BTreeMap<String, Found>| names.iter().all(|name| found.contains_key(name));
        while !is_there(&self.shared.discovered.0.lock().unwrap_or_else(PoisonError::into_inner))
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask_all_once(self: &Arc<Self>) {
        let mut asking = JoinSet::new();
        for (pool, wanted) in wanted(&self.config()) {
            let shared = self.clone();
            asking.spawn(async move {
                let asked = Asker::new(&wanted).ask(&shared, &pool, &wanted).await;
                shared.take(&pool, &wanted, asked);
            });
        }
        let all = async { while asking.join_next().await.is_some() {} };
        if tokio::time::timeout(FIRST_WITHIN, all).await.is_err() {
            tracing::warn!("not all backends were found in time: beginning with what is there");
        }
        asking.abort_all();
        for (pool, wanted) in wanted(&self.config()) {
            if !self.discovered.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&pool) {
                self.take(&pool, &wanted, Asked::failed("no answer in time"));
            }
        }
    }

    /// Keeps one task for each pool whose backends are found.
    async fn follow(self: Arc<Self>, mut wanted: watch::Receiver<Wanted>) {
        let mut running: HashMap<String, (DiscoverConfig, AbortHandle)> = HashMap::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            running.retain(|pool, (config, task)| {
                let stays = now.get(pool) == Some(config);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (pool, config) in now {
                let shared = self.clone();
                let begin = || {
                    let task = tokio::spawn(shared.ask_for_ever(pool.clone(), config.clone()));
                    (config, task.abort_handle())
                };
                running.entry(pool.clone()).or_insert_with(begin);
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }

    async fn ask_for_ever(self: Arc<Self>, pool: String, wanted: DiscoverConfig) {
        let mut asker = Asker::new(&wanted);
        loop {
            let asked = asker.ask(&self, &pool, &wanted).await;
            let (again_after, has_changed) = self.take(&pool, &wanted, asked);
            if has_changed {
                let shared = self.clone();
                // It puts pools together and writes files' worth of maps; other names are to be asked for meanwhile.
                let _ = tokio::task::spawn_blocking(move || shared.changed.get().map(|changed| changed())).await;
            }
            tokio::time::sleep(again_after).await;
        }
    }

    /// When to ask again, and whether pools are to be put together anew.
    fn take(&self, pool: &str, wanted: &DiscoverConfig, asked: Asked) -> (Duration, bool) {
        // Before the lock, which others wait for: the disk may be slow.
        let kept = self.keep_or_recall(pool, wanted, &asked.outcome);
        let mut all = self.discovered.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.entry(pool.to_owned()).or_insert_with(|| Found::new(wanted.clone()));
        if found.knows_nothing() {
            found.remember(pool, asked.at, kept);
        }
        found.take(pool, asked)
    }

    /// Keeps what a name server answered for the next start. Where it did not answer: what it did before, judged anew.
    fn keep_or_recall(&self, pool: &str, wanted: &DiscoverConfig, outcome: &Outcome) -> Vec<BackendConfig> {
        let DiscoverFrom::Dns(question) = &wanted.from else { return Vec::new() };
        let (config, asked_for) = (self.config(), wanted.from.to_string());
        match outcome {
            Outcome::Backends(backends) => {
                if let Err(error) = memory::keep(&config.state_dir, pool, &asked_for, backends) {
                    tracing::warn!(pool, %error, "what was found cannot be kept for the next start");
                }
                Vec::new()
            }
            Outcome::Failed(_) => {
                let records = memory::recall(&config.state_dir, pool, &asked_for);
                dns::backends(&records, question, pool, &config).0
            }
            Outcome::Unchanged => Vec::new(),
        }
    }
}

/// What one pool's task keeps between two questions.
enum Asker {
    Dns(Box<dns::Asker>),
    File(file::Asker),
}

impl Asker {
    fn new(wanted: &DiscoverConfig) -> Asker {
        match &wanted.from {
            DiscoverFrom::Dns(question) => Asker::Dns(Box::new(dns::Asker::new(question.clone()))),
            DiscoverFrom::File(file) => Asker::File(file::Asker::new(file.clone())),
        }
    }

    async fn ask(&mut self, shared: &Shared, pool: &str, wanted: &DiscoverConfig) -> Asked {
        let config = shared.config();
        match self {
            Asker::Dns(dns) => dns.ask(pool, &config).await,
            Asker::File(file) => file.ask(pool, wanted, &config),
        }
    }
}
