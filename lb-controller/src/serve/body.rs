//! Bodies in both directions, streamed frame by frame: a frame is asked for when the other side has taken the last.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::serve::access_log::Record;
use crate::serve::guard::names;
use crate::serve::http1::body::{Body1, BrokenBody};
use crate::serve::http1::client::ExchangeError;
use crate::serve::mirror::BodyCopy;
use crate::serve::pause::Pause;
use crate::serve::request::InboundBody;
use crate::serve::stalled::Holder;
use crate::serve::standing::Over;
use crate::serve::upstream::Exchange;

/// The body of every response: our own bytes, or a backend's stream. When dropped it writes the access log's line,
/// since only then it is known how much was sent.
#[derive(Default)]
pub struct ResponseBody {
    source: Source,
    record: Option<Box<Record>>,
    ending: Option<Ending>,
}

/// When a stream must end though its backend goes on, and how its client is told.
struct Ending {
    over: Pin<Box<dyn Future<Output = Over>>>,
    manner: Manner,
    is_over: bool,
}

/// How a client learns that a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Server-sent events: the stream ends, and the client asks for it again.
    Quietly,
    /// gRPC: by its status, in trailers.
    GrpcStatus,
    /// Whatever came so far must not pass for the whole.
    BrokenOff,
}

#[derive(Debug)]
enum Source {
    Own(Full<Bytes>),
    Backend(BackendBody),
}

impl Default for Source {
    fn default() -> Source {
        Source::Own(Full::default())
    }
}

/// A backend's response body, and the connection it arrives on.
#[derive(Debug)]
pub(crate) struct BackendBody {
    holder: Rc<Holder>,
    /// Bytes still to come, where that is known.
    left_bytes: Option<u64>,
    has_ended: bool,
    pause: Pause,
}

/// The body of a request as it comes from its client.
#[derive(Debug)]
pub enum ClientBody {
    Http1(Body1),
    H2(Incoming),
}

/// Why the body of a request broke off.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    #[error("{0}")]
    Http1(#[from] BrokenBody),
    #[error("{0}")]
    H2(#[from] hyper::Error),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            ClientBody::Http1(body) => Pin::new(body).poll_frame(context).map_err(ClientBodyError::from),
            ClientBody::H2(body) => Pin::new(body).poll_frame(context).map_err(ClientBodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Http1(body) => body.is_end_stream(),
            ClientBody::H2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Http1(body) => body.size_hint(),
            ClientBody::H2(body) => body.size_hint(),
        }
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("{0}")]
    Broken(#[from] ExchangeError),
    #[error("the client stopped reading")]
    ClientStalled,
    #[error("{0}")]
    Over(&'static str),
}

impl ResponseBody {
    /// A backend's, which may make a `pause`.
    pub(crate) fn from_backend(exchange: Exchange, pause: Pause) -> ResponseBody {
        let (left_bytes, has_ended) = (exchange.left_bytes(), exchange.has_ended());
        let body = BackendBody { holder: Holder::new(exchange), left_bytes, has_ended, pause };
        if has_ended {
            body.finish();
        }
        ResponseBody { source: Source::Backend(body), record: None, ending: None }
    }

    /// A backend's answer whose end is not known.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.source, Source::Backend(_)) && !self.is_end_stream() && self.size_hint().exact().is_none()
    }

    /// Ends the stream once `over` is done.
    pub(crate) fn end_when(&mut self, over: impl Future<Output = Over> + 'static, manner: Manner) {
        self.ending = Some(Ending { over: Box::pin(over), manner, is_over: false });
    }

    /// Moves the request's body on, while the client takes no more of the response: it may wait for that itself.
    pub(crate) fn drive_request(&self, context: &mut Context<'_>) {
        if let Source::Backend(body) = &self.source {
            body.holder.drive(context);
        }
    }

    /// The last frame, if the stream must end here.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Option<Option<Result<Frame<Bytes>, BodyError>>> {
        let ending = self.ending.as_mut()?;
        if ending.is_over {
            return Some(None);
        }
        let Poll::Ready(over) = ending.over.as_mut().poll(context) else { return None };
        ending.is_over = true;
        let last = match ending.manner {
            Manner::Quietly => None,
            Manner::GrpcStatus => Some(Ok(Frame::trailers(grpc_trailers(over)))),
            Manner::BrokenOff => Some(Err(BodyError::Over(over.text()))),
        };
        // The backend's connection goes with it.
        self.source = Source::default();
        Some(last)
    }

    /// Hands the request's record over: it is written when the body has been sent or given up.
    pub(crate) fn recorded(mut self, record: Box<Record>) -> ResponseBody {
        self.record = Some(record);
        self
    }
}

