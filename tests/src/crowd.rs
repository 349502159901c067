//! Strangers who ask again as soon as they have an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::trust;

/// Ends with the value.
#[derive(Debug)]
pub struct Crowd {
    /// Answers so far, by status.
    answers: Arc<Mutex<BTreeMap<u16, u64>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// So many, each on a connection of its own, on a thread beside the test's. `path` is asked for at `host`.
    pub fn of(count: usize, edge: SocketAddr, host: &'static str, path: &'static str) -> Result<Crowd> {
        Crowd::saying(count, edge, (host, path), || None)
    }

    /// The same, with an `Authorization` for each request.
    pub fn saying(
        count: usize,
        edge: SocketAddr,
        (host, path): (&'static str, &'static str),
        authorization: impl Fn() -> Option<String> + Clone + Send + Sync + 'static,
    ) -> Result<Crowd> {
        let config = Arc::new(trust::any_certificate(b"http/1.1")?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (answers, is_over) = (Arc::<Mutex<_>>::default(), Arc::<AtomicBool>::default());
        let (counted, over) = (answers.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for _ in 0..count {
                    let (config, counted, authorization) = (config.clone(), counted.clone(), authorization.clone());
                    tokio::spawn(async move {
                        loop {
                            // One that is cut off comes again.
                            let _ = ask_on(&config, edge, (host, path), &authorization, &counted).await;
                        }
                    });
                }
                while !over.load(Ordering::Relaxed) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            });
        });
        Ok(Crowd { answers, is_over, thread: Some(thread) })
    }

    /// How often this status was the answer.
    pub fn answers(&self, status: u16) -> u64 {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&status).copied().unwrap_or(0)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn ask_on(
    config: &Arc<ClientConfig>,
    edge: SocketAddr,
    (host, path): (&'static str, &'static str),
    authorization: &impl Fn() -> Option<String>,
    answers: &Mutex<BTreeMap<u16, u64>>,
) -> Result<()> {
    let stream = TcpStream::connect(edge).await?;
    let tls = TlsConnector::from(config.clone()).connect(ServerName::try_from(host)?, stream).await?;
    let (mut send, connection) = http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    loop {
        let mut request = Request::get(path).header(header::HOST, host);
        if let Some(authorization) = authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let response = send.send_request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        *answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        send.ready().await?;
    }
}
