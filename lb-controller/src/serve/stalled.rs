//! Backend connections held by clients that stopped reading.
//!
//! An h2 client may close one stream's window and keep the connection lively, so no write ever waits
//! ([`super::stall`] watches those); hyper then simply does not ask for the next frame. What such a response holds is
//! taken from it here.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Frame;

use crate::serve::http1::client::ExchangeError;
use crate::serve::upstream::Exchange;

/// For a client to ask for more after it was given a frame.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    /// Responses that were handed out in part. One registers at its first frame that is not its last, so short
    /// responses never do; [`release`] forgets those that have ended.
    static STREAMING: RefCell<Vec<Weak<Holder>>> = RefCell::default();
}

/// What a response holds until its end.
#[derive(Debug)]
pub(crate) struct Holder {
    exchange: RefCell<Option<Exchange>>,
    /// Since when the next move is the client's.
    waits_for_client: Cell<Option<Instant>>,
    registered: Cell<bool>,
    released: Cell<bool>,
}

impl Holder {
    pub(crate) fn new(exchange: Exchange) -> Rc<Holder> {
        Rc::new(Holder {
            exchange: RefCell::new(Some(exchange)),
            waits_for_client: Cell::new(None),
            registered: Cell::new(false),
            released: Cell::new(false),
        })
    }

    /// The next part of the response, which has ended if the exchange is gone.
    pub(crate) fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match &mut *self.exchange.borrow_mut() {
            Some(exchange) => exchange.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_past(&self, deadline: tokio::time::Instant, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.exchange.borrow_mut() {
            Some(exchange) => exchange.poll_past(deadline, context),
            None => Poll::Pending,
        }
    }

    /// Moves the request's body on.
    pub(crate) fn drive(&self, context: &mut Context<'_>) {
        if let Some(exchange) = &mut *self.exchange.borrow_mut() {
            exchange.drive(context);
        }
    }

    /// Bytes still to come, where that is known, and whether none will.
    pub(crate) fn state(&self) -> (Option<u64>, bool) {
        match &*self.exchange.borrow() {
            Some(exchange) => (exchange.left_bytes(), exchange.has_ended()),
            None => (Some(0), true),
        }
    }

    pub(crate) fn take(&self) -> Option<Exchange> {
        self.exchange.borrow_mut().take()
    }

    /// The client asked for a frame.
    pub(crate) fn asked(&self) {
        self.waits_for_client.set(None);
    }

    /// The client was given a frame, and more are to come.
    pub(crate) fn gave(self: &Rc<Self>) {
        self.waits_for_client.set(Some(Instant::now()));
        if !self.registered.replace(true) {
            STREAMING.with_borrow_mut(|streaming| streaming.push(Rc::downgrade(self)));
        }
    }

    /// The exchange was taken away because the client stalled: the response cannot be completed.
    pub(crate) fn was_released(&self) -> bool {
        self.released.get()
    }

    fn release_if_stalled(&self, now: Instant) {
        let stalled = self.waits_for_client.get().is_some_and(|since| now.duration_since(since) >= PATIENCE);
        if stalled && self.take().is_some() {
            self.released.set(true);
        }
    }
}

/// Closes the backend connections of this thread's stalled responses. Each worker calls it now and then.
pub(crate) fn release(now: Instant) {
    STREAMING.with_borrow_mut(|streaming| {
        streaming.retain(|holder| match holder.upgrade() {
            Some(holder) => {
                holder.release_if_stalled(now);
                !holder.was_released()
            }
            None => false,
        });
    });
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    use http::Request;
    use http_body_util::BodyExt;

    use super::*;
    use crate::config::{HealthConfig, HealthKind, PoolConfig};
    use crate::pool::{InFlight, Pools};
    use crate::serve::body::{BodyError, RequestBody, ResponseBody};
    use crate::serve::pause::Pause;
    use crate::serve::preface::Preface;
    use crate::serve::upstream;

    /// A backend that writes the beginning of a response; the receiver hears of the connection's end.
    fn backend() -> (std::net::SocketAddr, Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (closed, is_closed) = channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // An answer that comes before its request is none.
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").unwrap();
            while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
            closed.send(()).unwrap();
        });
        (address, is_closed)
    }

    async fn response_of(address: std::net::SocketAddr) -> ResponseBody {
        let seconds = Duration::from_secs;
        let health =
            HealthConfig { kind: HealthKind::Tcp, interval: seconds(1), rise: 1, fall: 1, ..HealthConfig::default() };
        let config = PoolConfig { name: "web".into(), backends: vec![address.into()], health, ..PoolConfig::default() };
        let pools = Pools::build(&[config], None);
        let pool = pools.get("web").unwrap();
        let in_flight = InFlight::begin(&pool.backends()[0]);
        let preface = Preface::default();
        let connecting = upstream::connect(&pool.dial, in_flight.backend(), seconds(3), &preface);
        let mut connection = connecting.await.unwrap();
        let (head, ()) = Request::get("/").header("host", "a").body(()).unwrap().into_parts();
        connection.begin(&head, RequestBody::default());
        std::future::poll_fn(|context| connection.poll_response(None, context)).await.unwrap();
        ResponseBody::from_backend(Exchange { connection, in_flight }, Pause::new(PATIENCE, None))
    }

    #[test]
    fn a_client_that_asks_for_no_more_loses_its_backend_and_one_that_waits_does_not() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let (address, closed) = backend();
            let mut body = response_of(address).await;
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
            let later = Instant::now() + PATIENCE;
            // It asks for the next frame, and the backend has none: nobody is to blame but the backend.
            assert!(tokio::time::timeout(Duration::from_millis(20), body.frame()).await.is_err());
            release(later);
            assert!(closed.recv_timeout(Duration::from_millis(50)).is_err(), "the backend is still connected");

            let (address, closed) = backend();
            let mut body = response_of(address).await;
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
            release(Instant::now());
            assert!(closed.recv_timeout(Duration::from_millis(50)).is_err(), "it has only just been given a frame");
            release(Instant::now() + PATIENCE);
            closed.recv_timeout(Duration::from_secs(10)).expect("the backend is free");
            assert!(matches!(body.frame().await, Some(Err(BodyError::ClientStalled))), "never a clean end");
        });
    }
}
