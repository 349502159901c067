//! Requests of one connection, one after the other: read the head, have it answered, write the response.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode, Version, header};
use hyper::body::Body;
use tokio::time::Instant;

use super::Foul;
use super::body::{Body1, Incoming};
use super::chunks::Decoder;
use super::encode::{self, Asker, BodyFraming};
use super::head::{Framing, LineEnds, RequestHead, Search, has_token};
use super::wire::{Io, Wire};
use crate::serve::body::{ClientBody, ResponseBody};
use crate::serve::respond::Refusal;
use crate::serve::timer::Timer;

/// For a client to read a last response before the connection is closed under bytes that it is still sending: closing at
/// once would reset the connection, and the response might never be seen.
const LINGER: Duration = Duration::from_secs(2);

/// What such a client may send meanwhile.
const LINGER_BYTES: usize = 1024 * 1024;

/// When a connection must end.
pub(crate) struct Ends<Stopping, HasStopped> {
    /// From the response before it until a head is complete.
    pub(crate) head_within: Duration,
    /// Once it is done, idle connections close.
    pub(crate) stopping: Stopping,
    /// Whether a connection closes after the response under way.
    pub(crate) has_stopped: HasStopped,
}

/// Serves a connection to its end.
pub(crate) async fn serve<Answer: Future<Output = Response<ResponseBody>>>(
    stream: Box<dyn Io>,
    ends: Ends<impl Future<Output = ()>, impl Fn() -> bool>,
    answer: impl Fn(Request<ClientBody>) -> Answer,
) -> io::Result<()> {
    let deadline = Instant::now() + ends.head_within;
    let mut connection = Connection {
        incoming: Rc::new(RefCell::new(Incoming::new(stream))),
        search: Search::new(LineEnds::Strict),
        deadline,
        timer: Timer::new(deadline),
        is_stopping: false,
    };
    let mut stopping = pin!(ends.stopping);
    while let Some(head) = poll_fn(|context| connection.poll_head(stopping.as_mut(), context)).await? {
        // Boxed, so that an idle connection has no room for it.
        let next = match head {
            Ok(head) => Box::pin(connection.exchange(head, &answer, &ends.has_stopped)).await?,
            Err(refusal) => return Box::pin(connection.refuse(refusal)).await,
        };
        if next == Next::Close {
            return Ok(());
        }
        connection.deadline = Instant::now() + ends.head_within;
    }
    Box::pin(connection.close()).await
}

struct Connection {
    incoming: Rc<RefCell<Incoming>>,
    /// For the end of the head under way.
    search: Search,
    /// For the head that is awaited.
    deadline: Instant,
    timer: Timer,
    is_stopping: bool,
}

/// What becomes of a connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

