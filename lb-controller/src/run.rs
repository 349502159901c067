//! How an edge starts and stops. Everything that needs a privilege is opened first, on the main thread; then the
//! privileges go, and only then do other threads begin.

mod datapath;
mod ending;
mod gift;
mod notify;
mod reload;
mod takeover;
mod tending;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, anyhow};
use lb_datapath::{MapsOrigin, Reader, VerifiedSource};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::acme::{Acme, AcmeCollector};
use crate::admin::{self, AdminSocket, AdminState};
use crate::audit::{self, Trail};
use crate::clock::Clock;
use crate::config::Config;
use crate::discovery::{Discovered, Discovery, DiscoveryCollector};
use crate::edge::{Edge, Snapshot, WorkerEdge};
use crate::failure::{ExitKind, Failure, OrExit};
use crate::handover::{self, Door, Giver, Taker};
use crate::health::HealthChecks;
use crate::identity::{self, Identities};
use crate::instance::Instance;
use crate::joint::Joint;
use crate::lists::{Follower, Lists, Prepared};
use crate::lists_metrics::ListsCollector;
use crate::logging::LogLevel;
use crate::metrics::Metrics;
use crate::pool::{Pools, StickyKey};
use crate::privileges;
use crate::reconcile::{Reconciler, Reconciling, Wish};
use crate::report;
use crate::samples::{Reading, Samples};
use crate::serve;
use crate::serve::accept::{Limits, Workers};
use crate::serve::access_log::{AccessLog, Recorder};
use crate::serve::front::Front;
use crate::serve::plain_http::{Direct, PlainHttp};
use crate::serve::request::Peer;
use crate::serve::tls::{CertificateStore, ClientAuthorities, Tls, TlsCollector};
use crate::shutdown::Shutdown;
use crate::signals::{Signals, Sources};
use crate::stepup::{self, StepUp};
use crate::stepup_metrics::StepUpCollector;
use crate::tail::Tail;
use crate::traces::Tracer;
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
    /// With it: plain HTTP, which only leads to HTTPS, on this address.
    pub listen_http: Option<SocketAddr>,
    pub workers: usize,
    /// From the controller of this instance that runs; `None`: none does.
    pub takeover: Option<TakeoverOptions>,
    pub log_level: LogLevel,
    pub metrics: Metrics,
    /// Access lines that wait for somewhere to go.
    pub access_log: AccessLog,
}

/// How a running controller is taken over from.
#[derive(Clone, Copy, Debug)]
pub struct TakeoverOptions {
    /// From the moment it is, the log goes where the old one's went.
    pub adopt_output: bool,
}

/// Runs until SIGTERM, SIGINT or `lb-controller stop`.
pub fn run(options: Options) -> Result<(), Failure> {
    // It starts no thread; and out of file descriptors it panics, which must not happen once XDP is attached.
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let config = with_interfaces(&options)?;
    let (config, discovered) = control.block_on(found(config));
    let opened = Opened::open(&options, config, discovered)?;
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
    discovered: Arc<Discovered>,
    state: State,
    sources: Sources,
    client_authorities: Arc<ClientAuthorities>,
    tls: Arc<Tls>,
    listeners: Vec<Vec<TcpListener>>,
    reconciler: Option<Reconciler>,
    lists: Prepared,
    /// Nothing of this instance was attached before.
    attached_anew: bool,
    door: Door,
    /// Behind the door, because it removes the folder when nothing else is in it.
    admin: AdminSocket,
    metrics: Option<TcpListener>,
    takeover: Option<Taker>,
}

/// What is kept on disk, and by one process at a time.
struct State {
    step_up: StepUp,
    signals: Signals,
}

impl State {
    fn open(config: &Config) -> Result<State, Failure> {
        let trail = config.audit.as_ref().map(Trail::open).transpose().or_exit(ExitKind::State)?;
        let step_up = StepUp::open(&config.state_dir, Clock::system()).or_exit(ExitKind::State)?;
        let signals = Signals::open(&config.state_dir, step_up.store().clone(), step_up.failed_proofs())
            .or_exit(ExitKind::State)?;
        if let Some(trail) = trail {
            audit::keep_in(trail);
        }
        Ok(State { step_up, signals })
    }
}

