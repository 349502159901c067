//! One request and its response on an h2 connection to a backend. Whoever waits for the response moves the request's body
//! too, as over HTTP/1.1; only frames are the connection's own task's.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, Version, header, request};
use hyper::body::{Body, Frame};

use super::channel::{Channel, Seat};
use super::tunnel;
use crate::serve::body::RequestBody;
use crate::serve::guard::names;
use crate::serve::http1::Tunnel;
use crate::serve::http1::body::Interim;
use crate::serve::http1::client::{ExchangeError, MAX_INTERIMS};

/// An exchange.
pub(crate) struct Exchange {
    seat: Seat,
    /// Of the request, while there is more to come.
    upload: Option<Upload>,
    /// The request's body once more, where it is at hand.
    spare: Option<RequestBody>,
    /// Until the response's head has come.
    response: Option<ResponseFuture>,
    /// The response's body.
    receiving: Option<RecvStream>,
    /// Of a WebSocket.
    outward: Option<SendStream<Bytes>>,
    /// Bytes that were given on and that the backend may send anew.
    owed_bytes: usize,
    left_bytes: Option<u64>,
    has_answered: bool,
    has_ended: bool,
    interims: u8,
    /// Why there is no response.
    failed: Option<h2::Error>,
    /// The backend has not looked at the request.
    is_unprocessed: bool,
}

/// A request's body on its way out.
struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// A piece that waits for the backend's window, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// What was taken of the body so far, while it is little: for a backend that has not looked at it.
    taken: Option<Vec<Bytes>>,
    taken_bytes: usize,
}

/// Of a body that streams, so much is kept until the response begins.
const MAX_TAKEN_BYTES: usize = 64 * 1024;

impl Exchange {
    pub(crate) fn on(channel: &Rc<Channel>) -> Exchange {
        Exchange {
            seat: Seat::take(channel.clone()),
            upload: None,
            spare: None,
            response: None,
            receiving: None,
            outward: None,
            owed_bytes: 0,
            left_bytes: None,
            has_answered: false,
            has_ended: false,
            interims: 0,
            failed: None,
            is_unprocessed: false,
        }
    }

    pub(crate) fn channel(&self) -> &Rc<Channel> {
        &self.seat.0
    }

    /// Sends a request's head; [`Exchange::poll_response`] sends the body. Its headers must not speak of framing.
    pub(crate) fn begin(&mut self, head: &request::Parts, body: RequestBody) {
        let is_whole = body.is_end_stream();
        let sent = request_of(head, &self.seat.0.scheme, body.size_hint().exact())
            .and_then(|request| self.seat.0.send(request, is_whole));
        self.spare = body.again();
        match sent {
            Ok((response, stream)) => {
                self.response = Some(response);
                self.upload = (!is_whole).then(|| Upload::new(body, stream));
            }
            Err(error) => {
                self.spare = self.spare.take().or(Some(body));
                self.is_unprocessed = true;
                self.failed = Some(error);
            }
        }
    }

    /// Asks for a WebSocket (RFC 8441 §4).
    pub(crate) fn begin_websocket(&mut self, head: &request::Parts) {
        let sent = request_of(head, &self.seat.0.scheme, Some(0)).and_then(|mut request| {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            self.seat.0.send(request, false)
        });
        match sent {
            Ok((response, stream)) => (self.response, self.outward) = (Some(response), Some(stream)),
            Err(error) => self.failed = Some(error),
        }
    }

    /// The stream as a tunnel, once the response has come; `None`: it has not.
    pub(crate) fn into_tunnel(self) -> Option<Tunnel> {
        let stream = tunnel::Stream::new(self.outward?, self.receiving?, self.seat);
        Some(Tunnel { stream: Box::new(stream), early: Bytes::new() })
    }

