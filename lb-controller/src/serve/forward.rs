//! From a permitted request to a backend's response.

mod hedge;

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderValue, Method, Response, request};
use lb_policy::Permit;
use tokio::time::Instant;

use crate::pool::{Backend, InFlight, Timeouts};
use crate::serve::access_log::Record;
use crate::serve::body::{Progress, RequestBody, ResponseBody};
use crate::serve::guard::names;
use crate::serve::http1::body::Interim;
use crate::serve::http1::client::ExchangeError;
use crate::serve::pause::Pause;
use crate::serve::request::Inbound;
use crate::serve::respond::Refusal;
use crate::serve::standing::Over;
use crate::serve::target::Target;
use crate::serve::tries::{Failure, Tries};
use crate::serve::upstream::{self, ConnectError, Connection, Exchange};
use crate::serve::{outgoing, upgrade};
use crate::traces::TryEnd;

/// Sends a request to a backend of its `target` and returns its response as it begins; the body follows as the client reads.
///
/// `permit` proves that the rules let it pass. `assertion` tells the backend who the user is and what was proved. A tunnel
/// ends when it is `over`.
/// Errors: [`Refusal::NoBackend`] and [`Refusal::Overloaded`] (503), [`Refusal::BackendFailed`] (502), [`Refusal::BackendTooSlow`] (504), and for
/// what the client did, [`Refusal::ClientTooSlow`] (408) or [`Refusal::Malformed`] (400).
pub async fn forward(
    permit: Permit,
    target: &Target<'_>,
    mut request: Box<Inbound>,
    assertion: Option<HeaderValue>,
    over: impl Future<Output = Over> + 'static,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    // Used up: one decision forwards one request.
    let Permit { .. } = permit;
    let (client_side, body_copy) = (request.upgrade.take(), request.onward.body_copy.take());
    let interim = request.onward.interim.take();
    let (mut head, body) = outgoing::split(request, assertion)?;
    if let Some((client_side, protocol)) = client_side {
        return Box::pin(upgrade::forward(target, head, (client_side, protocol), over, record)).await;
    }
    let (body, progress) = RequestBody::from_inbound(body, body_copy);
    let client = ClientSide { progress: progress.as_ref(), interim: interim.as_ref() };
    let sending = send(target, &mut head, body, client, record);
    match target.timeouts.overall {
        None => sending.await,
        Some(overall) => tokio::time::timeout(overall, sending).await.unwrap_or(Err(Refusal::BackendTooSlow)),
    }
}

/// Sends a request to one backend after another, as often as it may be tried.
async fn send(
    target: &Target<'_>,
    head: &mut request::Parts,
    mut body: RequestBody,
    client: ClientSide<'_>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let progress = client.progress;
    let (mut tries, mut may_reuse, mut was_refused) = (Tries::new(target), true, false);
    loop {
        let since = record.mark();
        let opened = open(&mut tries, may_reuse).await;
        record.not_connected(since, &tries.take_not_connected());
        let opened = opened.inspect_err(|_| tries.tell(record))?;
        record.begin_try(opened.backend().address, opened.at.into_std(), &mut head.headers);
        let spare = body.again().filter(|_| is_idempotent(&head.method));
        let Tried { mut opened, answer } = match (target.timeouts.hedge_after, &spare) {
            (Some(after), Some(spare)) => {
                Box::pin(hedge::ask(&mut tries, after, opened, (&*head, body, spare), record)).await
            }
            _ => ask(opened, (&*head, body), client, target.timeouts).await,
        };
        record.end_try(&target.pool.name, end_of(&answer));
        body = match answer {
            Ok(Ok(response)) => {
                match spare.filter(|_| tries.again(Failure::Status(response.status()), opened.backend())) {
                    Some(again) => {
                        opened.in_flight.answered(response.status());
                        again
                    }
                    None => {
                        let pause = Pause::new(target.timeouts.response_body, progress.cloned());
                        return Ok(pass_on(target, response, opened, pause));
                    }
                }
            }
            Ok(Err(_)) if progress.is_some_and(|progress| progress.has_failed()) => {
                return Err(Refusal::Malformed("The request body broke off."));
            }
            Ok(Err(error)) => match once_more(&mut opened.connection, spare) {
                // What the backend has not looked at is sent anew once, as when its connection was ending.
                Some(again) if opened.connection.is_refused() && !was_refused => {
                    was_refused = true;
                    again
                }
                // Only a connection that had served before may have been closed by the backend just as we wrote.
                Some(again) if opened.reused && may_reuse && opened.connection.ended_by(&error) => {
                    may_reuse = false;
                    again
                }
                again => {
                    let error = format!("no response: {error}");
                    record.failed(&error);
                    opened.backend().failed(error);
                    let failure = if opened.connection.is_refused() { Failure::Refused } else { Failure::Reset };
                    again.filter(|_| tries.again(failure, opened.backend())).ok_or(Refusal::BackendFailed)?
                }
            },
            Err(Refusal::BackendTooSlow) => {
                opened.backend().failed(format!("no response within {:?}", target.timeouts.response));
                spare.filter(|_| tries.again(Failure::TooSlow, opened.backend())).ok_or(Refusal::BackendTooSlow)?
            }
            Err(refusal) => return Err(refusal),
        };
    }
}

