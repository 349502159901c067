//! From a permitted request to a backend's response.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use lb_policy::Permit;
use tokio::time::Instant;

use crate::pool::{Backend, InFlight, Pool, Timeouts};
use crate::serve::access_log::Record;
use crate::serve::body::{Progress, RequestBody, ResponseBody};
use crate::serve::guard::names;
use crate::serve::request::Inbound;
use crate::serve::respond::Refusal;
use crate::serve::standing::Over;
use crate::serve::upstream::{self, Connection, Exchange, SendError};
use crate::serve::{outgoing, upgrade};

/// Backends that are tried for one request. When three do not even accept a connection, the next will hardly do, and
/// every further attempt is load on a pool in trouble.
const MAX_BACKENDS_TRIED: usize = 3;

/// Sends a request to a backend of `pool` and returns its response as it begins; the body follows as the client reads.
///
/// `permit` proves that the rules let it pass. `assertion` tells the backend who the user is and what was proved. A tunnel
/// ends when it is `over`.
/// Errors: [`Refusal::NoBackend`] (503), [`Refusal::BackendFailed`] (502), [`Refusal::BackendTooSlow`] (504), and for
/// what the client did, [`Refusal::ClientTooSlow`] (408) or [`Refusal::Malformed`] (400).
pub async fn forward(
    permit: Permit,
    pool: &Pool,
    mut request: Inbound,
    assertion: Option<HeaderValue>,
    over: impl Future<Output = Over> + 'static,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    // Used up: one decision forwards one request.
    let Permit { .. } = permit;
    let client_side = request.upgrade.take();
    let (head, body) = outgoing::split(request, assertion)?;
    if let Some((client_side, protocol)) = client_side {
        return upgrade::forward(pool, head, (client_side, protocol), over, record).await;
    }
    let (body, progress) = RequestBody::from_inbound(body);
    let mut message = Request::from_parts(head, body);
    let mut unreachable = Vec::new();
    let mut may_reuse = true;
    loop {
        let (mut connection, backend) = open(pool, may_reuse, &mut unreachable).await?;
        record.set_backend(backend.address);
        let spare = if connection.reused { copy(&message) } else { None };
        let in_flight = InFlight::begin(&backend);
        let answer = answer(&mut connection.inner, message, progress.as_deref(), pool.timeouts).await;
        let error = match answer {
            Ok(Ok(response)) => return Ok(respond(response, connection.inner, in_flight, progress)),
            Ok(Err(error)) => error,
            Err(refusal) => {
                if refusal == Refusal::BackendTooSlow {
                    backend.failed(format!("no response within {:?}", pool.timeouts.response));
                }
                return Err(refusal);
            }
        };
        if progress.as_ref().is_some_and(|progress| progress.has_failed()) {
            return Err(Refusal::Malformed("The request body broke off."));
        }
        message = match once_more(error, connection.reused, spare) {
            Ok(message) => message,
            Err(error) => {
                backend.failed(format!("no response: {error}"));
                return Err(Refusal::BackendFailed);
            }
        };
        may_reuse = false;
    }
}

/// A connection, and whether it has served before.
struct Opened {
    inner: Box<Connection>,
    reused: bool,
}

/// A connection to the pool's next backend, or to another when that one does not accept any. The request has not been
/// sent, so any request may go on to the next.
async fn open(
    pool: &Pool,
    may_reuse: bool,
    unreachable: &mut Vec<Arc<Backend>>,
) -> Result<(Opened, Arc<Backend>), Refusal> {
    try_backends(pool, unreachable, async |backend: &Backend| {
        if may_reuse && let Some(inner) = upstream::take_idle(backend.address).await {
            return Ok(Opened { inner, reused: true });
        }
        let inner = upstream::connect(backend.address, pool.timeouts.connect).await?;
        Ok(Opened { inner, reused: false })
    })
    .await
}

/// Opens something to one backend after another, until one accepts.
pub(super) async fn try_backends<Opened>(
    pool: &Pool,
    unreachable: &mut Vec<Arc<Backend>>,
    open: impl AsyncFn(&Backend) -> io::Result<Opened>,
) -> Result<(Opened, Arc<Backend>), Refusal> {
    loop {
        let Some(backend) = pool.pick(unreachable) else {
            return Err(if unreachable.is_empty() { Refusal::NoBackend } else { Refusal::BackendFailed });
        };
        match open(backend).await {
            Ok(opened) => return Ok((opened, backend.clone())),
            Err(error) => {
                backend.failed(format!("cannot connect: {error}"));
                unreachable.push(backend.clone());
                if unreachable.len() == MAX_BACKENDS_TRIED {
                    return Err(Refusal::BackendFailed);
                }
            }
        }
    }
}

/// The response's head, or why there is none. The clock starts anew whenever the request's body moves.
async fn answer(
    connection: &mut Connection,
    message: Request<RequestBody>,
    progress: Option<&Progress>,
    timeouts: Timeouts,
) -> Result<Result<Response<Incoming>, SendError>, Refusal> {
    let patience = || match progress {
        Some(progress) if !progress.has_ended() => timeouts.request_body,
        _ => timeouts.response,
    };
    let mut response = pin!(connection.send(message));
    let mut deadline = pin!(tokio::time::sleep(patience()));
    poll_fn(|context| {
        if let Poll::Ready(response) = response.as_mut().poll(context) {
            return Poll::Ready(Ok(response));
        }
        while deadline.as_mut().poll(context).is_ready() {
            match progress {
                Some(progress) if progress.take_moved() => deadline.as_mut().reset(after(patience())),
                Some(progress) if progress.waits_for_client() => return Poll::Ready(Err(Refusal::ClientTooSlow)),
                _ => return Poll::Ready(Err(Refusal::BackendTooSlow)),
            }
        }
        Poll::Pending
    })
    .await
}

fn after(patience: Duration) -> Instant {
    Instant::now() + patience
}

/// The message to send again, or the error where that is not safe: RFC 9110 §9.2.2 allows it for what was not sent at
/// all, and for idempotent methods. Only a connection that had served before may have been closed by the backend just
/// as we wrote; a new one that dies is the backend's failure.
fn once_more(
    mut error: SendError,
    reused: bool,
    spare: Option<Request<RequestBody>>,
) -> Result<Request<RequestBody>, hyper::Error> {
    let unsent = error.take_message();
    let error = error.into_error();
    let before_any_response = !error.is_parse() && !error.is_user();
    match unsent.or(spare) {
        Some(message) if reused && before_any_response => Ok(message),
        _ => Err(error),
    }
}

/// A copy of a request that may be sent twice.
fn copy(message: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent =
        matches!(*message.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    let body = if idempotent { message.body().again()? } else { return None };
    let mut copy = Request::new(body);
    *copy.method_mut() = message.method().clone();
    *copy.uri_mut() = message.uri().clone();
    *copy.headers_mut() = message.headers().clone();
    Some(copy)
}

fn respond(
    response: Response<Incoming>,
    connection: Box<Connection>,
    in_flight: InFlight,
    progress: Option<Rc<Progress>>,
) -> Response<ResponseBody> {
    let exchange = Exchange { connection, in_flight, progress };
    let mut response = response.map(|incoming| ResponseBody::from_backend(incoming, exchange));
    clean(&mut response);
    response
}

/// Makes a backend's response one of ours.
pub(super) fn clean<Body>(response: &mut Response<Body>) {
    // A backend that speaks HTTP/1.0 must not turn the client's connection into one.
    *response.version_mut() = Version::HTTP_11;
    names::strip_response(response.headers_mut());
}
