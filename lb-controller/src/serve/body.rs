//! Bodies in both directions, streamed frame by frame: a frame is asked for when the other side has taken the last.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::serve::access_log::Record;
use crate::serve::guard::names;
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
    incoming: Incoming,
    /// `None`: the connection is driven elsewhere.
    holder: Option<Rc<Holder>>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    #[error("the client stopped reading")]
    ClientStalled,
    #[error("{0}")]
    Over(&'static str),
}

impl ResponseBody {
    pub(crate) fn from_backend(incoming: Incoming, exchange: Exchange) -> ResponseBody {
        let body = BackendBody { incoming, holder: Some(Holder::new(exchange)) };
        if body.incoming.is_end_stream() {
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
            Source::Backend(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(own) => own.size_hint(),
            Source::Backend(body) => body.incoming.size_hint(),
        }
    }
}

impl BackendBody {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(holder) = &self.holder {
            holder.asked();
            if holder.was_released() {
                return Poll::Ready(Some(Err(BodyError::ClientStalled)));
            }
        }
        let mut frame = Pin::new(&mut self.incoming).poll_frame(context);
        if frame.is_pending()
            && let Some(holder) = &self.holder
        {
            // Nobody else polls the connection: it has no task of its own.
            holder.with(|exchange| exchange.drive(context));
            frame = Pin::new(&mut self.incoming).poll_frame(context);
        }
        match &mut frame {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(error))) => {
                if let Some(exchange) = self.holder.as_ref().and_then(|holder| holder.take()) {
                    exchange.fail(error);
                }
            }
            Poll::Ready(Some(Ok(frame))) => self.gave(frame),
            Poll::Pending => {}
        }
        frame.map_err(BodyError::from)
    }

    fn gave(&self, frame: &mut Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_mut() {
            names::strip_response(trailers);
        }
        if self.incoming.is_end_stream() {
            self.finish();
        } else if let Some(holder) = &self.holder {
            holder.gave();
        }
    }

    /// The response is complete: its connection may serve another.
    fn finish(&self) {
        if let Some(exchange) = self.holder.as_ref().and_then(|holder| holder.take()) {
            exchange.finish();
        }
    }
}

/// The body of a request on its way to a backend.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Whole(Full<Bytes>),
    Streaming { incoming: Incoming, progress: Rc<Progress> },
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
    pub(crate) fn from_inbound(body: InboundBody) -> (RequestBody, Option<Rc<Progress>>) {
        match body {
            InboundBody::Whole(bytes) => (RequestBody::Whole(Full::new(bytes)), None),
            InboundBody::Streaming(incoming) if incoming.is_end_stream() => (RequestBody::default(), None),
            InboundBody::Streaming(incoming) => {
                let progress = Rc::new(Progress::default());
                (RequestBody::Streaming { incoming, progress: progress.clone() }, Some(progress))
            }
        }
    }

    /// A second copy, where the bytes are at hand.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        match self {
            RequestBody::Whole(bytes) => Some(RequestBody::Whole(bytes.clone())),
            RequestBody::Streaming { .. } => None,
        }
    }
}

impl Default for RequestBody {
    fn default() -> RequestBody {
        RequestBody::Whole(Full::default())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            RequestBody::Whole(bytes) => Pin::new(bytes).poll_frame(context).map_err(|never| match never {}),
            RequestBody::Streaming { incoming, progress } => {
                let frame = Pin::new(incoming).poll_frame(context);
                progress.waits_for_client.set(frame.is_pending());
                progress.moved.set(progress.moved.get() || frame.is_ready());
                match frame {
                    // Trailers are headers that no guard has seen (RFC 9110 §6.5.1 lets us drop them).
                    Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                        progress.ended.set(true);
                        Poll::Ready(None)
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
            RequestBody::Streaming { incoming, progress } => {
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
        }
    }
}

impl From<Incoming> for ResponseBody {
    /// A backend's stream whose connection is driven elsewhere.
    fn from(incoming: Incoming) -> ResponseBody {
        ResponseBody { source: Source::Backend(BackendBody { incoming, holder: None }), record: None, ending: None }
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