impl Opened {
    /// Cheap and harmless things first: what fails leaves nothing attached. What another process has is asked for last,
    /// so that it does without it for a moment only.
    fn open(options: &Options, config: Arc<Config>, discovered: Arc<Discovered>) -> Result<Opened, Failure> {
        let mut takeover = options.takeover.map(|_| takeover::begin(options)).transpose()?;
        let admin = takeover::admin_socket(options, takeover.is_some())?;
        let door = takeover::door(options, takeover.is_some())?;
        let sources = Sources::open(&config, &Sources::default()).or_exit(ExitKind::Config)?;
        let access_log = options.access_log.prepare(config.access_log.as_ref()).or_exit(ExitKind::State)?;
        options.access_log.put(access_log);
        // Without anybody to take over from, the store is free; with somebody, it is closed to us until they lend it.
        let own_state = if takeover.is_none() { Some(State::open(&config)?) } else { None };
        let (client_authorities, tls) = tls(options, &config)?;
        identity::check(&config).or_exit(ExitKind::Config)?;
        let lists = reload::lists(&config)?;
        if options.listen.is_some() && lists.prefixes() > 0 {
            tracing::warn!("`lists` are looked up in XDP: with --listen they are read and denied to nobody");
        }
        let metrics = config.metrics.map(|address| takeover::metrics(&mut takeover, address)).transpose()?;
        let listeners = takeover::listeners(options, &mut takeover)?;
        let state = || match own_state {
            Some(state) => Ok(state),
            None => takeover::state(takeover.as_ref(), &config),
        };
        let (reconciler, origin, state) = match options.listen {
            Some(_) => (None, None, state()?),
            None => {
                let place =
                    datapath::Place { options, config: &config, listeners: &listeners, lists: lists.compiled() };
                let lock = takeover::lock(takeover.as_ref())?;
                let (reconciler, origin, state) = datapath::open(place, lock, state)?;
                (Some(reconciler), Some(origin), state)
            }
        };
        Ok(Opened {
            config,
            discovered,
            state,
            sources,
            client_authorities,
            tls,
            listeners,
            reconciler,
            lists,
            attached_anew: origin == Some(MapsOrigin::Fresh),
            admin,
            metrics,
            door,
            takeover,
        })
    }
}

/// How TLS is spoken, and with whose clients.
fn tls(options: &Options, config: &Arc<Config>) -> Result<(Arc<ClientAuthorities>, Arc<Tls>), Failure> {
    let first = reload::first_certificates(config).or_exit(ExitKind::Certificate)?;
    let authorities: Arc<ClientAuthorities> = Arc::default();
    reload::load_client_authorities(config, &authorities).or_exit(ExitKind::Certificate)?;
    let clock = Clock::system();
    let certificates = CertificateStore::new(first, clock.clone());
    let direct = options.listen.zip(options.listen_http).map(|(https, http)| Direct { https, http });
    let plain_http = PlainHttp::new(config.clone(), direct);
    let tls = Tls::new(&config.tls, &config.state_dir, certificates, authorities.clone(), plain_http, clock);
    Ok((authorities, tls.or_exit(ExitKind::Certificate)?))
}

