//! How an edge starts and stops. Everything that needs a privilege is opened first, on the main thread; then the
//! privileges go, and only then do other threads begin.

mod datapath;
mod reload;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use lb_datapath::{MapsOrigin, Reader, VerifiedSource};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminSocket, AdminState};
use crate::audit::{self, Trail};
use crate::clock::Clock;
use crate::config::Config;
use crate::edge::{Edge, Snapshot};
use crate::failure::{ExitKind, Failure, OrExit};
use crate::health::HealthChecks;
use crate::identity::{self, Identities};
use crate::instance::Instance;
use crate::joint::Joint;
use crate::lists::{Follower, Lists, Prepared};
use crate::lists_metrics::ListsCollector;
use crate::logging::LogLevel;
use crate::metrics::Metrics;
use crate::pool::Pools;
use crate::privileges;
use crate::reconcile::{Reconciler, Reconciling, Wish};
use crate::samples::{Reading, Samples};
use crate::serve::accept::Workers;
use crate::serve::access_log::NonBlocking;
use crate::serve::request::Peer;
use crate::serve::tls::{CertificateSwitch, server_config};
use crate::serve::{self, listen};
use crate::shutdown::Shutdown;
use crate::signals::{Signals, Sources};
use crate::stepup::StepUp;
use crate::stepup_metrics::StepUpCollector;
use crate::xdp_metrics::XdpCollector;

pub use reload::{check_certificates, check_issuers, check_lists};

/// What `lb-controller run` was told.
pub struct Options {
    pub instance: Instance,
    pub config_file: PathBuf,
    /// The file's text, as compiled.
    pub config_text: String,
    pub config: Config,
    /// Instead of the configuration's; empty: the configuration's.
    pub interfaces: Vec<String>,
    /// L7 alone, on this address.
    pub listen: Option<SocketAddr>,
    pub workers: usize,
    pub log_level: LogLevel,
    pub metrics: Metrics,
    /// Access lines that wait for somewhere to go.
    pub access_log: Option<NonBlocking>,
}

/// Requests and tunnels under way may take this long once the edge is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

const TEND_EVERY: Duration = Duration::from_secs(60);
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Runs until SIGTERM, SIGINT or `lb-controller stop`.
pub fn run(options: Options) -> Result<(), Failure> {
    // It starts no thread; and out of file descriptors it panics, which must not happen once XDP is attached.
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let opened = Opened::open(&options)?;
    let attached_anew = opened.attached_anew;
    let ended = privileges::drop_all_but_needed()
        .or_exit(ExitKind::Permission)
        .and_then(|()| control.block_on(serve(&options, opened)));
    audit::flush();
    // Only a start can fail. What an earlier run attached was serving before it, and stays.
    if ended.is_err() && attached_anew {
        datapath::undo(&options);
    }
    ended
}

/// Everything that is open before privileges go.
struct Opened {
    config: Arc<Config>,
    step_up: StepUp,
    signals: Signals,
    sources: Sources,
    certificates: Arc<CertificateSwitch>,
    listeners: Vec<Vec<TcpListener>>,
    reconciler: Option<Reconciler>,
    lists: Prepared,
    /// Nothing of this instance was attached before.
    attached_anew: bool,
    admin: AdminSocket,
    metrics: Option<TcpListener>,
}

impl Opened {
    /// Cheap and harmless things first: what fails leaves nothing attached.
    fn open(options: &Options) -> Result<Opened, Failure> {
        let config = Arc::new(with_interfaces(options)?);
        let admin = AdminSocket::open(options.instance.admin_socket())?;
        let trail = config.audit.as_ref().map(Trail::open).transpose().or_exit(ExitKind::State)?;
        let step_up = StepUp::open(&config.state_dir, Clock::system()).or_exit(ExitKind::State)?;
        let signals = Signals::open(&config.state_dir, step_up.store().clone(), step_up.failed_proofs())
            .or_exit(ExitKind::State)?;
        let sources = Sources::open(&config, &Sources::default()).or_exit(ExitKind::Config)?;
        let certificates = CertificateSwitch::new(reload::certificates(&config).or_exit(ExitKind::Certificate)?);
        identity::check(&config).or_exit(ExitKind::Config)?;
        let lists = reload::lists(&config)?;
        if options.listen.is_some() && lists.prefixes() > 0 {
            tracing::warn!("`lists` are looked up in XDP: with --listen they are read and denied to nobody");
        }
        let metrics = config.metrics.map(metrics_listener).transpose()?;
        let listeners = match options.listen {
            Some(address) => listen::direct(address, options.workers),
            None => listen::steered(options.workers),
        }
        .or_exit(ExitKind::PortBusy)?;
        let attached = match options.listen {
            Some(_) => None,
            None => Some(datapath::open(options, &config, &listeners, lists.compiled())?),
        };
        let attached_anew = matches!(attached, Some((_, MapsOrigin::Fresh)));
        let reconciler = attached.map(|(reconciler, _)| reconciler);
        if let Some(trail) = trail {
            audit::keep_in(trail);
        }
        Ok(Opened {
            config,
            step_up,
            signals,
            sources,
            certificates,
            listeners,
            reconciler,
            lists,
            attached_anew,
            admin,
            metrics,
        })
    }
}