impl Connection {
    /// The next head; `None`: none will come.
    fn poll_head(
        &mut self,
        stopping: Pin<&mut impl Future<Output = ()>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Result<RequestHead, Refusal>>>> {
        let Incoming { wire, .. } = &mut *self.incoming.borrow_mut();
        loop {
            match self.search.end(&wire.inbox) {
                // RFC 9112 §2.2: empty lines before a request line are passed over.
                Ok(Some(EMPTY_LINE_BYTES)) => {
                    wire.inbox.advance(EMPTY_LINE_BYTES);
                    self.search = Search::new(LineEnds::Strict);
                    continue;
                }
                Ok(Some(length)) => {
                    self.search = Search::new(LineEnds::Strict);
                    let head = wire.inbox.split_to(length).freeze();
                    return Poll::Ready(Ok(Some(read_head(&head, wire).map_err(refusal))));
                }
                Err(foul) => return Poll::Ready(Ok(Some(Err(refusal(foul))))),
                Ok(None) => {}
            }
            if let Poll::Ready(read) = wire.poll_read_head(context) {
                match read? {
                    0 if wire.inbox.is_empty() => return Poll::Ready(Ok(None)),
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    _ => continue,
                }
            }
            self.is_stopping = self.is_stopping || stopping.poll(context).is_ready();
            if self.is_stopping && wire.inbox.is_empty() {
                return Poll::Ready(Ok(None));
            }
            ready!(self.timer.poll_past(self.deadline, context));
            let is_idle = wire.inbox.is_empty();
            return Poll::Ready(Ok((!is_idle).then_some(Err(Refusal::HeadTooSlow))));
        }
    }

    /// One request and its response.
    async fn exchange<Answer: Future<Output = Response<ResponseBody>>>(
        &mut self,
        head: RequestHead,
        answer: &impl Fn(Request<ClientBody>) -> Answer,
        has_stopped: &impl Fn() -> bool,
    ) -> io::Result<Next> {
        let (request, mut asker) = self.take(head);
        let answered = {
            let mut answer = pin!(answer(request));
            poll_fn(|context| self.poll_answer(answer.as_mut(), context)).await
        };
        let Some(response) = answered else { return Ok(Next::Close) };
        asker.keeps_alive &= !has_stopped();
        self.respond(response, asker).await
    }

    /// The request of a head, and what its response must go by.
    fn take(&mut self, head: RequestHead) -> (Request<ClientBody>, Asker) {
        let RequestHead { method, uri, version, headers, framing } = head;
        let says = |option: &str| has_token(&headers, &header::CONNECTION, option);
        let keeps_alive = match version {
            Version::HTTP_11 => !says("close"),
            _ => says("keep-alive") && !says("close"),
        };
        let asker = Asker {
            version,
            is_head: method == http::Method::HEAD,
            // After a request to upgrade nothing may follow but a tunnel.
            keeps_alive: keeps_alive && framing != Framing::Upgrade && !self.is_stopping,
            takes_trailers: has_token(&headers, &header::TE, "trailers"),
        };
        let mut incoming = self.incoming.borrow_mut();
        incoming.decoder = match framing {
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::chunked(),
            Framing::Upgrade => Decoder::Length(0),
        };
        incoming.waits_to_continue = version == Version::HTTP_11
            && !incoming.decoder.has_ended()
            && has_token(&headers, &header::EXPECT, "100-continue");
        let mut request = Request::new(ClientBody::Http1(Body1(self.incoming.clone())));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        (request, asker)
    }

    /// The answer; `None`: the client did not wait for it.
    fn poll_answer(
        &mut self,
        answer: Pin<&mut impl Future<Output = Response<ResponseBody>>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Response<ResponseBody>>> {
        match answer.poll(context) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => self.incoming.borrow_mut().poll_gone(context).map(|()| None),
        }
    }

    /// Answers what is no request, and closes.
    async fn refuse(&mut self, refusal: Refusal) -> io::Result<()> {
        self.incoming.borrow_mut().is_broken = true;
        let asker = Asker { version: Version::HTTP_11, is_head: false, keeps_alive: false, takes_trailers: false };
        self.respond(refusal.into_response(), asker).await.map(drop)
    }

    async fn respond(&mut self, response: Response<ResponseBody>, mut asker: Asker) -> io::Result<Next> {
        let (mut head, body) = response.into_parts();
        let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if !is_switch && head.headers.contains_key(header::CONNECTION) {
            asker.keeps_alive &= !has_token(&head.headers, &header::CONNECTION, "close");
            head.headers.remove(header::CONNECTION);
        }
        let length = body.size_hint().exact();
        let framing = {
            let incoming = &mut *self.incoming.borrow_mut();
            // Whoever was not told to go on will send its body, or not: nobody knows where the next request begins. And it is
            // too late to be told.
            let waited = std::mem::take(&mut incoming.waits_to_continue);
            asker.keeps_alive &= !waited && !incoming.is_broken && !incoming.is_far_from_next();
            encode::response_head(incoming.wire.outbox(), (head.status, &mut head.headers), length, asker)
        };
        let mut sending = Sending::of(body, head.status, framing, asker);
        poll_fn(|context| sending.poll(&self.incoming, context)).await?;
        drop(sending);
        if is_switch {
            self.incoming.borrow_mut().switch();
            return Ok(Next::Close);
        }
        if asker.keeps_alive {
            poll_fn(|context| {
                self.incoming.borrow_mut().drain(context);
                Poll::Ready(())
            })
            .await;
        }
        let is_clean = self.incoming.borrow_mut().is_between_requests();
        if asker.keeps_alive && framing != BodyFraming::UntilClose && is_clean {
            return Ok(Next::Request);
        }
        self.close().await?;
        Ok(Next::Close)
    }

    /// Says that nothing more will come, and lets the client read what did.
    async fn close(&mut self) -> io::Result<()> {
        let incoming = self.incoming.clone();
        poll_fn(|context| incoming.borrow_mut().wire.poll_shutdown(context)).await?;
        if incoming.borrow_mut().is_between_requests() && incoming.borrow().wire.inbox.is_empty() {
            return Ok(());
        }
        let mut left = LINGER_BYTES;
        let rest = poll_fn(|context| incoming.borrow_mut().wire.poll_discard(&mut left, context));
        let _ = tokio::time::timeout(LINGER, rest).await;
        Ok(())
    }
}

const EMPTY_LINE_BYTES: usize = 2;

fn read_head(head: &Bytes, wire: &Wire) -> Result<RequestHead, Foul> {
    let head = RequestHead::read(head)?;
    // What follows at once cannot be a tunnel's bytes: no response has agreed to one yet.
    if head.framing == Framing::Upgrade && !wire.inbox.is_empty() {
        return Err(Foul::Malformed);
    }
    Ok(head)
}

fn refusal(foul: Foul) -> Refusal {
    match foul {
        Foul::Malformed => Refusal::Malformed("This is no HTTP request, or one with more than one reading."),
        Foul::Version => Refusal::UnknownVersion,
        Foul::HeadTooLarge => Refusal::HeadTooLarge,
    }
}

/// A response's body on its way out.
struct Sending {
    body: Option<ResponseBody>,
    framing: BodyFraming,
    takes_trailers: bool,
    /// The connection ends behind it.
    is_last: bool,
    /// Why it cannot be completed.
    broken: Option<io::Error>,
}

impl Sending {
    fn of(body: ResponseBody, status: StatusCode, framing: BodyFraming, asker: Asker) -> Sending {
        // What has none must send none, whatever is there.
        let body = encode::has_body(status, asker.is_head).then_some(body);
        // Whoever switches protocols waits for this response before it goes on.
        let is_last = !asker.keeps_alive && status != StatusCode::SWITCHING_PROTOCOLS;
        Sending { body, framing, takes_trailers: asker.takes_trailers, is_last, broken: None }
    }

