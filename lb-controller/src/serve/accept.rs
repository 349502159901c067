//! Workers: one thread each, with its own sockets, connections and backend connections. Nothing is shared between two
//! workers on a request's way but atomics.

mod connection;
mod limits;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::{Request, Response};
use socket2::SockRef;
use tokio::runtime::LocalRuntime;
use tokio::sync::{Semaphore, watch};

pub use limits::Limits;

use crate::metrics::{Metrics, WorkerMetrics};
use crate::seldom::Seldom;
use crate::serve::body::{ClientBody, ResponseBody};
use crate::serve::front::Front;
use crate::serve::request::Peer;
use crate::serve::tls::Tls;
use crate::serve::{listen, overload, stalled, upgrade, upstream};

/// Pause after `accept` failed for want of descriptors or memory (EMFILE, ENFILE, ENOBUFS): the connection stays in the
/// queue, so trying again at once would only burn the CPU that is needed to finish others.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Of all workers together, for none of them can while descriptors are used up.
static CANNOT_ACCEPT: Seldom = Seldom::every(Duration::from_secs(5));

/// How often a worker looks for backend connections that nobody needs any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The running workers. Dropping them does not stop them; [`Workers::shutdown`] does.
pub struct Workers {
    /// Until it is true they accept nothing.
    open: watch::Sender<bool>,
    drain: Draining,
    threads: Vec<JoinHandle<()>>,
}

/// How workers come to their end: none accepts a connection any more, and each ends with its last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// What is open then is cut off.
    pub until: Instant,
    /// HTTP/1.1 connections between two requests are closed at once. Otherwise each may have one more request, whose
    /// response says `Connection: close`: a client that sends while we close would see its request fail.
    pub closes_idle: bool,
}

/// Tells workers to drain, and may be told again: sooner, or later.
#[derive(Clone, Debug)]
pub struct Draining(watch::Sender<Option<Drain>>);

impl Draining {
    pub fn begin(&self, drain: Drain) {
        self.0.send_replace(Some(drain));
    }
}

impl Workers {
    /// Starts one worker for each set of listeners, behind `front`. Each makes a handler for itself, which answers the
    /// requests of the connections that it accepts, on its thread.
    ///
    /// Errors: a thread or its event loop could not be made. Workers started before are stopped again.
    pub fn start<Handler, Answer>(
        listeners: Vec<Vec<TcpListener>>,
        (tls, front): (Arc<Tls>, Arc<Front>),
        metrics: &Metrics,
        limits: Limits,
        make_handler: impl Fn() -> Handler + Clone + Send + 'static,
    ) -> io::Result<Workers>
    where
        Handler: Fn(Rc<Peer>, Request<ClientBody>) -> Answer + 'static,
        Answer: Future<Output = Response<ResponseBody>> + 'static,
    {
        let workers = Workers::prepare(listeners, (tls, front), metrics, limits, make_handler)?;
        workers.open();
        Ok(workers)
    }

    /// The same, but for accepting: that begins with [`Workers::open`]. A process that takes over from another must not
    /// accept what it could still take down with it.
    pub fn prepare<Handler, Answer>(
        listeners: Vec<Vec<TcpListener>>,
        (tls, front): (Arc<Tls>, Arc<Front>),
        metrics: &Metrics,
        limits: Limits,
        make_handler: impl Fn() -> Handler + Clone + Send + 'static,
    ) -> io::Result<Workers>
    where
        Handler: Fn(Rc<Peer>, Request<ClientBody>) -> Answer + 'static,
        Answer: Future<Output = Response<ResponseBody>> + 'static,
    {
        let (drain, stopping) = watch::channel(None);
        let (open, opened) = watch::channel(false);
        let mut workers = Workers { open, drain: Draining(drain), threads: Vec::with_capacity(listeners.len()) };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (tls, front, make_handler) = (tls.clone(), front.clone(), make_handler.clone());
            let (stopping, opened) = (stopping.clone(), opened.clone());
            let metrics = metrics.worker(index);
            let (report, outcome) = std::sync::mpsc::sync_channel(1);
            let run = move || {
                let prepared = prepare(listeners);
                let (runtime, listeners) = match prepared {
                    Ok(prepared) => prepared,
                    Err(error) => return drop(report.send(Err(error))),
                };
                let places = Arc::new(Semaphore::new(limits.connections as usize));
                let plain_places = Arc::new(Semaphore::new(limits.plain_http_connections as usize));
                let handler = make_handler();
                let (told, own_stopping) = watch::channel(None);
                let worker = Worker {
                    handler,
                    tls,
                    front,
                    metrics,
                    limits,
                    opened,
                    stopping: own_stopping,
                    places,
                    plain_places,
                };
                let worker = Rc::new(worker);
                // Nobody waits for it only when `start` was itself given up.
                let _ = report.send(Ok(()));
                runtime.block_on(worker.run(listeners, (stopping, told)));
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?;
            workers.threads.push(thread);
            outcome.recv().map_err(|_| io::Error::other("a worker died while starting"))??;
        }
        Ok(workers)
    }

    /// Stops accepting, lets requests and tunnels under way go on for at most `deadline`, then ends the workers. Blocks
    /// until then; within an async runtime, call it through `spawn_blocking`.
    pub fn shutdown(self, deadline: Duration) {
        self.drain.begin(Drain { until: Instant::now() + deadline, closes_idle: true });
        self.join();
    }

