//! Workers: one thread each, with its own sockets, connections and backend connections. Nothing is shared between two
//! workers on a request's way but atomics.

mod connection;
mod limits;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::runtime::LocalRuntime;
use tokio::sync::{Semaphore, watch};

pub use limits::Limits;

use crate::metrics::{Metrics, WorkerMetrics};
use crate::serve::body::ResponseBody;
use crate::serve::request::Peer;
use crate::serve::{stalled, upgrade, upstream};

/// Pause after `accept` failed for want of descriptors or memory (EMFILE, ENFILE, ENOBUFS): the connection stays in the
/// queue, so trying again at once would only burn the CPU that is needed to finish others.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// How often a worker looks for backend connections that nobody needs any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The running workers. Dropping them does not stop them; [`Workers::shutdown`] does.
pub struct Workers {
    /// `Some` once they must end: how long what is under way may take.
    stop: watch::Sender<Option<Duration>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one worker for each set of listeners. `handler` answers requests, on the thread that accepted them.
    ///
    /// Errors: a thread or its event loop could not be made. Workers started before are stopped again.
    pub fn start<Handler, Answer>(
        listeners: Vec<Vec<TcpListener>>,
        tls: Arc<ServerConfig>,
        metrics: &Metrics,
        handler: Handler,
    ) -> io::Result<Workers>
    where
        Handler: Fn(Rc<Peer>, Request<Incoming>) -> Answer + Clone + Send + 'static,
        Answer: Future<Output = Response<ResponseBody>> + 'static,
    {
        Workers::start_with(listeners, tls, metrics, Limits::default(), handler)
    }

    /// [`Workers::start`] with other limits than the usual ones.
    pub fn start_with<Handler, Answer>(
        listeners: Vec<Vec<TcpListener>>,
        tls: Arc<ServerConfig>,
        metrics: &Metrics,
        limits: Limits,
        handler: Handler,
    ) -> io::Result<Workers>
    where
        Handler: Fn(Rc<Peer>, Request<Incoming>) -> Answer + Clone + Send + 'static,
        Answer: Future<Output = Response<ResponseBody>> + 'static,
    {
        let (stop, stopping) = watch::channel(None);
        let mut workers = Workers { stop, threads: Vec::with_capacity(listeners.len()) };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (tls, handler, stopping) = (tls.clone(), handler.clone(), stopping.clone());
            let metrics = metrics.worker(index);
            let (report, outcome) = std::sync::mpsc::sync_channel(1);
            let run = move || {
                let prepared = prepare(listeners);
                let (runtime, listeners) = match prepared {
                    Ok(prepared) => prepared,
                    Err(error) => return drop(report.send(Err(error))),
                };
                let places = Arc::new(Semaphore::new(limits.connections as usize));
                let worker = Rc::new(Worker { handler, tls, metrics, limits, stopping, places });
                // Nobody waits for it only when `start` was itself given up.
                let _ = report.send(Ok(()));
                runtime.block_on(worker.run(listeners));
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?;
            workers.threads.push(thread);
            outcome.recv().map_err(|_| io::Error::other("a worker died while starting"))??;
        }
        Ok(workers)
    }

    /// Stops accepting, lets requests and tunnels under way go on for at most `deadline`, then ends the workers. Blocks
    /// until then; within an async runtime, call it through `spawn_blocking`.
    pub fn shutdown(mut self, deadline: Duration) {
        self.stop.send_replace(Some(deadline));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

/// The worker's event loop, and its sockets registered there.
fn prepare(listeners: Vec<TcpListener>) -> io::Result<(LocalRuntime, Vec<tokio::net::TcpListener>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let entered = runtime.block_on(async { listeners.into_iter().map(tokio::net::TcpListener::from_std).collect() });
    let listeners: io::Result<Vec<_>> = entered;
    Ok((runtime, listeners?))
}

/// What all connections of one worker share.
struct Worker<Handler> {
    handler: Handler,
    tls: Arc<ServerConfig>,
    metrics: WorkerMetrics,
    limits: Limits,
    stopping: watch::Receiver<Option<Duration>>,
    /// One permit a connection.
    places: Arc<Semaphore>,
}

impl<Handler, Answer> Worker<Handler>
where
    Handler: Fn(Rc<Peer>, Request<Incoming>) -> Answer + 'static,
    Answer: Future<Output = Response<ResponseBody>> + 'static,
{
    async fn run(self: Rc<Self>, listeners: Vec<tokio::net::TcpListener>) {
        let accepting: Vec<_> =
            listeners.into_iter().map(|listener| tokio::task::spawn_local(self.clone().accept(listener))).collect();
        tokio::task::spawn_local(sweep());
        let mut stopping = self.stopping.clone();
        let deadline = match stopping.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_default(),
            // The `Workers` were dropped without a shutdown: go on for ever.
            Err(_) => std::future::pending().await,
        };
        for task in accepting {
            // Aborting drops the listener: what the kernel has queued is reset, and clients try another edge.
            task.abort();
        }
        if tokio::time::timeout(deadline, self.all_closed()).await.is_err() {
            let left = self.limits.connections as usize - self.places.available_permits() + upgrade::open_tunnels();
            tracing::warn!(left, "connections were cut off at the end of the shutdown deadline");
        }
    }

    async fn accept(self: Rc<Self>, listener: tokio::net::TcpListener) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, address)) => {
                    self.metrics.accepted();
                    let worker = self.clone();
                    tokio::task::spawn_local(async move {
                        worker.serve(stream, address).await;
                        worker.metrics.closed();
                        drop(place);
                    });
                }
                // The client was gone before we got to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again shortly");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    async fn all_closed(&self) {
        // Closing a connection gives its place back; all places are here once all are closed.
        let _ = self.places.acquire_many(self.limits.connections).await;
        while upgrade::open_tunnels() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        upstream::close_expired();
        stalled::release(std::time::Instant::now());
    }
}
