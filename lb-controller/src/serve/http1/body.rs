//! A request's body on its way in, read from its connection as far as somebody asks for it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::MAX_HEAD_BYTES;
use super::chunks::{self, Decoded, Decoder, Piece};
use super::encode;
use super::wire::{Io, Tunnel, Wire};
use crate::serve::guard::names;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BrokenBody {
    #[error("the connection closed before the end of the body")]
    Closed,
    #[error("the body's framing is malformed")]
    Foul,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What a connection and the body that comes on it share.
pub(super) struct Incoming {
    pub(super) wire: Wire,
    pub(super) decoder: Decoder,
    /// The client sends its body when it is told to (RFC 9110 §10.1.1).
    pub(super) waits_to_continue: bool,
    /// What came cannot be trusted, or cannot be had: no other request may follow.
    pub(super) is_broken: bool,
    /// Wants the connection once the response has switched protocols.
    pub(super) upgrade: Option<oneshot::Sender<Tunnel>>,
}

/// A request's body over HTTP/1.1.
pub struct Body1(pub(super) Rc<RefCell<Incoming>>);

impl Body1 {
    /// For what goes to the client before the response.
    pub(crate) fn interim(&self) -> Interim {
        Interim(self.0.clone())
    }

    /// The connection, once a response has switched protocols.
    pub(crate) fn upgrade(&self) -> oneshot::Receiver<Tunnel> {
        let (sender, receiver) = oneshot::channel();
        self.0.borrow_mut().upgrade = Some(sender);
        receiver
    }
}

/// Where it goes on to the client what a backend says before its response.
#[derive(Clone)]
pub(crate) struct Interim(Rc<RefCell<Incoming>>);

impl Interim {
    /// Passes an informational response on, of which `headers` are the backend's. 100 and 101 are between two ends of one
    /// connection. It is only a hint: a client that has not taken what came before goes without.
    pub(crate) fn pass_on(&self, status: StatusCode, mut headers: HeaderMap, context: &mut Context<'_>) {
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let wire = &mut self.0.borrow_mut().wire;
        if wire.is_full() {
            return;
        }
        names::strip_response(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        encode::interim_head(wire.outbox(), status, &headers);
        // What cannot be written now is written with the response.
        let _ = wire.poll_write_out(context);
    }
}

impl std::fmt::Debug for Interim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interim")
    }
}

/// Bytes of requests that follow in a pipeline, read while one is answered.
const MAX_AHEAD_BYTES: usize = MAX_HEAD_BYTES;

/// Bytes of a body that are read though nobody wants them, so that the connection can go on.
const MAX_DRAINED_BYTES: usize = 64 * 1024;

impl Incoming {
    pub(super) fn new(stream: Box<dyn Io>) -> Incoming {
        Incoming {
            wire: Wire::new(stream),
            decoder: Decoder::Length(0),
            waits_to_continue: false,
            is_broken: false,
            upgrade: None,
        }
    }

    /// Ready once the client is gone. What it sends ahead is kept; where its body is still to come, whoever reads that
    /// finds out.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // What comes after a request to upgrade is the tunnel's.
        if !self.decoder.has_ended() || self.upgrade.is_some() {
            return Poll::Pending;
        }
        while self.wire.inbox.len() < MAX_AHEAD_BYTES {
            if !matches!(ready!(self.wire.poll_read_head(context)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Whether the rest of the body is more than is read only to get to the next request.
    pub(super) fn is_far_from_next(&self) -> bool {
        self.decoder.left_bytes().is_some_and(|left| left > MAX_DRAINED_BYTES as u64)
    }

    /// Reads what is there of a body that nobody wanted.
    pub(super) fn drain(&mut self, context: &mut Context<'_>) {
        let mut left = MAX_DRAINED_BYTES;
        while let Poll::Ready(Some(Ok(Piece::Data(data)))) = self.poll_piece(context)
            && data.len() <= left
        {
            left -= data.len();
        }
    }

    /// Whether the next byte is one of another request. An idle connection keeps no buffer.
    pub(super) fn is_between_requests(&mut self) -> bool {
        chunks::release(&mut self.wire.inbox);
        self.decoder.has_ended() && !self.is_broken
    }

    /// The response has switched protocols: the connection goes to whoever wanted it.
    pub(super) fn switch(&mut self) {
        let nothing = tokio::io::join(tokio::io::empty(), tokio::io::sink());
        let wire = std::mem::replace(&mut self.wire, Wire::new(Box::new(nothing)));
        if let Some(upgrade) = self.upgrade.take() {
            // Whoever wanted it may be gone; the connection closes then.
            let _ = upgrade.send(wire.into_tunnel());
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, BrokenBody>>> {
        if self.is_broken {
            return Poll::Ready(Some(Err(BrokenBody::Closed)));
        }
        let piece = ready!(self.poll_next(context));
        self.is_broken |= piece.is_err();
        Poll::Ready(piece.transpose())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, BrokenBody>> {
        loop {
            match self.decoder.next(&mut self.wire.inbox).map_err(|_| BrokenBody::Foul)? {
                Decoded::Piece(piece) => {
                    // A client that sends its body need not be told to.
                    self.waits_to_continue = false;
                    chunks::release(&mut self.wire.inbox);
                    return Poll::Ready(Ok(Some(piece)));
                }
                Decoded::Ended => return Poll::Ready(Ok(None)),
                Decoded::Hungry => {}
            }
            if std::mem::take(&mut self.waits_to_continue) {
                self.wire.outbox().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            // Nothing else is written before the body was read: what cannot be written now is written with the response.
            if let Poll::Ready(Err(error)) = self.wire.poll_write_out(context) {
                return Poll::Ready(Err(error.into()));
            }
            if ready!(self.wire.poll_read_body(self.decoder.left_bytes(), context))? == 0 {
                return Poll::Ready(Err(BrokenBody::Closed));
            }
        }
    }
}

impl Body for Body1 {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let piece = ready!(self.0.borrow_mut().poll_piece(context));
        Poll::Ready(piece.map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().decoder.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().decoder.left_bytes().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl std::fmt::Debug for Body1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body1")
    }
}
