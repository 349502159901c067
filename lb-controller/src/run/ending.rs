//! How a process ends: the edge stops, or another process has taken over and this one drains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Options, notify, takeover};
use crate::acme::Acme;
use crate::admin::AdminState;
use crate::edge::Edge;
use crate::handover::{Drained, Follower, Heard, News};
use crate::reconcile::Reconciling;
use crate::samples::Reading;
use crate::serve::accept::{self, Drain, Draining, Workers};
use crate::shutdown::Shutdown;

/// Sessions may have ended here while the store was lent, and clocks tick by the second.
const LENT_AT_MOST_SECONDS: u64 = 15;

/// What serves, and what of it can be shut.
pub(super) struct Running {
    pub(super) edge: Arc<Edge>,
    pub(super) acme: Arc<Acme>,
    pub(super) workers: Workers,
    pub(super) reconciling: Reconciling,
    pub(super) samples: Option<Reading>,
    /// Admin and metrics.
    pub(super) answering: Vec<JoinHandle<std::io::Result<()>>>,
    pub(super) sockets: takeover::Sockets,
}

/// What brings the end about.
pub(super) struct Ending<'a> {
    options: &'a Options,
    shutdown: Shutdown,
    signals: Signals,
    given: watch::Receiver<bool>,
    generation: u32,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn any(&mut self) -> &'static str {
        tokio::select! { _ = self.terminate.recv() => "SIGTERM", _ = self.interrupt.recv() => "SIGINT" }
    }
}

impl<'a> Ending<'a> {
    /// `given` becomes true once everything is another process's.
    pub(super) fn new(
        options: &'a Options,
        admin: &AdminState,
        given: watch::Receiver<bool>,
    ) -> anyhow::Result<Ending<'a>> {
        let signals = Signals::new().context("cannot wait for signals")?;
        Ok(Ending { options, shutdown: admin.shutdown.clone(), signals, given, generation: admin.generation })
    }

    /// Returns when nothing is under way any more.
    pub(super) async fn of(self, running: Running) {
        let Ending { options, shutdown, mut signals, mut given, generation } = self;
        tokio::select! {
            name = signals.any() => tracing::info!("{name}: draining; once more to stop at once"),
            () = shutdown.begun() => tracing::info!("asked to stop: draining"),
            () = until_given(&mut given) => {
                return leave(options, generation, running, signals).await;
            }
        }
        notify::stopping();
        let drain = running.edge.snapshot().config.drain;
        tokio::spawn(async move {
            signals.any().await;
            std::process::exit(1);
        });
        // The reconciler holds the worker sockets too; while it does, the kernel goes on giving them connections.
        drop(running.reconciling);
        let workers = running.workers;
        let _ = tokio::task::spawn_blocking(move || workers.shutdown(drain.on_stop)).await;
        drop(running.sockets);
    }
}

/// Another process accepts, writes maps and keeps the store by now; this one ends with what it has under way.
async fn leave(options: &Options, generation: u32, running: Running, mut signals: Signals) {
    let Running { edge, acme, workers, reconciling, samples, answering, sockets } = running;
    let (config, draining) = (edge.snapshot().config.clone(), workers.draining());
    let until = Instant::now() + config.drain.on_upgrade;
    draining.begin(Drain { until, closes_idle: false });
    tracing::info!(seconds = config.drain.on_upgrade.as_secs(), "a new process has taken over: draining");
    acme.apply(None, &config.state_dir);
    drop((reconciling, samples));
    // The socket for metrics is the successor's too, and so is what is told there.
    answering.iter().for_each(JoinHandle::abort);
    sockets.admin.leave();
    sockets.door.leave();
    let successor = Successor {
        edge,
        draining: draining.clone(),
        until,
        generation,
        generations: config.drain.generations,
        heard_generation: None,
    };
    let follower = Follower::new(options.instance.handover_socket());
    let followed = std::thread::Builder::new().name("successor".to_owned());
    if followed.spawn(move || successor.follow(follower)).is_err() {
        // Without hearing what ends elsewhere nothing may go on here.
        draining.begin(Drain { until: Instant::now(), closes_idle: true });
    }
    let ended = tokio::task::spawn_blocking(move || workers.join());
    tokio::pin!(ended);
    tokio::select! { _ = &mut ended => return, name = signals.any() => tracing::info!("{name}: draining sooner") }
    let sooner = until.min(Instant::now() + config.drain.on_stop);
    draining.begin(Drain { until: sooner, closes_idle: true });
    tokio::select! { _ = &mut ended => {}, _ = signals.any() => std::process::exit(1) }
}

async fn until_given(given: &mut watch::Receiver<bool>) {
    if given.wait_for(|given| *given).await.is_err() {
        // Nobody hands over any more.
        std::future::pending::<()>().await;
    }
}

/// What a drained process does with what it hears.
struct Successor {
    edge: Arc<Edge>,
    draining: Draining,
    until: Instant,
    generation: u32,
    generations: u32,
    heard_generation: Option<u32>,
}

impl Successor {
    /// To the end of the process.
    fn follow(mut self, mut follower: Follower) {
        let begun = self.edge.clock.now().saturating_sub(LENT_AT_MOST_SECONDS);
        let (mut since, mut ended) = (begun, self.edge.step_up.ended_since(begun));
        loop {
            let asked_at = self.edge.clock.now();
            let drained = Drained {
                pid: std::process::id(),
                generation: self.generation,
                connections: accept::open_connections(&self.edge.metrics),
                seconds_left: self.until.saturating_duration_since(Instant::now()).as_secs(),
                since,
                ended: ended.clone(),
            };
            match follower.ask(drained) {
                Heard::News(news) => {
                    if self.take_in(&news) {
                        return self.end("so many upgrades have followed");
                    }
                    (since, ended) = (asked_at.saturating_sub(2), Vec::new());
                }
                Heard::Nothing => {}
                Heard::Deaf => return self.end("no successor answers, which would say what ends"),
            }
        }
    }

    /// Whether it is time to end.
    fn take_in(&mut self, news: &News) -> bool {
        self.edge.step_up.end_as_successor_did(&news.ended);
        // Which keys changed is not told, nor what one successor did before the next one was asked.
        let is_another = self.heard_generation.replace(news.generation).is_some_and(|known| known != news.generation);
        if news.api_key_changes > 0 || is_another {
            self.edge.api_keys.forget_all();
        }
        news.generation.saturating_sub(self.generation) > self.generations
    }

    fn end(&self, why: &str) {
        tracing::warn!("what is still open is cut off: {why}");
        self.draining.begin(Drain { until: Instant::now() + Duration::from_millis(100), closes_idle: true });
    }
}