impl From<Full<Bytes>> for ResponseBody {
    fn from(own: Full<Bytes>) -> ResponseBody {
        ResponseBody { source: Source::Own(own), record: None, ending: None }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(own: Bytes) -> ResponseBody {
        Full::new(own).into()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let last = body.poll_over(context);
        let ResponseBody { source, record, .. } = body;
        let frame = match (last, source) {
            (Some(last), _) => Poll::Ready(last),
            (None, Source::Own(own)) => Pin::new(own).poll_frame(context).map_err(|never| match never {}),
            (None, Source::Backend(body)) => body.poll_frame(context),
        };
        if let (Poll::Ready(frame), Some(record)) = (&frame, record) {
            match frame {
                Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => record.broken(error),
                None => {}
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(own) => own.is_end_stream(),
            Source::Backend(body) => body.has_ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(own) => own.size_hint(),
            Source::Backend(body) => body.left_bytes.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl BackendBody {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.holder.asked();
        if self.holder.was_released() {
            return Poll::Ready(Some(Err(BodyError::ClientStalled)));
        }
        // Nobody else polls the connection: it has no task of its own.
        let frame = match self.holder.poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let holder = &self.holder;
                Some(Err(ready!(
                    self.pause.poll_over(|deadline, context| holder.poll_past(deadline, context), context)
                )))
            }
        };
        let Some(mut frame) = frame else {
            self.has_ended = true;
            self.finish();
            return Poll::Ready(None);
        };
        self.pause.moved();
        match &mut frame {
            Err(error) => {
                if let Some(exchange) = self.holder.take() {
                    exchange.fail(error);
                }
            }
            Ok(frame) => self.gave(frame),
        }
        Poll::Ready(Some(frame.map_err(BodyError::from)))
    }

    fn gave(&mut self, frame: &mut Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_mut() {
            names::strip_response(trailers);
        }
        (self.left_bytes, self.has_ended) = self.holder.state();
        if self.has_ended {
            self.finish();
        } else {
            self.holder.gave();
        }
    }

    /// The response is complete: its connection may serve another.
    fn finish(&self) {
        if let Some(exchange) = self.holder.take() {
            exchange.finish();
        }
    }
}

/// The body of a request on its way to a backend.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Whole(Full<Bytes>),
    Streaming {
        incoming: ClientBody,
        progress: Rc<Progress>,
        copy: Option<Rc<BodyCopy>>,
    },
    /// One that streams, of which these pieces have been taken before.
    Anew {
        pieces: VecDeque<Bytes>,
        rest: Box<RequestBody>,
    },
}

/// How a streamed request body is getting on; whoever waits for the response reads it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Something moved since it was last asked.
    moved: Cell<bool>,
    /// The client owes us bytes.
    waits_for_client: Cell<bool>,
    ended: Cell<bool>,
    /// The client broke off, or its framing was foul.
    failed: Cell<bool>,
}

impl Progress {
    /// Whether anything moved since the last call.
    pub(crate) fn take_moved(&self) -> bool {
        self.moved.replace(false)
    }

    pub(crate) fn waits_for_client(&self) -> bool {
        self.waits_for_client.get() && !self.ended.get()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }
}

