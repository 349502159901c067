//! The reconciler: the one thread that owns the datapath and writes its maps.
//!
//! Health, configuration and the joint only say what they want; the difference between that and what the maps hold is
//! planned and applied here, so no two writers ever race and a failed write is tried again.

mod backend_health;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_datapath::{
    BackendState, BlockOutcome, CompiledLists, Datapath, Desired, DesiredBackend, DesiredServerId, DesiredService,
    LoadError, LoadReport, Reader, SampleReader, Source, WorkerSocket, XdpLog,
};

use tokio::sync::oneshot;

use crate::config::{BackendConfig, Config, Forwarding, Service};
use crate::health::HealthChange;
use crate::joint::SourceChange;
use backend_health::BackendHealth;

/// What the rest of the controller asks of the maps.
#[derive(Debug)]
pub enum Wish {
    /// A configuration took effect.
    Config(Arc<Config>),
    /// A health check changed its mind.
    Health(HealthChange),
    /// The joint has something to say about a source.
    Source(SourceChange),
    /// Deny and allow lists were read.
    Lists(Box<CompiledLists>),
    /// An operator lifts a block; the answer says whether there was one.
    Unblock { source: Source, done: oneshot::Sender<Result<bool, String>> },
    /// Another process is to write the maps. Nothing is written here from the moment it is told so until something comes
    /// `back`; where that cannot come any more, for good.
    Lend { lent: Sender<()>, back: oneshot::Receiver<()> },
    /// The controller is going; the maps stay as they are.
    Stop,
}

/// Expired blocks are swept this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Hints of sources that are no longer verified are cleared this often: it reads all of them.
const SWEEP_VERIFIED_EVERY: Duration = Duration::from_secs(60);

/// Changed routes and neighbours are followed, and failed writes tried again, this often.
const TEND_EVERY: Duration = Duration::from_millis(200);

/// Wishes that come in a row are taken in for so long before the maps are written.
const GATHER_FOR: Duration = Duration::from_millis(50);

/// The reconciler at work. Dropping it stops it and waits until it has let go of the datapath and its lock: on a start that
/// fails, what was attached can be undone only then.
pub struct Reconciling {
    wishes: Sender<Wish>,
    thread: Option<JoinHandle<()>>,
}

impl Reconciling {
    /// Starts the thread. Without a datapath it only takes wishes in, so that nobody has to know.
    pub fn start(reconciler: Option<Reconciler>) -> std::io::Result<Reconciling> {
        let (wishes, inbox) = mpsc::channel();
        let work = move || match reconciler {
            Some(reconciler) => reconciler.run(&inbox),
            None => while !matches!(inbox.recv(), Ok(Wish::Stop) | Err(_)) {},
        };
        let thread = std::thread::Builder::new().name("reconciler".to_owned()).spawn(work)?;
        Ok(Reconciling { wishes, thread: Some(thread) })
    }

    /// Where wishes go.
    pub fn wishes(&self) -> Sender<Wish> {
        self.wishes.clone()
    }
}