/// With the backends that are found at the start: XDP is not to forget those that an earlier run had found.
async fn found(mut config: Config) -> (Arc<Config>, Arc<Discovered>) {
    let discovered = Discovered::first(&Arc::new(config.clone())).await;
    discovered.fill(&mut config);
    (Arc::new(config), discovered)
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

/// Where requests leave their traces, from the first one on.
fn recorder(options: &Options, config: &Config) -> Result<Recorder, Failure> {
    let (metrics, access_log) = (options.metrics.clone(), options.access_log.clone());
    let tracer = Tracer::default();
    tracer.put(tracer.prepare(config.tracing.as_ref(), &metrics).or_exit(ExitKind::Config)?);
    Ok(Recorder { metrics, access_log, tail: Tail::default(), tracer })
}

/// The first pools, with the key of sticky cookies from the state folder.
fn pools(config: &Config) -> Result<Pools, Failure> {
    let key = stepup::sticky_secret(&config.state_dir).or_exit(ExitKind::State)?;
    let none_yet = Pools::with_key(StickyKey::new(&key));
    Ok(Pools::build(&config.pools, Some(&none_yet)).with_routes(&config.routes))
}

/// The first pools, shown in metrics and checked from now on.
fn watched_pools(config: &Config, metrics: &Metrics, wishes: Sender<Wish>) -> Result<(Pools, HealthChecks), Failure> {
    let pools = pools(config)?;
    metrics.show_pools(&pools);
    let health = health_checks(wishes)?;
    health.watch(&pools);
    Ok((pools, health))
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
    State { step_up, signals }: State,
    joint: Joint,
    recorder: Recorder,
    client_authorities: Arc<ClientAuthorities>,
) -> Result<Arc<Edge>, Failure> {
    let mut edge = Edge::new(first, step_up, signals, joint, recorder, Clock::system()).or_exit(ExitKind::State)?;
    edge.client_authorities = client_authorities;
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
    let lock = reconciler.as_ref().map(Reconciler::share_lock).transpose().context("cannot share the lock")?;
    if let Some(log) = reconciler.as_mut().and_then(Reconciler::take_log) {
        tokio::spawn(log.forward());
    }
    let sample_reader = reconciler.as_mut().and_then(Reconciler::take_samples);
    // The first thread, because it keeps a capability that the others do not get.
    let reconciling = Reconciling::start(reconciler).context("cannot start the reconciler")?;
    privileges::drop_what_the_reconciler_keeps().or_exit(ExitKind::Permission)?;
    let samples = Samples::default();
    let reading = sample_reader.map(|reader| Reading::start(reader, samples.clone())).transpose();
    let reading = reading.context("cannot start the reader of samples")?;
    start_access_log(&options.access_log).context("cannot start the access log")?;
    let wishes = reconciling.wishes();
    let lists = followed_lists(opened.lists, wishes.clone());
    metrics.register_collector(ListsCollector::new(lists.clone()));
    let joint = joint(verified.unwrap_or_default(), wishes.clone());

    let (pools, health) = watched_pools(&opened.config, &metrics, wishes.clone())?;

    let issuers = identity::start_runtime().context("cannot start the thread that asks identity providers")?;
    let identities = Identities::build(&opened.config, None, &Clock::system(), &issuers).or_exit(ExitKind::Config)?;
    let (config, identities) = (opened.config, Arc::new(identities));
    let recorder = recorder(options, &config)?;
    let first = Snapshot { version: 1, config, pools, identities, sources: opened.sources };
    let edge = start_edge(first, opened.state, joint, recorder, opened.client_authorities)?;
    let tls = opened.tls;
    let acme = start_orders(&edge.metrics, &tls)?;
    let front = front(&edge);
    let output = takeover::output(options, opened.takeover.as_ref())?;
    let handed = gift::sockets(&opened.listeners, opened.metrics.as_ref(), lock, output)?;
    let workers = start_workers(&edge, opened.listeners, (tls.clone(), front.clone()))?;

    let generation = opened.takeover.as_ref().map_or(1, |taker| taker.running.generation + 1);
    let admin = Arc::new(AdminState {
        edge: edge.clone(),
        datapath: reader,
        wishes: wishes.clone(),
        lists: lists.clone(),
        samples,
        certificates: listed_certificates(&tls, &acme),
        shutdown: shutdown.clone(),
        started: Instant::now(),
        listen: options.listen,
        generation,
        draining: Arc::default(),
        discovered: opened.discovered.clone(),
    });
    let answering = spawn_admin(&opened.admin, opened.metrics, &admin)?;
    tending::spawn(&edge, &tls);
    metrics_of_discovery(&edge, &opened.discovered);
    let reload = reload::Reload {
        discovery: Discovery::start(opened.discovered).context("cannot start the thread that finds backends")?,
        changing: Mutex::default(),
        file_interfaces: options.config.interfaces.clone(),
        edge: edge.clone(),
        front,
        tls,
        acme: acme.clone(),
        issuers,
        health,
        wishes: wishes.clone(),
        lists_follower: Follower::start(lists.clone()).context("cannot follow the lists")?,
        lists,
    };
    let _watch = reload.follow(&options.config_file, options.config_text.clone())?;

    let sockets = takeover::Sockets { admin: opened.admin, door: opened.door };
    let running = ending::Running { edge, acme, workers, reconciling, samples: reading, answering, sockets };
    serve_to_the_end(options, opened.takeover, handed, &admin, running).await
}

/// Takes over, where somebody is taken over from, and returns once nothing is under way any more.
async fn serve_to_the_end(
    options: &Options,
    taker: Option<Taker>,
    handed: handover::Sockets,
    admin: &Arc<AdminState>,
    mut running: ending::Running,
) -> Result<(), Failure> {
    let gift = gift::Gift::new(options, handed, admin);
    let ending = ending::Ending::new(options, admin, gift.given())?;
    Giver::start(&running.sockets.door, Arc::new(gift)).context("cannot start the thread that hands over")?;
    // The last step, because nothing can be undone after it: what may fail comes before.
    takeover::commit(options, taker, &mut running.sockets)?;
    running.workers.open();
    notify::serving();
    let generation = admin.generation;
    tracing::info!(instance = %options.instance, workers = options.workers, generation, "serving");
    ending.of(running).await;
    admin.edge.recorder.flush();
    tracing::info!("stopped");
    Ok(())
}

fn metrics_of_discovery(edge: &Edge, discovered: &Arc<Discovered>) {
    edge.metrics.register_collector(DiscoveryCollector::new(discovered.clone()));
}

/// Orders certificates from now on; what comes of it, and of all of TLS, is counted.
fn start_orders(metrics: &Metrics, tls: &Arc<Tls>) -> Result<Arc<Acme>, Failure> {
    metrics.register_collector(TlsCollector::new(tls.clone()));
    let acme = Acme::start(tls.challenges.clone(), Clock::system()).context("cannot start ordering certificates")?;
    metrics.register_collector(AcmeCollector::new(&acme));
    Ok(Arc::new(acme))
}

/// Tells operators what certificates are served, and how those do that are ordered.
fn listed_certificates(tls: &Arc<Tls>, acme: &Arc<Acme>) -> Box<dyn Fn() -> Vec<report::Certificate> + Send + Sync> {
    let (tls, acme) = (tls.clone(), acme.clone());
    Box::new(move || {
        let mut certificates = tls.certificates.list();
        acme.tell_of(&mut certificates);
        certificates
    })
}

/// Lines are written from now on. SIGUSR1 says, as to nginx and others, that a rotator of logs has put the file aside.
fn start_access_log(access_log: &AccessLog) -> std::io::Result<()> {
    access_log.write_to(std::io::stderr())?;
    let mut told = signal(SignalKind::user_defined1())?;
    let access_log = access_log.clone();
    tokio::spawn(async move {
        while told.recv().await.is_some() {
            tracing::info!("SIGUSR1: the access log is opened anew");
            access_log.reopen();
        }
    });
    Ok(())
}

/// What stands before requests, with the first configuration.
fn front(edge: &Arc<Edge>) -> Arc<Front> {
    let snapshot = edge.snapshot();
    let at_edge = edge.clone();
    let is_verified = move |address| at_edge.joint.is_verified(&at_edge.snapshot().config, address);
    Front::new(snapshot.config.clone(), snapshot.pools.clone(), &edge.recorder, is_verified)
}

fn start_workers(
    edge: &Arc<Edge>,
    listeners: Vec<Vec<TcpListener>>,
    before: (Arc<Tls>, Arc<Front>),
) -> Result<Workers, Failure> {
    let edge = edge.clone();
    let metrics = edge.metrics.clone();
    let make_handler = move || {
        let edge = Rc::new(WorkerEdge::new(edge.clone()));
        move |peer: Rc<Peer>, request| {
            let edge = edge.clone();
            async move { serve::handle(&edge, &peer, request).await }
        }
    };
    Ok(Workers::prepare(listeners, before, &metrics, Limits::default(), make_handler)
        .context("cannot start the workers")?)
}

fn spawn_admin(
    socket: &AdminSocket,
    metrics: Option<TcpListener>,
    state: &Arc<AdminState>,
) -> Result<Vec<JoinHandle<std::io::Result<()>>>, Failure> {
    let listener = socket.listener().context("cannot open the admin socket")?;
    let mut answering = vec![tokio::spawn(admin::serve(listener, state.clone()))];
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(anyhow::Error::from)?;
        answering.push(tokio::spawn(admin::serve_metrics(listener, state.clone())));
    }
    Ok(answering)
}