fn with_interfaces(options: &Options) -> Result<Config, Failure> {
    let mut config = options.config.clone();
    if !options.interfaces.is_empty() {
        config.interfaces = options.interfaces.clone();
    }
    if config.interfaces.is_empty() && options.listen.is_none() {
        let why = anyhow!(
            "nothing to serve on: name an interface with --iface or under `interfaces:` in {}, \
             or run L7 alone with --listen ADDRESS:PORT",
            options.config_file.display()
        );
        return Err(Failure::new(ExitKind::Interface, why));
    }
    Ok(config)
}

fn metrics_listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .with_context(|| format!("cannot serve metrics on {address}; free the port, or change `metrics:`"));
    listener.or_exit(ExitKind::PortBusy)
}

/// The joint, with what the maps remember from before this start.
fn joint(verified: Vec<VerifiedSource>, wishes: Sender<Wish>) -> Joint {
    let verified = verified.into_iter().map(|verified| (verified.source, verified.last_verified_ago));
    Joint::new(Clock::system(), verified, move |change| {
        let _ = wishes.send(Wish::Source(change));
    })
}

/// Later lists go to the reconciler.
fn followed_lists(first: Prepared, wishes: Sender<Wish>) -> Arc<Lists> {
    Arc::new(Lists::new(first, move |compiled| {
        // Fails only while the edge stops, when the maps stay as they are.
        let _ = wishes.send(Wish::Lists(Box::new(compiled)));
    }))
}

fn health_checks(wishes: Sender<Wish>) -> Result<HealthChecks, Failure> {
    let started = HealthChecks::start(move |change| {
        // Fails only while the edge stops, when the maps no longer follow.
        let _ = wishes.send(Wish::Health(change));
    });
    Ok(started.context("cannot start health checks")?)
}

fn start_edge(
    first: Snapshot,
    step_up: StepUp,
    signals: Signals,
    joint: Joint,
    metrics: Metrics,
) -> Result<Arc<Edge>, Failure> {
    let edge = Edge::new(first, step_up, signals, joint, metrics, Clock::system()).or_exit(ExitKind::State)?;
    reload::client_authorities(&edge).or_exit(ExitKind::Certificate)?;
    let edge = Arc::new(edge);
    edge.metrics.register(|registry| edge.step_up.register(registry));
    edge.metrics.register_collector(StepUpCollector::new(&edge));
    Ok(edge)
}

