//! Upgraded connections (WebSocket): bytes in both directions once the *backend* has agreed.

mod frames;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod key;
mod relay;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{HeaderValue, Response, StatusCode, header, request};

use crate::pool::Backend;
use crate::serve::access_log::Record;
use crate::serve::body::ResponseBody;
use crate::serve::http1::Tunnel;
use crate::serve::pause::Pause;
use crate::serve::request::ClientTunnel;
use crate::serve::respond::Refusal;
use crate::serve::standing::Over;
use crate::serve::target::Target;
use crate::serve::tries::Tries;
use crate::serve::upstream::Exchange;
use crate::serve::{forward, outgoing, upstream};
use crate::traces::TryEnd;
use key::Keys;

/// Tunnels of one worker. Each holds two sockets and two buffers for as long as both ends like.
const MAX_TUNNELS_PER_WORKER: usize = 10_000;

thread_local!(static OPEN_TUNNELS: Cell<usize> = const { Cell::new(0) });

static OF_ALL_WORKERS: AtomicUsize = AtomicUsize::new(0);

/// Tunnels of all workers of this process.
pub(super) fn all_open_tunnels() -> usize {
    OF_ALL_WORKERS.load(Ordering::Relaxed)
}

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
        OF_ALL_WORKERS.fetch_add(1, Ordering::Relaxed);
        Ok(Place(()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN_TUNNELS.set(OPEN_TUNNELS.get() - 1);
        OF_ALL_WORKERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks a backend for the WebSocket: by an upgrade on a connection of its own over HTTP/1.1, by extended CONNECT over HTTP/2,
/// whichever of the two the client used. Any answer but yes is an ordinary response.
pub(super) async fn forward(
    target: &Target<'_>,
    mut head: request::Parts,
    (client_side, protocol): (ClientTunnel, String),
    over: impl Future<Output = Over> + 'static,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let place = Place::take()?;
    let timeouts = target.timeouts;
    let connect = async |backend: &Arc<Backend>| {
        let (dial, timeout) = (&target.pool.dial, timeouts.connect);
        upstream::connect_for_websocket(dial, backend, timeout, &target.preface).await
    };
    let mut tries = Tries::new(target);
    let since = record.mark();
    let opened = forward::try_backends(&mut tries, connect).await;
    record.not_connected(since, &tries.take_not_connected());
    let (mut connection, mut in_flight) = opened.inspect_err(|_| tries.tell(record))?;
    let backend = in_flight.backend().clone();
    let at = Instant::now();
    record.begin_try(backend.address, at, &mut head.headers);
    in_flight.sent(at);
    target.hand_over(&mut in_flight);
    let keys = Keys::of(&mut head.headers, connection.is_h2());
    if !connection.is_h2() {
        outgoing::ask_for_upgrade(&mut head.headers, &protocol)?;
    }
    connection.begin_websocket(&head);
    let answer = poll_fn(|context| connection.poll_response(None, context));
    let mut response = match tokio::time::timeout(timeouts.response, answer).await {
        Ok(Ok(response)) => {
            record.end_try(&target.pool.name, TryEnd::Answered(response.status()));
            response
        }
        Ok(Err(error)) => {
            record.end_try(&target.pool.name, TryEnd::Failed("reset"));
            return Err(failed(&backend, format!("no response: {error}"), Refusal::BackendFailed));
        }
        Err(_) => {
            record.end_try(&target.pool.name, TryEnd::Failed("timeout"));
            let what = format!("no response within {:?}", timeouts.response);
            return Err(failed(&backend, what, Refusal::BackendTooSlow));
        }
    };
    target.stick(&mut response, &backend);
    let is_agreed = match connection.is_h2() {
        true => response.status().is_success(),
        false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
    };
    if !is_agreed {
        let pause = Pause::new(timeouts.response_body, None);
        return Ok(forward::respond(response, Exchange { connection, in_flight }, pause));
    }
    let is_understood = switches_to(&response, &protocol) && keys.are_answered(response.headers());
    if !connection.is_h2() && !is_understood {
        let what = "switched to another protocol than asked for".to_owned();
        return Err(failed(&backend, what, Refusal::BackendFailed));
    }
    let (backend_side, connection_place) = connection.into_tunnel().ok_or(Refusal::BackendFailed)?;
    let is_stream = matches!(client_side, ClientTunnel::H2(_));
    tokio::task::spawn_local(async move {
        tunnel(client_side, backend_side, over).await;
        drop((place, in_flight, connection_place));
    });
    let mut response = response.map(|()| ResponseBody::default());
    forward::clean(&mut response);
    keys.answer(response.headers_mut());
    if is_stream {
        *response.status_mut() = StatusCode::OK;
    } else {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        outgoing::ask_for_upgrade(response.headers_mut(), &protocol)?;
    }
    Ok(response)
}

fn failed(backend: &Arc<Backend>, what: String, refusal: Refusal) -> Refusal {
    backend.failed(what);
    refusal
}

fn switches_to<Body>(response: &Response<Body>, protocol: &str) -> bool {
    let named = response.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
    named.is_some_and(|named| named.eq_ignore_ascii_case(protocol.as_bytes()))
}

/// Copies until both directions have ended, one failed, or the tunnel is over.
async fn tunnel(client_side: ClientTunnel, backend: Tunnel, over: impl Future<Output = Over>) {
    // It comes once our answer is written. What the client sent before it read that, it sent as HTTP.
    let copied = async {
        let client = client_side.opened().await?;
        relay::relay(client.stream, (backend.stream, backend.early), over).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "tunnel broke off");
    }
}
