//! A backend that speaks HTTP/2, in plain or over TLS, and answers as scripted.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request, and how to answer it.
pub(crate) struct Call {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// Counts the origin's requests from 0.
    pub(crate) number: usize,
}

type Answer = Pin<Box<dyn Future<Output = ()>>>;
type Script = dyn Fn(Call) -> Answer + Send + Sync;

/// Its thread ends with the test.
pub(crate) struct H2Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<http::request::Parts>>>,
}

/// What it may have otherwise.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) max_streams: Option<u32>,
    pub(crate) takes_connect: bool,
}

impl H2Origin {
    pub(crate) fn start<Answering: Future<Output = ()> + 'static>(
        script: impl Fn(Call) -> Answering + Send + Sync + 'static,
    ) -> H2Origin {
        H2Origin::with(Settings::default(), script)
    }

    pub(crate) fn with<Answering: Future<Output = ()> + 'static>(
        settings: Settings,
        script: impl Fn(Call) -> Answering + Send + Sync + 'static,
    ) -> H2Origin {
        let script: Arc<Script> = Arc::new(move |call| Box::pin(script(call)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin =
            H2Origin { address: listener.local_addr().unwrap(), connections: Arc::default(), received: Arc::default() };
        let (connections, received) = (origin.connections.clone(), origin.received.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    let (settings, script, received) = (settings.clone(), script.clone(), received.clone());
                    tokio::task::spawn_local(async move {
                        stream.set_nodelay(true).unwrap();
                        match &settings.tls {
                            None => serve(stream, &settings, (&script, &received)).await,
                            Some(tls) => {
                                let accepted = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(stream).await;
                                let Ok(stream) = accepted else { return };
                                serve(stream, &settings, (&script, &received)).await;
                            }
                        }
                    });
                }
            });
        });
        origin
    }

    /// Answers every request with 200 and its own body.
    pub(crate) fn echoing() -> H2Origin {
        H2Origin::start(echo)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> Vec<http::request::Parts> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    settings: &Settings,
    (script, received): (&Arc<Script>, &Arc<Mutex<Vec<http::request::Parts>>>),
) {
    let mut builder = h2::server::Builder::new();
    if let Some(most) = settings.max_streams {
        builder.max_concurrent_streams(most);
    }
    if settings.takes_connect {
        builder.enable_connect_protocol();
    }
    let Ok(mut frames) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = frames.accept().await {
        let (head, body) = request.into_parts();
        let number = {
            let mut received = received.lock().unwrap();
            received.push(head.clone());
            received.len() - 1
        };
        let call = Call { request: Request::from_parts(head, body), respond, number };
        tokio::task::spawn_local(script(call));
    }
}

pub(crate) async fn echo(mut call: Call) {
    let body = call.request.body_mut();
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        send(&mut stream, data).await;
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    let _ = stream.send_trailers(trailers);
}

/// Sends as the other end takes it.
pub(crate) async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else { return };
        if stream.send_data(data.split_to(room.min(data.len())), false).is_err() {
            return;
        }
    }
}

/// A short answer.
pub(crate) fn answer(call: &mut Call, status: u16, text: &'static str) {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    if let Ok(mut stream) = call.respond.send_response(response, false) {
        let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
    }
}

pub(crate) fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs =
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    pairs.collect()
}

/// The bytes of GOAWAY: no stream beyond `last` was looked at.
pub(crate) fn go_away(last: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
    frame.extend(last.to_be_bytes());
    frame.extend(u32::from(Reason::NO_ERROR).to_be_bytes());
    frame
}

/// A backend whose frames a test writes: whenever a request's HEADERS have come, `answer` to it, of a connection and a request on
/// it, each counted from 0. It closes once the other end has.
pub(crate) fn raw(answer: impl Fn(usize, usize) -> Vec<u8> + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = connections.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        let answer = Rc::new(answer);
        runtime.unwrap().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (number, answer) = (count.fetch_add(1, Ordering::Relaxed), answer.clone());
                tokio::task::spawn_local(async move { serve_raw(stream, |request| answer(number, request)).await });
            }
        });
    });
    (address, connections)
}

async fn serve_raw(mut stream: TcpStream, answer: impl Fn(usize) -> Vec<u8>) -> Option<()> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&SETTINGS).await.ok()?;
    stream.read_exact(&mut [0; 24]).await.ok()?;
    let mut requests = 0..;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == 1 {
            stream.write_all(&answer(requests.next()?)).await.ok()?;
        }
    }
}