impl RequestBody {
    /// The body to send, and how to follow it when it streams.
    pub(crate) fn from_inbound(body: InboundBody, copy: Option<Rc<BodyCopy>>) -> (RequestBody, Option<Rc<Progress>>) {
        match body {
            InboundBody::Whole(bytes) => (RequestBody::Whole(Full::new(bytes)), None),
            InboundBody::Streaming(incoming) if incoming.is_end_stream() => (RequestBody::default(), None),
            InboundBody::Streaming(incoming) => {
                let progress = Rc::new(Progress::default());
                (RequestBody::Streaming { incoming, progress: progress.clone(), copy }, Some(progress))
            }
        }
    }

    /// `body` as it was before these pieces were taken of it.
    pub(crate) fn begun_anew(taken: Vec<Bytes>, body: RequestBody) -> RequestBody {
        match taken.is_empty() {
            true => body,
            false => RequestBody::Anew { pieces: taken.into(), rest: Box::new(body) },
        }
    }

    /// A second copy, where the bytes are at hand.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        match self {
            RequestBody::Whole(bytes) => Some(RequestBody::Whole(bytes.clone())),
            RequestBody::Streaming { .. } | RequestBody::Anew { .. } => None,
        }
    }
}

/// Lets a copy have what passes. Trailers, which are not sent on, end it too.
fn follow(copy: &BodyCopy, frame: Option<&Result<Frame<Bytes>, ClientBodyError>>, is_last: bool) {
    match frame {
        Some(Ok(frame)) => match frame.data_ref() {
            Some(piece) => copy.passed(piece),
            None => copy.ended(),
        },
        // Broken off, so never whole.
        Some(Err(_)) => return,
        None => copy.ended(),
    }
    // Whoever sends it on may not ask again.
    if is_last {
        copy.ended();
    }
}

impl Default for RequestBody {
    fn default() -> RequestBody {
        RequestBody::Whole(Full::default())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self.get_mut() {
            RequestBody::Whole(bytes) => Pin::new(bytes).poll_frame(context).map_err(|never| match never {}),
            RequestBody::Anew { pieces, rest } => match pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => Pin::new(&mut **rest).poll_frame(context),
            },
            RequestBody::Streaming { incoming, progress, copy } => {
                let frame = Pin::new(&mut *incoming).poll_frame(context);
                progress.waits_for_client.set(frame.is_pending());
                progress.moved.set(progress.moved.get() || frame.is_ready());
                if let (Some(copy), Poll::Ready(frame)) = (&*copy, &frame) {
                    follow(copy, frame.as_ref(), incoming.is_end_stream());
                }
                match frame {
                    // Headers that no guard has seen: whoever sends them on looks at them first, or drops them as RFC 9110
                    // §6.5.1 allows.
                    Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                        progress.ended.set(true);
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Poll::Ready(None) => {
                        progress.ended.set(true);
                        Poll::Ready(None)
                    }
                    Poll::Ready(Some(Err(error))) => {
                        progress.failed.set(true);
                        Poll::Ready(Some(Err(error)))
                    }
                    frame => frame,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Whole(bytes) => bytes.is_end_stream(),
            RequestBody::Anew { pieces, rest } => pieces.is_empty() && rest.is_end_stream(),
            RequestBody::Streaming { incoming, progress, .. } => {
                let ended = incoming.is_end_stream();
                progress.ended.set(progress.ended.get() || ended);
                ended
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Whole(bytes) => bytes.size_hint(),
            RequestBody::Streaming { incoming, .. } => incoming.size_hint(),
            RequestBody::Anew { pieces, rest } => {
                let taken: usize = pieces.iter().map(Bytes::len).sum();
                let exact = rest.size_hint().exact();
                exact.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + taken as u64))
            }
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").field("source", &self.source).finish_non_exhaustive()
    }
}

fn grpc_trailers(over: Over) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(over.grpc_status()));
    trailers.insert("grpc-message", HeaderValue::from_static(over.text()));
    trailers
}
