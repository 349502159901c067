//! A small HTTP/1.1 origin: what stands behind the edge in the demo and in the tests.
//!
//! It tells what it received, counts what must happen once, and can be slow, stream, and speak WebSocket.

mod answers;
mod drip;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// One origin's identity and memory.
#[derive(Debug)]
pub struct Origin {
    name: String,
    refunds: AtomicU64,
    /// The latest, such as `GET /orders`.
    seen: Mutex<VecDeque<String>>,
}

/// Requests that an origin remembers; it also stands in the way of floods.
const MOST_SEEN: usize = 100;

/// An origin on loopback, and its address.
pub async fn start() -> Result<(Arc<Origin>, SocketAddr)> {
    let origin = Origin::new("the backend");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(Arc::clone(&origin).serve(listener));
    Ok((origin, address))
}

impl Origin {
    /// `name` is told in every answer, so that a client sees which backend it reached.
    pub fn new(name: impl Into<String>) -> Arc<Origin> {
        Arc::new(Origin { name: name.into(), refunds: AtomicU64::new(0), seen: Mutex::default() })
    }

    /// How many of the latest requests were this one, such as `POST /refunds`.
    pub fn seen(&self, request: &str) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|seen| *seen == request).count()
    }

    fn remember(&self, request: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == MOST_SEEN {
            seen.pop_front();
        }
        seen.push_back(request);
    }

    /// Refunds that arrived here.
    pub fn refunds(&self) -> u64 {
        self.refunds.load(Ordering::SeqCst)
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