    fn poll(&mut self, incoming: &RefCell<Incoming>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let has_more = self.poll_gather(incoming, context).is_ready();
            let written = {
                let wire = &mut incoming.borrow_mut().wire;
                // What ends a connection leaves with its goodbye.
                match self.is_last && self.body.is_none() && self.broken.is_none() {
                    true => wire.poll_write(context),
                    false => wire.poll_write_out(context),
                }
            };
            if let (true, Some(body)) = (written.is_pending(), &self.body) {
                body.drive_request(context);
            }
            ready!(written)?;
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(error));
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if !has_more {
                return match incoming.borrow_mut().poll_gone(context) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    Poll::Pending => Poll::Pending,
                };
            }
        }
    }

    /// Puts together what can be written at once. Pending: the body has nothing more at the moment.
    fn poll_gather(&mut self, incoming: &RefCell<Incoming>, context: &mut Context<'_>) -> Poll<()> {
        while let Some(body) = &mut self.body {
            if incoming.borrow().wire.is_full() {
                break;
            }
            let frame = ready!(Pin::new(&mut *body).poll_frame(context));
            let has_ended = frame.is_none() || body.is_end_stream();
            let wire = &mut incoming.borrow_mut().wire;
            let mut trailers = None;
            match frame {
                None => {}
                Some(Err(error)) => {
                    self.broken = Some(io::Error::other(error.to_string()));
                    self.body = None;
                    break;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => wire.put(data, self.framing),
                    Err(frame) => trailers = frame.into_trailers().ok().filter(|_| self.takes_trailers),
                },
            }
            if has_ended || trailers.is_some() {
                if self.framing == BodyFraming::Chunked {
                    encode::last_chunk(wire.outbox(), trailers.as_ref());
                }
                self.body = None;
            }
        }
        Poll::Ready(())
    }
}
