//! A small HTTP/1.1 origin: what stands behind the edge in the demo and in the tests.
//!
//! It tells what it received, counts what must happen once, and can be slow, stream, and speak WebSocket.

mod answers;
mod drip;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// One origin's identity and memory.
#[derive(Debug)]
pub struct Origin {
    name: String,
    refunds: AtomicU64,
    received: Mutex<VecDeque<Received>>,
    /// The latest heads, such as `GET /orders`.
    seen: Mutex<VecDeque<String>>,
}

/// An origin on loopback, and its address.
pub async fn start() -> Result<(Arc<Origin>, SocketAddr)> {
    let origin = Origin::new("the backend");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(Arc::clone(&origin).serve(listener));
    Ok((origin, address))
}

/// The address of an origin on a thread of its own, for tests that block theirs. It goes on until the process ends.
pub fn start_aside() -> Result<SocketAddr> {
    Ok(start_apart()?.1)
}

/// The same, and the origin.
pub fn start_apart() -> Result<(Arc<Origin>, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let origin = Origin::new("the backend");
    let serving = Arc::clone(&origin);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            serving.serve(listener).await
        })
    });
    Ok((origin, address))
}

/// One request as it arrived, its body whole.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// As many are remembered; a test looks at the last few.
const MOST_RECEIVED: usize = 256;

impl Origin {
    /// `name` is told in every answer, so that a client sees which backend it reached.
    pub fn new(name: impl Into<String>) -> Arc<Origin> {
        Arc::new(Origin {
            name: name.into(),
            refunds: AtomicU64::new(0),
            received: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// How many of the latest requests were this one, such as `POST /refunds`, whether or not their bodies came.
    pub fn seen(&self, request: &str) -> usize {
        let seen = self.seen.lock().expect("no holder of this lock panics");
        seen.iter().filter(|seen| *seen == request).count()
    }

    fn saw(&self, request: String) {
        let mut seen = self.seen.lock().expect("no holder of this lock panics");
        if seen.len() == MOST_RECEIVED {
            seen.pop_front();
        }
        seen.push_back(request);
    }

    /// Refunds that arrived here.
    pub fn refunds(&self) -> u64 {
        self.refunds.load(Ordering::SeqCst)
    }

    /// The last requests that arrived, but for health checks and streams.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no holder of this lock panics").iter().cloned().collect()
    }

    fn remember(&self, head: &http::request::Parts, body: &Bytes) {
        let mut received = self.received.lock().expect("no holder of this lock panics");
        if received.len() == MOST_RECEIVED {
            received.pop_front();
        }
        received.push_back(Received {
            method: head.method.clone(),
            target: head.uri.to_string(),
            headers: head.headers.clone(),
            body: body.clone(),
        });
    }

    /// Serves `listener` until the task is dropped. Paths:
    ///
    /// | path | answer |
    /// |---|---|
    /// | `/healthz` | 200 |
    /// | `/` for a browser | a page with a refund form |
    /// | `POST /refunds` | 201, counted; `{"backend", "refund", "body", "assertion"}`, the assertion's claims as received |
    /// | `GET /refunds` | `{"backend", "count"}` |
    /// | `/stream` | the request's body, piece by piece as it arrives |
    /// | `/slow` | ten pieces over two seconds |
    /// | `/ws`, and whatever ends in it | WebSocket, every message sent back |
    /// | `/app` | a page whose script asks for a refund |
    /// | `/vault` | 401 with RFC 9470's challenge until the assertion says level 2 |
    /// | `/vault/never` | the same, whatever it says |
    /// | `/vault/elsewhere` | the same in another service's words |
    /// | `/events` | server-sent events without end |
    /// | `/grpc` | a gRPC stream without end |
    /// | any other | `{"backend", "method", "path", "headers", "body"}` as received |
    pub async fn serve(self: Arc<Origin>, listener: TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let origin = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(move |request| answers::answer(Arc::clone(&origin), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                // A client that goes away in the middle is everyday life for an origin, and the tests do it on purpose.
                let _ = connection.await;
            });
        }
    }
}
