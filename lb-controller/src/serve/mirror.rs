//! Copies of requests for another pool, whose answers nobody reads. The request itself waits for nothing here: a copy that
//! does not find room, or whose body is large, is left out and counted.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use tokio::sync::oneshot;

use crate::config::Mirror;
use crate::metrics::{Metrics, Mirrored};
use crate::pool::{InFlight, Pool, Wish};
use crate::serve::body::{RequestBody, ResponseBody};
use crate::serve::facts::announced_bytes;
use crate::serve::outgoing;
use crate::serve::pause::Pause;
use crate::serve::preface::Preface;
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::upstream::{self, Exchange};

/// Copies of one worker that wait for their bodies, or for an answer. With bodies of the most that may be set, this is what
/// they take in memory: 64 MiB.
const MOST_AT_ONCE: usize = 64;

/// For the whole of it, the body of the request included.
const WITHIN: Duration = Duration::from_secs(30);

/// An answer is read to its end so that its connection can be used again; a longer one is not worth that.
const MOST_ANSWER_BYTES: usize = 1024 * 1024;

/// Tells the backend that it is not asked in earnest. Clients cannot send it: it is a name of ours.
const MIRRORED: &str = "lb-mirrored";

thread_local! {
    static AT_ONCE: Cell<usize> = const { Cell::new(0) };
}

/// A place among [`MOST_AT_ONCE`]; given back when dropped.
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let taken = AT_ONCE.get();
        (taken < MOST_AT_ONCE).then(|| {
            AT_ONCE.set(taken + 1);
            Place
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        AT_ONCE.set(AT_ONCE.get() - 1);
    }
}

/// Where a copy goes.
pub(super) struct Target<'a> {
    pub(super) mirror: &'a Mirror,
    pub(super) pool: Arc<Pool>,
    pub(super) metrics: &'a Metrics,
    /// For that pool; `None`: nobody is logged in.
    pub(super) assertion: Option<HeaderValue>,
}

/// Sends a copy of `request`, as it goes to its own backend, on its way beside it. A body that still streams is copied as it
/// passes.
pub(super) fn begin(target: Target<'_>, request: &mut Inbound) {
    let Target { mirror, pool, metrics, assertion } = target;
    let count = {
        let (metrics, pool) = (metrics.clone(), pool.name.clone());
        move |what| metrics.mirrored(&pool, what)
    };
    if request.upgrade.is_some() || announced_bytes(&request.headers).is_some_and(|bytes| is_over(bytes, mirror)) {
        return count(Mirrored::LeftOut);
    }
    let preface = Preface::of(&pool, request);
    let Some(place) = Place::take() else { return count(Mirrored::NoRoom) };
    let mut copy = Box::new(request.head());
    copy.onward.host.clone_from(&request.onward.host);
    let Ok((mut head, _)) = outgoing::split(copy, assertion) else { return count(Mirrored::LeftOut) };
    head.headers.insert(MIRRORED, HeaderValue::from_static("1"));
    let body = match &request.body {
        InboundBody::Whole(bytes) if bytes.len() > mirror.max_body_bytes => return count(Mirrored::LeftOut),
        InboundBody::Whole(bytes) => Waited::Here(bytes.clone()),
        InboundBody::Streaming(incoming) if incoming.is_end_stream() => Waited::Here(Bytes::new()),
        InboundBody::Streaming(_) => {
            let (copy, whole) = BodyCopy::new(mirror.max_body_bytes);
            request.onward.body_copy = Some(copy);
            Waited::Passing(whole)
        }
    };
    tokio::task::spawn_local(async move {
        let _place = place;
        count(tokio::time::timeout(WITHIN, send(&pool, &preface, head, body)).await.unwrap_or(Mirrored::Failed));
    });
}

fn is_over(bytes: u64, mirror: &Mirror) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| bytes > mirror.max_body_bytes)
}

/// A body that is here, or is copied while it passes.
enum Waited {
    Here(Bytes),
    Passing(oneshot::Receiver<Bytes>),
}