impl Drop for Reconciling {
    fn drop(&mut self) {
        let _ = self.wishes.send(Wish::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// One worker's listening sockets.
pub struct WorkerSockets {
    sockets: Vec<(OwnedFd, bool)>,
}

impl WorkerSockets {
    /// Duplicates of `listeners`: services that a later configuration adds are steered to the same sockets.
    pub fn of(listeners: &[TcpListener]) -> std::io::Result<WorkerSockets> {
        let duplicate =
            |listener: &TcpListener| Ok((listener.as_fd().try_clone_to_owned()?, listener.local_addr()?.is_ipv6()));
        Ok(WorkerSockets { sockets: listeners.iter().map(duplicate).collect::<std::io::Result<_>>()? })
    }
}

/// What came of a wish.
enum Taken {
    /// The maps are as they should be.
    Nothing,
    /// The maps are to be written.
    Change,
    /// The maps are no longer ours to write.
    End,
}

pub struct Reconciler {
    datapath: Datapath,
    config: Arc<Config>,
    sockets: Vec<WorkerSockets>,
    /// Services whose connections go to `sockets`.
    steered: BTreeSet<String>,
    health: BackendHealth,
    verified_swept: Instant,
    /// Not in the maps yet.
    lists: Option<Box<CompiledLists>>,
}

impl Reconciler {
    pub fn new(datapath: Datapath, config: Arc<Config>, sockets: Vec<WorkerSockets>) -> Reconciler {
        Reconciler {
            health: BackendHealth::of(&config.pools),
            datapath,
            config,
            sockets,
            steered: BTreeSet::new(),
            verified_swept: Instant::now(),
            lists: None,
        }
    }

    pub fn reader(&self) -> Reader {
        self.datapath.reader()
    }

    /// The instance's lock, for a process that takes over.
    pub fn share_lock(&self) -> std::io::Result<OwnedFd> {
        self.datapath.share_lock()
    }

    /// The programs' log lines, once.
    pub fn take_log(&mut self) -> Option<XdpLog> {
        self.datapath.take_log()
    }

    /// Lets packets be judged by what the maps say; before this, by what an earlier run left, or by nothing.
    pub fn attach(&mut self) -> Result<LoadReport, LoadError> {
        self.datapath.attach()
    }

    /// The samples of packets, once.
    pub fn take_samples(&mut self) -> Option<SampleReader> {
        self.datapath.take_samples()
    }

    /// Puts `lists` in the place of those that the maps hold, from an earlier run perhaps.
    pub fn replace_lists(&mut self, lists: &CompiledLists) -> anyhow::Result<()> {
        let begin = Instant::now();
        self.datapath.replace_lists(lists)?;
        let (memory_bytes, took_ms) = (lists.memory_bytes(), begin.elapsed().as_millis() as u64);
        tracing::info!(memory_bytes, took_ms, "lists are in force in XDP");
        Ok(())
    }

    /// Makes the maps say what is desired, and steers services that are new.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        if let Some(lists) = self.lists.take()
            && let Err(error) = self.replace_lists(&lists)
        {
            self.lists = Some(lists);
            return Err(error);
        }
        let applied = self.datapath.apply(&self.desired())?;
        for vip in &applied.unrouted {
            tracing::warn!(%vip, "this VIP is new, and its route needs a privilege that is gone; restart to serve it");
        }
        let local = self.config.services.iter().filter(|service| service.is_local());
        let names: BTreeSet<String> = local.map(|service| service.name.clone()).collect();
        let new: Vec<&str> = names.difference(&self.steered).map(String::as_str).collect();
        if !new.is_empty() {
            let sockets: Vec<WorkerSocket<'_>> =
                new.iter().flat_map(|service| sockets_of(&self.sockets, service)).collect();
            self.datapath.steer_to(&sockets)?;
        }
        self.steered = names;
        Ok(())
    }

    fn run(mut self, inbox: &Receiver<Wish>) {
        let (mut settled, mut swept) = (true, Instant::now());
        loop {
            // What has gathered is taken in before the maps are written: of thousands of backends that change at once, each
            // would else be written together with all the others.
            let first = inbox.recv_timeout(TEND_EVERY);
            let mut next = match first {
                Err(RecvTimeoutError::Disconnected) => return,
                wish => wish.ok(),
            };
            let until = Instant::now() + GATHER_FOR;
            while let Some(wish) = next {
                match self.take_in(wish) {
                    Taken::Nothing => {}
                    Taken::Change => settled = false,
                    Taken::End => return,
                }
                next = if Instant::now() < until { inbox.try_recv().ok() } else { None };
            }
            if swept.elapsed() >= SWEEP_EVERY {
                self.sweep();
                swept = Instant::now();
            }
            self.tend();
            if !settled {
                match self.settle() {
                    Ok(()) => settled = true,
                    Err(error) => tracing::error!("the eBPF maps could not be written; trying again: {error:#}"),
                }
            }
        }
    }

    fn take_in(&mut self, wish: Wish) -> Taken {
        match wish {
            Wish::Stop => return Taken::End,
            Wish::Lend { lent, back } => {
                return if self.lend(&lent, back) { Taken::Change } else { Taken::End };
            }
            Wish::Source(change) => self.mark(change),
            Wish::Unblock { source, done } => {
                let lifted = self.datapath.unblock(source).map_err(|error| error.to_string());
                // Whoever asked may have given up waiting; the block is lifted all the same.
                let _ = done.send(lifted);
            }
            Wish::Config(config) => {
                self.health.keep_only(&config.pools);
                self.config = config;
                return Taken::Change;
            }
            Wish::Lists(lists) => {
                self.lists = Some(lists);
                return Taken::Change;
            }
            Wish::Health(change) => {
                self.health.record(&change);
                return Taken::Change;
            }
        }
        Taken::Nothing
    }

    /// Waits until the maps are given back; `false`: they are another's for good. What is wished meanwhile waits too.
    fn lend(&mut self, lent: &Sender<()>, back: oneshot::Receiver<()>) -> bool {
        if lent.send(()).is_err() {
            return true;
        }
        if back.blocking_recv().is_err() {
            return false;
        }
        if let Err(error) = self.datapath.take_back() {
            tracing::error!(
                "the eBPF maps no longer follow health and configuration; `lb-controller upgrade`, or a restart, mends \
                 that: {:#}",
                anyhow::Error::from(error)
            );
        }
        // Sockets that were steered to may have gone with their process.
        self.steered.clear();
        true
    }

    fn mark(&mut self, change: SourceChange) {
        match change {
            SourceChange::Verified { source, ttl } => match self.datapath.mark_verified(source, ttl) {
                Ok(()) => tracing::debug!(%source, ttl_s = ttl.as_secs(), "verified source marked in XDP"),
                Err(error) => tracing::warn!(%source, %error, "verified source could not be marked in XDP"),
            },
            SourceChange::Blocked { source, ttl } => match self.datapath.block(source, ttl) {
                Ok(BlockOutcome::Blocked) => tracing::info!(%source, ttl_s = ttl.as_secs(), "source blocked in XDP"),
                Ok(BlockOutcome::ListFull) => tracing::warn!(%source, "the list of blocked sources is full"),
                Err(error) => tracing::warn!(%source, %error, "source could not be blocked in XDP"),
            },
        }
    }

    /// Tables that services only remember are forgotten in time, and the ways to backends followed.
    fn tend(&mut self) {
        if let Err(error) = self.datapath.tend() {
            tracing::warn!("the eBPF maps could not be tended; trying again: {:#}", anyhow::Error::from(error));
        }
    }

    fn sweep(&mut self) {
        if let Err(error) = self.datapath.sweep_blocks() {
            tracing::warn!(%error, "expired blocks could not be swept; they no longer block");
        }
        if self.verified_swept.elapsed() < SWEEP_VERIFIED_EVERY {
            return;
        }
        self.verified_swept = Instant::now();
        if let Err(error) = self.datapath.sweep_verified() {
            tracing::warn!(%error, "hints of verified sources could not be swept; they cost a lookup in a flood");
        }
    }

    fn desired(&self) -> Desired {
        let services = self.config.services.iter().map(desired_service);
        let backends = self.config.pools.iter().flat_map(|pool| {
            pool.backends.iter().map(|backend| DesiredBackend {
                pool: pool.name.clone(),
                address: backend.address,
                weight: backend.weight,
                state: match self.health.state(&pool.name, backend.address) {
                    BackendState::Healthy if backend.drain => BackendState::Draining,
                    state => state,
                },
            })
        });
        Desired {
            services: services.collect(),
            backends: backends.collect(),
            server_ids: server_ids(&self.config),
            new_flows: self.config.new_flows,
            sampling: self.config.sampling,
            tier: self.config.decapsulate.clone(),
            nat: self.config.nat.translation.clone(),
        }
    }
}

/// One for each backend and length that a service asks for: of services that ask alike, once.
fn server_ids(config: &Config) -> Vec<DesiredServerId> {
    let asked = config.services.iter().flat_map(|service| {
        let pool = service.forwarding.pool.as_deref();
        service.forwarding.quic.iter().filter_map(move |(_, bytes)| Some((pool?, bytes)))
    });
    let asked: BTreeSet<(&str, u8)> = asked.collect();
    let of_pool = |(name, bytes): (&str, u8)| {
        let pool = config.pools.iter().find(|pool| pool.name == name);
        let backends = pool.map_or(&[][..], |pool| &pool.backends);
        let id = |backend: &BackendConfig| {
            let id = backend.server_id(bytes)?;
            Some(DesiredServerId { pool: name.to_owned(), address: backend.address, id })
        };
        backends.iter().filter_map(id).collect::<Vec<_>>()
    };
    asked.into_iter().flat_map(of_pool).collect()
}

fn desired_service(service: &Service) -> DesiredService {
    let Forwarding { forward, pool, hash_by, gue_port, max_segment_bytes, quic } = service.forwarding.clone();
    DesiredService {
        name: service.name.clone(),
        vips: service.vips.clone(),
        ports: service.ports,
        protocols: service.protocols,
        limits: service.limits,
        syn_cookies: service.syn_cookies,
        forward,
        pool,
        hash_by,
        gue_port,
        max_segment_bytes,
        quic,
    }
}

/// Every worker's sockets, as the sockets of `service`.
fn sockets_of<'s>(workers: &'s [WorkerSockets], service: &'s str) -> impl Iterator<Item = WorkerSocket<'s>> {
    (0_u16..).zip(workers).flat_map(move |(worker, of_one)| {
        let socket = move |(socket, ipv6): &'s (OwnedFd, bool)| WorkerSocket {
            service,
            worker,
            socket: socket.as_fd(),
            ipv6: *ipv6,
        };
        of_one.sockets.iter().map(socket)
    })
}