async fn serve(options: &Options, opened: Opened) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let metrics = options.metrics.clone();
    let reader = opened.reconciler.as_ref().map(Reconciler::reader);
    if let Some(reader) = &reader {
        metrics.register_collector(XdpCollector::new(reader.clone()));
    }
    let verified = reader.as_ref().map(Reader::verified_sources).transpose().map_err(anyhow::Error::from)?;
    let mut reconciler = opened.reconciler;
    if let Some(log) = reconciler.as_mut().and_then(Reconciler::take_log) {
        tokio::spawn(log.forward());
    }
    let sample_reader = reconciler.as_mut().and_then(Reconciler::take_samples);
    // The first thread, because it keeps a capability that the others do not get.
    let reconciling = Reconciling::start(reconciler).context("cannot start the reconciler")?;
    privileges::drop_what_the_reconciler_keeps().or_exit(ExitKind::Permission)?;
    let samples = Samples::default();
    let _reading = sample_reader
        .map(|reader| Reading::start(reader, samples.clone()))
        .transpose()
        .context("cannot start the reader of samples")?;
    if let Some(access_log) = &options.access_log {
        access_log.write_to(std::io::stderr()).context("cannot start the access log")?;
    }
    let wishes = reconciling.wishes();
    let lists = followed_lists(opened.lists, wishes.clone());
    metrics.register_collector(ListsCollector::new(lists.clone()));
    let joint = joint(verified.unwrap_or_default(), wishes.clone());

    let pools = Pools::build(&opened.config.pools, None);
    metrics.show_pools(&pools);
    let health = health_checks(wishes.clone())?;
    health.watch(&pools);

    let issuers = identity::start_runtime().context("cannot start the thread that asks identity providers")?;
    let identities = Identities::build(&opened.config, None, &Clock::system(), &issuers).or_exit(ExitKind::Config)?;
    let (config, identities) = (opened.config, Arc::new(identities));
    let first = Snapshot { version: 1, config, pools, identities, sources: opened.sources };
    let edge = start_edge(first, opened.step_up, opened.signals, joint, metrics)?;
    let workers = start_workers(&edge, opened.listeners, &opened.certificates)?;

    let admin = Arc::new(AdminState {
        edge: edge.clone(),
        datapath: reader,
        wishes: wishes.clone(),
        lists: lists.clone(),
        samples,
        shutdown: shutdown.clone(),
        started: Instant::now(),
        listen: options.listen,
    });
    spawn_admin(&opened.admin, opened.metrics, &admin)?;
    tokio::spawn(tend(edge.clone()));
    tokio::spawn(follow_signals(edge.clone()));
    let reload = reload::Reload {
        file_interfaces: options.config.interfaces.clone(),
        edge,
        certificates: opened.certificates,
        issuers,
        health,
        wishes: wishes.clone(),
        lists_follower: Follower::start(lists.clone()).context("cannot follow the lists")?,
        lists,
    };
    let _watch = reload.follow(&options.config_file, options.config_text.clone())?;

    tracing::info!(instance = %options.instance, workers = options.workers, "serving");
    wait_for_end(&shutdown).await?;

    // The reconciler holds the worker sockets too; while it does, the kernel goes on giving them connections.
    drop(reconciling);
    let _ = tokio::task::spawn_blocking(move || workers.shutdown(DRAIN)).await;
    drop(opened.admin);
    if let Some(access_log) = &options.access_log {
        access_log.flush(&mut std::io::stderr());
    }
    tracing::info!("stopped");
    Ok(())
}

/// Forgets expired transactions and sessions and rotates keys. It writes to disk, so it leaves this thread.
async fn tend(edge: Arc<Edge>) {
    let mut every = tokio::time::interval(TEND_EVERY);
    loop {
        every.tick().await;
        let edge = edge.clone();
        let tend = move || {
            edge.step_up.tend();
            edge.signals.tend();
        };
        if tokio::task::spawn_blocking(tend).await.is_err() {
            tracing::error!("tending the step-up engine panicked; trying again in a minute");
        }
    }
}

/// Takes in new databases of places and new lists.
async fn follow_signals(edge: Arc<Edge>) {
    let mut every = tokio::time::interval(FOLLOW_EVERY);
    loop {
        every.tick().await;
        let edge = edge.clone();
        if tokio::task::spawn_blocking(move || edge.snapshot().sources.follow()).await.is_err() {
            tracing::error!("reading a new file of facts panicked; the old one goes on");
        }
    }
}

fn start_workers(
    edge: &Arc<Edge>,
    listeners: Vec<Vec<TcpListener>>,
    certificates: &Arc<CertificateSwitch>,
) -> Result<Workers, Failure> {
    let tls = server_config(certificates.clone(), edge.client_authorities.clone()).or_exit(ExitKind::Certificate)?;
    let handler = {
        let edge = edge.clone();
        move |peer: Rc<Peer>, request| {
            let edge = edge.clone();
            async move { serve::handle(&edge, &peer, request).await }
        }
    };
    Ok(Workers::start(listeners, tls, &edge.metrics, handler).context("cannot start the workers")?)
}

fn spawn_admin(socket: &AdminSocket, metrics: Option<TcpListener>, state: &Arc<AdminState>) -> Result<(), Failure> {
    let listener = socket.listener().context("cannot open the admin socket")?;
    tokio::spawn(admin::serve(listener, state.clone()));
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(anyhow::Error::from)?;
        tokio::spawn(admin::serve_metrics(listener, state.clone()));
    }
    Ok(())
}

/// Returns when the edge should stop; a second signal after that ends the process at once.
async fn wait_for_end(shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining; once more to stop at once"),
        () = shutdown.begun() => tracing::info!("asked to stop: draining"),
    }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(1);
    });
    Ok(())
}
