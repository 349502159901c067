//! Clients that ask on and on, over kept connections of both protocols, and take every answer that does not come for a
//! failure: what a client may do again without being told to is only what it never sent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::client::{Client, Protocol};

/// Streams at once on one connection over h2.
const STREAMS: usize = 8;

/// Enough to say what is wrong.
const MOST_TOLD: usize = 20;

/// Load on an edge, until it is finished.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    /// Of its own, so that a test that waits for a command does not make clients slow.
    thread: JoinHandle<Result<()>>,
}

/// What came of it so far.
#[derive(Debug, Default)]
pub struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    connections: AtomicU64,
    told: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub answered: u64,
    pub failed: u64,
    /// That were opened.
    pub connections: u64,
    /// Of the failures, the first.
    pub told: Vec<String>,
}

/// How one request ended.
enum Ended {
    Answered,
    /// It was answered, and the connection is not to be used again.
    Closes,
    /// The connection had closed before it was sent.
    NotSent,
}

impl Load {
    /// Begins `each` clients of each protocol, that GET `path`, which must be answered 200.
    pub fn begin(client: &Client, path: &'static str, each: usize) -> Load {
        let (tally, client) = (Arc::<Tally>::default(), client.clone());
        let counted = tally.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for protocol in [Protocol::Http1, Protocol::Http2].repeat(each) {
                    clients.spawn(ask_on(client.clone(), protocol, path, counted.clone()));
                }
                while let Some(ended) = clients.join_next().await {
                    ended?;
                }
                Ok(())
            })
        });
        Load { tally, thread }
    }

    pub fn answered(&self) -> u64 {
        self.tally.answered.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    pub fn goes_on(&self, more: u64) -> Result<()> {
        let (goal, begun) = (self.answered() + more, Instant::now());
        while self.answered() < goal && self.failed() == 0 {
            ensure!(begun.elapsed() < Duration::from_secs(120 + more / 50), "the load does not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
        ensure!(self.failed() == 0, "{:?}", self.tally.told);
        Ok(())
    }

    /// Ends it: every client after the requests that it has under way.
    pub fn finish(self) -> Result<Outcome> {
        self.tally.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (answered, failed) = (count(&self.tally.answered), count(&self.tally.failed));
        let told = self.tally.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Outcome { answered, failed, connections: self.tally.connections.load(Ordering::Relaxed), told })
    }
}

impl Tally {
    fn fail(&self, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST_TOLD {
            told.push(format!("{error:#}"));
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

async fn ask_on(client: Client, protocol: Protocol, path: &'static str, tally: Arc<Tally>) {
    while !tally.is_over() {
        tally.connections.fetch_add(1, Ordering::Relaxed);
        let one = match protocol {
            Protocol::Http1 => over_http1(&client, path, &tally).await,
            Protocol::Http2 => over_http2(&client, path, &tally).await,
        };
        if let Err(error) = one {
            tally.fail(&error.context(format!("{protocol:?}")));
        }
    }
}

async fn over_http1(client: &Client, path: &str, tally: &Tally) -> Result<()> {
    let stream = client.connect(Protocol::Http1).await?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    while !tally.is_over() {
        if send.ready().await.is_err() {
            break;
        }
        let request = client.request(path, Protocol::Http1)?.method("GET").body(Empty::<Bytes>::new())?;
        let sent = match send.try_send_request(request).await {
            Ok(response) => whole(response).await?,
            Err(mut error) => match error.take_message() {
                Some(_) => Ended::NotSent,
                None => return Err(anyhow::Error::from(error.into_error()).context("no answer")),
            },
        };
        match sent {
            Ended::Answered => drop(tally.answered.fetch_add(1, Ordering::Relaxed)),
            Ended::Closes => {
                tally.answered.fetch_add(1, Ordering::Relaxed);
                break;
            }
            Ended::NotSent => break,
        }
    }
    connection.abort();
    Ok(())
}

async fn over_http2(client: &Client, path: &'static str, tally: &Arc<Tally>) -> Result<()> {
    let stream = client.connect(Protocol::Http2).await?;
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        streams.spawn(over_one_stream(client.clone(), send.clone(), path, tally.clone()));
    }
    drop(send);
    while let Some(ended) = streams.join_next().await {
        ended?;
    }
    connection.abort();
    Ok(())
}

async fn over_one_stream(
    client: Client,
    mut send: http2::SendRequest<Empty<Bytes>>,
    path: &'static str,
    tally: Arc<Tally>,
) {
    let request = || -> Result<Request<Empty<Bytes>>> {
        Ok(client.request(path, Protocol::Http2)?.method("GET").body(Empty::new())?)
    };
    while !tally.is_over() && send.ready().await.is_ok() {
        let Ok(request) = request() else { return };
        let ended = match send.try_send_request(request).await {
            Ok(response) => whole(response).await,
            Err(mut error) => match error.take_message() {
                Some(_) => return,
                None if was_not_looked_at(error.error()) => return,
                None => Err(anyhow::Error::from(error.into_error()).context("no answer")),
            },
        };
        match ended {
            Ok(_) => drop(tally.answered.fetch_add(1, Ordering::Relaxed)),
            Err(error) => return tally.fail(&error.context("Http2")),
        }
    }
}

/// RFC 9113 §6.8: a stream beyond the last that a goodbye names can be asked again elsewhere, and clients do.
fn was_not_looked_at(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

async fn whole(response: http::Response<hyper::body::Incoming>) -> Result<Ended> {
    ensure!(response.status() == StatusCode::OK, "answered {}", response.status());
    let says_close = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    response.into_body().collect().await.context("the answer broke off")?;
    Ok(if says_close { Ended::Closes } else { Ended::Answered })
}
