//! A connection to a backend: one request and its response at a time. Whoever waits for the response moves the request's
//! body too, so an exchange needs no task of its own and no wake-up between two.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request};
use hyper::body::{Body, Frame};

use super::body::Interim;
use super::chunks::{self, Decoded, Decoder, Piece};
use super::encode::{self, BodyFraming};
use super::head::{LineEnds, Search};
use super::response_head::{ResponseFraming, ResponseHead};
use super::wire::{Io, Tunnel, Wire};
use crate::serve::body::RequestBody;

/// Why there is no response, or no rest of one.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("the backend closed the connection")]
    Closed,
    #[error("the response is malformed")]
    Foul,
    #[error("the request's body broke off")]
    RequestBroken,
    #[error("nothing of the response came for {0:?}")]
    Silent(Duration),
    #[error("nothing came for {0:?}, of the request neither")]
    BothSilent(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    H2(#[from] h2::Error),
}

/// Informational responses before one response. One or two are usual; a backend that sends them without end has none.
pub(crate) const MAX_INTERIMS: u8 = 32;

/// A connection to a backend.
pub(crate) struct Connection {
    wire: Wire,
    /// Of the request under way, while it has more to come.
    upload: Option<Upload>,
    method: Method,
    search: Search,
    /// Of the response under way.
    decoder: Decoder,
    /// Another request may follow once this response has ended.
    keeps_alive: bool,
    /// Something of the response to the request under way has come.
    has_answered: bool,
    /// The request under way asked for another protocol.
    may_switch: bool,
    /// Informational responses to it so far.
    interims: u8,
}

/// A request's body on its way out.
struct Upload {
    body: RequestBody,
    framing: BodyFraming,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Io>) -> Connection {
        Connection {
            wire: Wire::new(stream),
            upload: None,
            method: Method::GET,
            search: Search::new(LineEnds::Lenient),
            decoder: Decoder::Length(0),
            keeps_alive: true,
            has_answered: false,
            may_switch: false,
            interims: 0,
        }
    }

    /// Whether the backend has closed it, or said something unasked, while it was idle.
    pub(crate) fn is_stale(&mut self, context: &mut Context<'_>) -> bool {
        !self.wire.inbox.is_empty() || self.wire.poll_read_head(context).is_ready()
    }

    /// Puts a request together; [`Connection::poll_response`] sends it. Its headers must not speak of framing.
    pub(crate) fn begin(&mut self, head: &request::Parts, body: RequestBody) {
        let length = body.size_hint().exact();
        let framing = encode::request_head(self.wire.outbox(), head, length);
        self.wire.sent_bytes = 0;
        self.method = head.method.clone();
        self.search = Search::new(LineEnds::Lenient);
        self.has_answered = false;
        self.interims = 0;
        self.may_switch = head.headers.contains_key(header::UPGRADE);
        self.upload = (!body.is_end_stream()).then_some(Upload { body, framing });
    }

    /// The response's head. A response that comes before the request's end is one, too; informational ones go to `interim`.
    pub(crate) fn poll_response(
        &mut self,
        interim: Option<&Interim>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, ExchangeError>> {
        let uploaded = self.poll_upload(context);
        if let Poll::Ready(Err(broken @ ExchangeError::RequestBroken)) = uploaded {
            return Poll::Ready(Err(broken));
        }
        loop {
            match self.search.end(&self.wire.inbox).map_err(|_| ExchangeError::Foul)? {
                Some(length) => {
                    let head = self.wire.inbox.split_to(length).freeze();
                    self.search = Search::new(LineEnds::Lenient);
                    let head = ResponseHead::read(&head, &self.method).map_err(|_| ExchangeError::Foul)?;
                    match head.status {
                        StatusCode::SWITCHING_PROTOCOLS if !self.may_switch => {
                            return Poll::Ready(Err(ExchangeError::Foul));
                        }
                        StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(Ok(self.take(head))),
                        status if status.is_informational() => {
                            self.interims += 1;
                            if self.interims > MAX_INTERIMS {
                                return Poll::Ready(Err(ExchangeError::Foul));
                            }
                            if let Some(interim) = interim {
                                interim.pass_on(status, head.headers, context);
                            }
                        }
                        _ => return Poll::Ready(Ok(self.take(head))),
                    }
                }
                None => match ready!(self.wire.poll_read_head(context)) {
                    Ok(1..) => self.has_answered = true,
                    // That the request could not be written is the better reason.
                    Ok(0) => return Poll::Ready(Err(error_of(uploaded).unwrap_or(ExchangeError::Closed))),
                    Err(error) => return Poll::Ready(Err(error_of(uploaded).unwrap_or(error.into()))),
                },
            }
        }
    }

    fn take(&mut self, head: ResponseHead) -> Response<()> {
        self.decoder = match head.framing {
            ResponseFraming::Length(length) => Decoder::Length(length),
            ResponseFraming::Chunked => Decoder::chunked(),
            ResponseFraming::UntilClose => Decoder::UntilClose,
        };
        self.keeps_alive = head.keeps_alive;
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    /// The next part of the response's body.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        // A backend that answers while it still reads must not wait for the rest; nor for what will never come.
        if let Poll::Ready(Err(broken @ ExchangeError::RequestBroken)) = self.poll_upload(context) {
            return Poll::Ready(Some(Err(broken)));
        }
        let piece = ready!(self.poll_piece(context));
        Poll::Ready(piece.transpose().map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, ExchangeError>> {
        loop {
            match self.decoder.next(&mut self.wire.inbox).map_err(|_| ExchangeError::Foul)? {
                Decoded::Piece(piece) => return Poll::Ready(Ok(Some(piece))),
                Decoded::Ended => return Poll::Ready(Ok(None)),
                Decoded::Hungry => {}
            }
            if ready!(self.wire.poll_read_body(self.decoder.left_bytes(), context))? == 0 {
                let is_whole = self.decoder.ends_with_connection();
                self.decoder = Decoder::Length(0);
                return Poll::Ready(if is_whole { Ok(None) } else { Err(ExchangeError::Closed) });
            }
        }
    }

    /// Moves the request's body on, while nobody can take more of the response.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        // What becomes of it the response tells.
        let _ = self.poll_upload(context);
    }

    /// The response has come whole.
    pub(crate) fn has_ended(&self) -> bool {
        self.decoder.has_ended()
    }

    /// The bytes of the response's body still to come, where that is known.
    pub(crate) fn left_bytes(&self) -> Option<u64> {
        self.decoder.left_bytes()
    }

    /// Whether it may serve another request; it keeps no buffer then.
    pub(crate) fn is_reusable(&mut self) -> bool {
        chunks::release(&mut self.wire.inbox);
        // Bytes beyond the response belong to none that was asked for.
        self.keeps_alive && self.decoder.has_ended() && self.upload.is_none() && self.wire.inbox.is_empty()
    }

    /// No byte of the request under way has left.
    pub(crate) fn is_unsent(&self) -> bool {
        self.wire.sent_bytes == 0
    }

    /// Something came back for the request under way.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// What was not sent of the request's body, which may be all of it.
    pub(crate) fn take_body(&mut self) -> Option<RequestBody> {
        self.upload.take().map(|upload| upload.body)
    }

    pub(crate) fn into_tunnel(self) -> Tunnel {
        self.wire.into_tunnel()
    }

    /// Sends what is to be sent and there.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        loop {
            let has_more = self.poll_gather(context)?.is_ready();
            ready!(self.wire.poll_write_out(context))?;
            match &self.upload {
                None => return Poll::Ready(Ok(())),
                Some(_) if has_more => {}
                Some(_) => return Poll::Pending,
            }
        }
    }

    /// Puts together what can be written at once. Pending: the client has sent nothing more.
    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        while let Some(Upload { body, framing }) = &mut self.upload {
            if self.wire.is_full() {
                break;
            }
            let frame = ready!(Pin::new(&mut *body).poll_frame(context));
            let has_ended = frame.is_none() || body.is_end_stream();
            match frame {
                None => {}
                Some(Err(_)) => return Poll::Ready(Err(ExchangeError::RequestBroken)),
                Some(Ok(frame)) => {
                    // Trailers of requests are not forwarded.
                    if let Ok(data) = frame.into_data() {
                        self.wire.put(data, *framing);
                    }
                }
            }
            if has_ended {
                if *framing == BodyFraming::Chunked {
                    encode::last_chunk(self.wire.outbox(), None::<&HeaderMap>);
                }
                self.upload = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn error_of<T>(outcome: Poll<Result<T, ExchangeError>>) -> Option<ExchangeError> {
    match outcome {
        Poll::Ready(Err(error)) => Some(error),
        _ => None,
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("method", &self.method).finish_non_exhaustive()
    }
}