fn end_of(answer: &Result<Result<Response<()>, ExchangeError>, Refusal>) -> TryEnd {
    match answer {
        Ok(Ok(response)) => TryEnd::Answered(response.status()),
        Ok(Err(_)) => TryEnd::Failed("reset"),
        Err(Refusal::BackendTooSlow) => TryEnd::Failed("timeout"),
        Err(_) => TryEnd::Failed("client"),
    }
}

fn pass_on(target: &Target<'_>, mut response: Response<()>, opened: Opened, pause: Pause) -> Response<ResponseBody> {
    let Opened { connection, mut in_flight, .. } = opened;
    target.answered(&mut response, &mut in_flight);
    respond(response, Exchange { connection, in_flight }, pause)
}

/// A connection for one request.
struct Opened {
    connection: Box<Connection>,
    /// It has served before.
    reused: bool,
    in_flight: InFlight,
    /// When it was there.
    at: Instant,
}

impl Opened {
    fn backend(&self) -> &Arc<Backend> {
        self.in_flight.backend()
    }
}

/// What came of one try.
struct Tried {
    opened: Opened,
    answer: Result<Result<Response<()>, ExchangeError>, Refusal>,
}

/// What is known of the client while its backend is asked.
#[derive(Clone, Copy, Default)]
struct ClientSide<'a> {
    /// Of a body that streams.
    progress: Option<&'a Rc<Progress>>,
    /// For what comes before the response.
    interim: Option<&'a Interim>,
}

/// One try.
async fn ask(
    mut opened: Opened,
    (head, body): (&request::Parts, RequestBody),
    client: ClientSide<'_>,
    timeouts: Timeouts,
) -> Tried {
    opened.connection.begin(head, body);
    opened.in_flight.sent(opened.at.into_std());
    let answer = answer(&mut opened, client, timeouts).await;
    Tried { opened, answer }
}

/// A connection to the pool's next backend, or to another when that one does not accept any. The request has not been
/// sent, so any request may go on to the next.
async fn open(tries: &mut Tries<'_>, may_reuse: bool) -> Result<Opened, Refusal> {
    let target = tries.target();
    let may_reuse = may_reuse && target.preface.is_empty();
    let (dial, timeout) = (&*target.pool.dial, target.timeouts.connect);
    let connect = async |backend: &Arc<Backend>| {
        if may_reuse && let Some(connection) = upstream::take_idle(dial, backend).await {
            return Ok((connection, true));
        }
        Ok((Box::pin(upstream::connect(dial, backend, timeout, &target.preface)).await?, false))
    };
    let ((connection, reused), in_flight) = try_backends(tries, connect).await?;
    Ok(Opened { connection, reused, in_flight, at: Instant::now() })
}

/// Opens something to one backend after another, until one accepts.
pub(super) async fn try_backends<Opened>(
    tries: &mut Tries<'_>,
    open: impl AsyncFn(&Arc<Backend>) -> Result<Opened, ConnectError>,
) -> Result<(Opened, InFlight), Refusal> {
    loop {
        let in_flight = tries.pick().await?;
        match open(in_flight.backend()).await {
            Ok(opened) => return Ok((opened, in_flight)),
            Err(error) => tries.not_connected(in_flight, error)?,
        }
    }
}

/// The response's head, or why there is none. The clock starts anew whenever the request's body moves.
async fn answer(
    Opened { connection, at, .. }: &mut Opened,
    ClientSide { progress, interim }: ClientSide<'_>,
    timeouts: Timeouts,
) -> Result<Result<Response<()>, ExchangeError>, Refusal> {
    let patience = || match progress {
        Some(progress) if !progress.has_ended() => timeouts.request_body,
        _ => timeouts.response,
    };
    let mut deadline = *at + patience();
    poll_fn(|context| {
        if let Poll::Ready(response) = connection.poll_response(interim, context) {
            return Poll::Ready(Ok(response));
        }
        while connection.poll_past(deadline, context).is_ready() {
            match progress {
                Some(progress) if progress.take_moved() => deadline = Instant::now() + patience(),
                Some(progress) if progress.waits_for_client() => return Poll::Ready(Err(Refusal::ClientTooSlow)),
                _ => return Poll::Ready(Err(Refusal::BackendTooSlow)),
            }
        }
        Poll::Pending
    })
    .await
}

/// The body to send again, where that is safe: RFC 9110 §9.2.2 allows it for what was not sent at all, and for idempotent
/// methods, of which `spare` is a second copy. Only a connection that had served before may have been closed by the backend
/// just as we wrote; a new one that dies is the backend's failure.
fn once_more(connection: &mut Connection, spare: Option<RequestBody>) -> Option<RequestBody> {
    let unsent = connection.take_body().filter(|_| connection.is_unsent());
    unsent.or(spare).filter(|_| !connection.has_answered())
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

pub(super) fn respond(response: Response<()>, exchange: Exchange, pause: Pause) -> Response<ResponseBody> {
    let mut response = response.map(|()| ResponseBody::from_backend(exchange, pause));
    clean(&mut response);
    response
}

/// Makes a backend's response one of ours.
pub(super) fn clean<Body>(response: &mut Response<Body>) {
    names::strip_response(response.headers_mut());
}