    /// The response's head, which may come before the request's end; informational ones go to `interim`.
    pub(crate) fn poll_response(
        &mut self,
        interim: Option<&Interim>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, ExchangeError>> {
        if let Poll::Ready(Err(broken)) = self.poll_upload(context) {
            return Poll::Ready(Err(broken));
        }
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(self.failed.take().map_or(ExchangeError::Closed, ExchangeError::H2)));
        };
        // Looked for before the response, which would pass them over.
        while let Poll::Ready(Some(Ok(informational))) = response.poll_informational(context) {
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                return Poll::Ready(Err(ExchangeError::Foul));
            }
            if let Some(interim) = interim {
                let (head, ()) = informational.into_parts();
                interim.pass_on(head.status, head.headers, context);
            }
        }
        match ready!(Pin::new(response).poll(context)) {
            Ok(response) => Poll::Ready(Ok(self.take(response))),
            Err(error) => {
                self.is_unprocessed = is_unprocessed(&error);
                Poll::Ready(Err(error.into()))
            }
        }
    }

    fn take(&mut self, response: Response<RecvStream>) -> Response<()> {
        (self.has_answered, self.response, self.spare) = (true, None, None);
        let (head, receiving) = response.into_parts();
        self.has_ended = receiving.is_end_stream();
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        self.left_bytes = if self.has_ended { Some(0) } else { length };
        self.receiving = Some(receiving);
        Response::from_parts(head, ())
    }

    /// The next part of the response's body. The last one that was given has been taken: the backend may send as much anew.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if let Poll::Ready(Err(broken)) = self.poll_upload(context) {
            return Poll::Ready(Some(Err(broken)));
        }
        let Some(receiving) = &mut self.receiving else { return Poll::Ready(None) };
        if self.has_ended {
            return Poll::Ready(None);
        }
        let owed_bytes = std::mem::take(&mut self.owed_bytes);
        if owed_bytes > 0
            && let Err(error) = receiving.flow_control().release_capacity(owed_bytes)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        while let Some(data) = ready!(receiving.poll_data(context)) {
            let data = match data {
                Ok(data) => data,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            };
            self.has_ended = receiving.is_end_stream();
            if data.is_empty() {
                continue;
            }
            self.owed_bytes = data.len();
            self.left_bytes = self.left_bytes.map(|left| left.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(receiving.poll_trailers(context));
        self.has_ended = true;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error.into())),
        })
    }

    /// Moves the request's body on, while nobody can take more of the response.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        // What becomes of it the response tells.
        let _ = self.poll_upload(context);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn left_bytes(&self) -> Option<u64> {
        self.left_bytes
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// The backend said that it has not looked at the request, or it never left.
    pub(crate) fn is_unprocessed(&self) -> bool {
        self.is_unprocessed
    }

    /// The request's body, if all of it is here.
    pub(crate) fn take_body(&mut self) -> Option<RequestBody> {
        self.spare.take().or_else(|| self.upload.take().and_then(Upload::again))
    }

    /// Sends what is to be sent and there. Ready also when the backend wants no more: what it makes of that, its response
    /// tells.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        let sent = ready!(upload.poll(context));
        let again = self.upload.take().filter(|_| !self.has_answered).and_then(Upload::again);
        self.spare = self.spare.take().or(again);
        Poll::Ready(match sent {
            Err(broken @ ExchangeError::RequestBroken) => Err(broken),
            Ok(()) | Err(_) => Ok(()),
        })
    }
}

impl Upload {
    fn new(body: RequestBody, stream: SendStream<Bytes>) -> Upload {
        Upload { body, stream, waiting: None, taken: Some(Vec::new()), taken_bytes: 0 }
    }

    /// The body as it was.
    fn again(self) -> Option<RequestBody> {
        let body = self.body;
        self.taken.map(|taken| RequestBody::begun_anew(taken, body))
    }

    fn keep(&mut self, data: &Bytes) {
        self.taken_bytes += data.len();
        match &mut self.taken {
            Some(taken) if self.taken_bytes <= MAX_TAKEN_BYTES => taken.push(data.clone()),
            taken => *taken = None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        loop {
            if let Some((_, is_last)) = self.waiting {
                ready!(self.poll_window(context))?;
                let data = self.waiting.take().map(|(data, _)| data).unwrap_or_default();
                self.stream.send_data(data, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            let frame = match frame {
                None => return Poll::Ready(Ok(self.stream.send_data(Bytes::new(), true)?)),
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(ExchangeError::RequestBroken));
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    // A claim on the window that others share, and no more before it is there: whoever claims much and
                    // waits would keep it from those who could send.
                    self.keep(&data);
                    self.stream.reserve_capacity(1);
                    self.waiting = Some((data, self.body.is_end_stream()));
                }
                Err(frame) => {
                    self.taken = None;
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    names::strip_request_trailers(&mut trailers);
                    self.stream.reserve_capacity(0);
                    return Poll::Ready(Ok(self.stream.send_trailers(trailers)?));
                }
            }
        }
    }

    /// Ready when the backend takes something.
    fn poll_window(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(ExchangeError::Closed)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// RFC 9113 §8.7: a refused stream, and one beyond the last that a GOAWAY names, was not looked at.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
}

/// `length`: of the body; `None`: not known.
fn request_of(head: &request::Parts, scheme: &Scheme, length: Option<u64>) -> Result<Request<()>, h2::Error> {
    const NO_REQUEST: Reason = Reason::PROTOCOL_ERROR;
    let mut headers = head.headers.clone();
    let host = headers.remove(header::HOST).ok_or(NO_REQUEST)?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme.clone());
    uri.authority =
        Some(Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).map_err(|_| NO_REQUEST)?);
    uri.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    // Whoever asked, trailers are read here; servers of gRPC insist on it.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    match length {
        // RFC 9110 §8.6: where a body is usual its absence is told.
        Some(0) if !matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {}
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        None => {}
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| NO_REQUEST)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("has_answered", &self.has_answered).finish_non_exhaustive()
    }
}