    /// Lets them accept.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// For whoever lets them drain while another waits for their end.
    pub fn draining(&self) -> Draining {
        self.drain.clone()
    }

    /// Blocks until all have ended, which they do once they are told to drain.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

/// Connections that this process holds open, tunnels among them.
pub fn open_connections(metrics: &Metrics) -> u64 {
    let by_worker = metrics.workers().iter().map(|worker| u64::try_from(worker.open).unwrap_or_default()).sum::<u64>();
    by_worker + upgrade::all_open_tunnels() as u64
}

/// The worker's event loop, and its sockets registered there.
fn prepare(listeners: Vec<TcpListener>) -> io::Result<(LocalRuntime, Vec<tokio::net::TcpListener>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    listeners.iter().try_for_each(|listener| listen::prepare(SockRef::from(listener)))?;
    let entered = runtime.block_on(async { listeners.into_iter().map(tokio::net::TcpListener::from_std).collect() });
    let listeners: io::Result<Vec<_>> = entered;
    Ok((runtime, listeners?))
}

/// What all connections of one worker share.
struct Worker<Handler> {
    handler: Handler,
    tls: Arc<Tls>,
    front: Arc<Front>,
    metrics: WorkerMetrics,
    limits: Limits,
    opened: watch::Receiver<bool>,
    /// Of this worker alone: every request looks at it, and to look takes a lock.
    stopping: watch::Receiver<Option<Drain>>,
    /// One permit a connection.
    places: Arc<Semaphore>,
    /// Likewise of plain HTTP, which has places of its own: whoever dawdles there takes nobody's for HTTPS.
    plain_places: Arc<Semaphore>,
}

impl<Handler, Answer> Worker<Handler>
where
    Handler: Fn(Rc<Peer>, Request<ClientBody>) -> Answer + 'static,
    Answer: Future<Output = Response<ResponseBody>> + 'static,
{
    /// `orders` are what all workers are told, and where this one passes it on to its connections.
    async fn run(
        self: Rc<Self>,
        listeners: Vec<tokio::net::TcpListener>,
        orders: (Orders, watch::Sender<Option<Drain>>),
    ) {
        let accepting: Vec<_> =
            listeners.into_iter().map(|listener| tokio::task::spawn_local(self.clone().accept(listener))).collect();
        tokio::task::spawn_local(sweep());
        tokio::task::spawn_local(pass_on(orders));
        let front = self.front.clone();
        tokio::task::spawn_local(overload::watch(self.metrics.clone(), move || front.queueing_delay()));
        let mut stopping = self.stopping.clone();
        if stopping.wait_for(Option::is_some).await.is_err() {
            // The `Workers` were dropped without a shutdown: go on for ever.
            std::future::pending::<()>().await;
        }
        for task in accepting {
            // Aborting drops the listener: what the kernel has queued is reset, and clients try another edge; unless
            // another process has the listener too.
            task.abort();
        }
        if !self.drained(stopping).await {
            let left = self.limits.connections as usize - self.places.available_permits() + upgrade::open_tunnels();
            tracing::warn!(left, "connections were cut off at the end of the shutdown deadline");
        }
    }

    /// Waits for the end of all connections; `false`: their time is over.
    async fn drained(&self, mut stopping: watch::Receiver<Option<Drain>>) -> bool {
        let mut all_closed = pin!(self.all_closed());
        loop {
            let until = stopping.borrow_and_update().map_or_else(Instant::now, |drain| drain.until);
            tokio::select! {
                () = all_closed.as_mut() => return true,
                changed = stopping.changed() => if changed.is_ok() { continue },
                () = tokio::time::sleep_until(until.into()) => return false,
            }
            // Nobody can tell any more: the time that was given stands.
            return tokio::time::timeout_at(until.into(), all_closed).await.is_ok();
        }
    }

    async fn accept(self: Rc<Self>, listener: tokio::net::TcpListener) {
        if self.opened.clone().wait_for(|opened| *opened).await.is_err() {
            return;
        }
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, address)) => {
                    self.metrics.accepted();
                    let worker = self.clone();
                    tokio::task::spawn_local(async move {
                        worker.serve(stream, address, place).await;
                        worker.metrics.closed();
                    });
                }
                // The client was gone before we got to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.accept_failed();
                    if let Some(times) = CANNOT_ACCEPT.happened() {
                        tracing::warn!(%error, times, "cannot accept connections, which wait; trying again shortly");
                    }
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    async fn all_closed(&self) {
        // Closing a connection gives its place back; all places are here once all are closed.
        let _ = self.places.acquire_many(self.limits.connections).await;
        let _ = self.plain_places.acquire_many(self.limits.plain_http_connections).await;
        while upgrade::open_tunnels() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What all workers are told.
type Orders = watch::Receiver<Option<Drain>>;

async fn pass_on((mut orders, told): (Orders, watch::Sender<Option<Drain>>)) {
    loop {
        let order = *orders.borrow_and_update();
        if order.is_some() {
            told.send_replace(order);
        }
        if orders.changed().await.is_err() {
            // The `Workers` were dropped without a shutdown, or all orders were given: the last one stands.
            std::future::pending::<()>().await;
        }
    }
}

async fn sweep() {
    let mut due = tokio::time::Instant::now() + SWEEP_INTERVAL;
    loop {
        if tokio::time::timeout_at(due, upstream::wanted()).await.is_ok() {
            upstream::give_up_wanted();
            continue;
        }
        due += SWEEP_INTERVAL;
        upstream::close_expired();
        stalled::release(Instant::now());
    }
}