async fn send(pool: &Pool, preface: &Preface, head: request::Parts, body: Waited) -> Mirrored {
    let body = match body {
        Waited::Here(bytes) => bytes,
        Waited::Passing(whole) => match whole.await {
            Ok(bytes) => bytes,
            // It grew too large, or broke off.
            Err(_) => return Mirrored::LeftOut,
        },
    };
    // It waits in no queue: those who asked in earnest come first.
    let Ok(mut in_flight) = pool.pick(&Wish::default(), &[]) else { return Mirrored::Failed };
    let failed = |in_flight: &InFlight, error: String| {
        in_flight.backend().failed(error);
        Mirrored::Failed
    };
    let idle = match preface.is_empty() {
        true => upstream::take_idle(&pool.dial, in_flight.backend()).await,
        false => None,
    };
    let mut connection = match idle {
        Some(idle) => idle,
        None => match upstream::connect(&pool.dial, in_flight.backend(), pool.timeouts.connect, preface).await {
            Ok(connection) => connection,
            Err(error) => return failed(&in_flight, format!("{error}, for a copy")),
        },
    };
    connection.begin(&head, RequestBody::Whole(Full::new(body)));
    in_flight.sent(Instant::now());
    match poll_fn(|context| connection.poll_response(None, context)).await {
        Ok(response) => in_flight.answered(response.status()),
        Err(error) => return failed(&in_flight, format!("no response to a copy: {error}")),
    }
    let pause = Pause::new(pool.timeouts.response_body, None);
    let mut answer = ResponseBody::from_backend(Exchange { connection, in_flight }, pause);
    let mut left = MOST_ANSWER_BYTES;
    while let Some(Ok(frame)) = answer.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    Mirrored::Sent
}

/// A body copied while it passes.
#[derive(Debug)]
pub(crate) struct BodyCopy {
    limit_bytes: usize,
    state: RefCell<Option<Copying>>,
}

#[derive(Debug)]
struct Copying {
    bytes: BytesMut,
    whole: oneshot::Sender<Bytes>,
}

impl BodyCopy {
    fn new(limit_bytes: usize) -> (Rc<BodyCopy>, oneshot::Receiver<Bytes>) {
        let (whole, receiver) = oneshot::channel();
        let state = RefCell::new(Some(Copying { bytes: BytesMut::new(), whole }));
        (Rc::new(BodyCopy { limit_bytes, state }), receiver)
    }

    /// A piece passed.
    pub(crate) fn passed(&self, piece: &Bytes) {
        let mut state = self.state.borrow_mut();
        if let Some(copying) = &mut *state {
            if copying.bytes.len() + piece.len() > self.limit_bytes {
                // Whoever waits for it learns so.
                *state = None;
            } else {
                copying.bytes.extend_from_slice(piece);
            }
        }
    }

    /// All of it passed.
    pub(crate) fn ended(&self) {
        if let Some(Copying { bytes, whole }) = self.state.borrow_mut().take() {
            // Nobody waits for it any more when that took too long.
            let _ = whole.send(bytes.freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_of_the_whole_body_or_there_is_none() {
        type Row = (&'static str, &'static [&'static str], bool, Option<&'static str>);
        let rows: &[Row] = &[
            ("in pieces", &["ab", "cd", "e"], true, Some("abcde")),
            ("no bytes at all", &[], true, Some("")),
            ("as large as may be", &["abcdefgh"], true, Some("abcdefgh")),
            ("a byte too many", &["abcdefgh", "i"], true, None),
            ("broken off", &["ab"], false, None),
        ];
        for (name, pieces, ends, expected) in rows {
            let (copy, mut whole) = BodyCopy::new(8);
            pieces.iter().for_each(|piece| copy.passed(&Bytes::from_static(piece.as_bytes())));
            if *ends {
                copy.ended();
            }
            drop(copy);
            assert_eq!(whole.try_recv().ok().as_deref(), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn there_are_so_many_places_and_each_is_given_back() {
        let places: Vec<Place> = std::iter::from_fn(Place::take).collect();
        assert_eq!(places.len(), MOST_AT_ONCE);
        assert!(Place::take().is_none());
        drop(places);
        assert!(Place::take().is_some());
    }
}
