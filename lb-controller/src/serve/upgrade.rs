//! Upgraded connections (WebSocket): bytes in both directions once the *backend* has agreed.

mod frames;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod relay;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header, request};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::pool::{Backend, InFlight, Pool};
use crate::serve::access_log::Record;
use crate::serve::body::{RequestBody, ResponseBody};
use crate::serve::respond::Refusal;
use crate::serve::standing::Over;
use crate::serve::{forward, outgoing, upstream};

/// Tunnels of one worker. Each holds two sockets and two buffers for as long as both ends like.
const MAX_TUNNELS_PER_WORKER: usize = 10_000;

thread_local!(static OPEN_TUNNELS: Cell<usize> = const { Cell::new(0) });

/// Tunnels of this worker. They outlive the HTTP connection they began on.
pub(crate) fn open_tunnels() -> usize {
    OPEN_TUNNELS.get()
}

/// A tunnel's place among [`MAX_TUNNELS_PER_WORKER`], given back when dropped.
struct Place(());

impl Place {
    fn take() -> Result<Place, Refusal> {
        if OPEN_TUNNELS.get() >= MAX_TUNNELS_PER_WORKER {
            return Err(Refusal::TooManyTunnels);
        }
        OPEN_TUNNELS.set(OPEN_TUNNELS.get() + 1);
        Ok(Place(()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN_TUNNELS.set(OPEN_TUNNELS.get() - 1);
    }
}

/// Asks a backend for the upgrade, on a connection of its own. Anything but its 101 is an ordinary response.
pub(super) async fn forward(
    pool: &Pool,
    mut head: request::Parts,
    (client_side, protocol): (OnUpgrade, String),
    over: impl Future<Output = Over> + 'static,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let place = Place::take()?;
    outgoing::ask_for_upgrade(&mut head.headers, &protocol)?;
    let connect = async |backend: &Backend| upstream::connect_stream(backend.address, pool.timeouts.connect).await;
    let (stream, backend) = forward::try_backends(pool, &mut Vec::new(), connect).await?;
    record.set_backend(backend.address);
    let message = Request::from_parts(head, RequestBody::default());
    // Shared by the connection and the tunnel, of which the longer one counts.
    let in_flight = Rc::new(InFlight::begin(&backend));
    let exchange = ask(stream, message, in_flight.clone());
    let response = tokio::time::timeout(pool.timeouts.response, exchange).await;
    let mut response = match response {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(failed(&backend, format!("no response: {error}"), Refusal::BackendFailed)),
        Err(_) => {
            let what = format!("no response within {:?}", pool.timeouts.response);
            return Err(failed(&backend, what, Refusal::BackendTooSlow));
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        forward::clean(&mut response);
        return Ok(response.map(ResponseBody::from));
    }
    if !switches_to(&response, &protocol) {
        let what = "switched to another protocol than asked for".to_owned();
        return Err(failed(&backend, what, Refusal::BackendFailed));
    }
    let backend_side = hyper::upgrade::on(&mut response);
    tokio::task::spawn_local(async move {
        tunnel(client_side, backend_side, over).await;
        drop((place, in_flight));
    });
    let mut response = response.map(|_| ResponseBody::default());
    forward::clean(&mut response);
    outgoing::ask_for_upgrade(response.headers_mut(), &protocol)?;
    Ok(response)
}

fn failed(backend: &Arc<Backend>, what: String, refusal: Refusal) -> Refusal {
    backend.failed(what);
    refusal
}

/// The response's head. The connection lives on in a task of its own.
async fn ask(
    stream: TcpStream,
    message: Request<RequestBody>,
    in_flight: Rc<InFlight>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        // What ends it early, the response or the tunnel reports.
        let _ = connection.with_upgrades().await;
        drop(in_flight);
    });
    sender.send_request(message).await
}

fn switches_to<Body>(response: &Response<Body>, protocol: &str) -> bool {
    let named = response.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
    named.is_some_and(|named| named.eq_ignore_ascii_case(protocol.as_bytes()))
}

/// Copies until both directions have ended, one failed, or the tunnel is over.
async fn tunnel(client_side: OnUpgrade, backend_side: OnUpgrade, over: impl Future<Output = Over>) {
    // hyper hands the client's side over once it has written our 101.
    let copied = async {
        let (client, backend) = tokio::try_join!(client_side, backend_side)?;
        relay::relay(TokioIo::new(client), TokioIo::new(backend), over).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "tunnel broke off");
    }
}
