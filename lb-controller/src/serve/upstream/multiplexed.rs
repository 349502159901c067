//! Connections that several requests share: which of them takes the next, and that many requests which find none open one
//! and not many.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, Call, ConnectError, Purpose, Spoken};
use super::{Connection, MAX_IDLE_TIME, Peer};
use crate::pool::{Backend, Dial};
use crate::serve::h2::channel::Channel;
use crate::serve::preface::Preface;

thread_local! {
    /// Bounded by the configured backends, and by requests under way.
    static LINES: RefCell<HashMap<Peer, Line>> = RefCell::default();
}

/// To one peer.
#[derive(Debug, Default)]
struct Line {
    channels: Vec<Rc<Channel>>,
    opening: Option<Rc<Opening>>,
    /// It chose HTTP/1.1 the last time, so that requests do not share a connection.
    chose_http1: bool,
}

/// A connection that is being opened.
#[derive(Debug, Default)]
struct Opening {
    done: Notify,
    is_done: Cell<bool>,
    failed: RefCell<Option<Rc<ConnectError>>>,
}

/// Tells those who wait, also when whoever opened it was dropped meanwhile.
struct Opener {
    peer: Peer,
    opening: Rc<Opening>,
}

/// A connection that takes one more request.
pub(super) fn take(peer: Peer) -> Option<Rc<Channel>> {
    LINES.with_borrow_mut(|lines| {
        let line = lines.get_mut(&peer)?;
        let found = line.channels.iter().find(|channel| channel.has_room()).cloned();
        if found.is_none() {
            line.channels.retain(|channel| channel.is_open());
        }
        found
    })
}

/// Closes idle ones for which others wait.
pub(super) fn give_up_wanted() {
    LINES.with_borrow(|lines| {
        let idle = lines.values().flat_map(|line| &line.channels).filter(|channel| channel.is_idle());
        idle.filter(|channel| channel.place().is_wanted()).for_each(|channel| channel.retire());
    });
}

/// Closes those that nobody has used for long.
pub(super) fn close_expired(now: Duration) {
    LINES.with_borrow_mut(|lines| {
        lines.retain(|_, line| {
            for channel in &line.channels {
                if channel.is_idle_for(now, MAX_IDLE_TIME) {
                    channel.retire();
                }
            }
            line.channels.retain(|channel| channel.is_open());
            !line.channels.is_empty() || line.opening.is_some()
        });
    });
}

/// A connection that was not there before, or is opened by another request in this moment. HTTP/1.1, if the backend chooses
/// that.
pub(super) async fn connect(
    dial: &Dial,
    backend: &Arc<Backend>,
    timeout: Duration,
) -> Result<Box<Connection>, ConnectError> {
    let (peer, deadline) = (Peer::of(dial, backend), Instant::now() + timeout);
    loop {
        let others = LINES.with_borrow_mut(|lines| {
            let line = lines.entry(peer).or_default();
            line.opening.clone().filter(|_| !line.chose_http1)
        });
        let Some(opening) = others else { return open(dial, backend, peer, timeout).await };
        if timeout_at(deadline, opening.wait()).await.is_err() {
            return Err(ConnectError::TooSlow(timeout));
        }
        if let Some(error) = opening.failed.borrow().clone() {
            return Err(ConnectError::Shared(error));
        }
        if let Some(channel) = take(peer) {
            return Ok(Connection::on(&channel, peer));
        }
    }
}

async fn open(
    dial: &Dial,
    backend: &Arc<Backend>,
    peer: Peer,
    timeout: Duration,
) -> Result<Box<Connection>, ConnectError> {
    let opener = Opener::begin(peer);
    let call = Call { timeout, preface: &Preface::default(), purpose: Purpose::Requests };
    match connect::connect(dial, backend, call).await {
        Ok(Spoken::Http1(stream, place)) => {
            opener.chose_http1();
            Ok(Connection::http1(stream, place, peer))
        }
        Ok(Spoken::H2(channel)) => {
            opener.opened(&channel);
            Ok(Connection::on(&channel, peer))
        }
        Err(error) => Err(opener.failed(error)),
    }
}

impl Opening {
    async fn wait(&self) {
        let done = self.done.notified();
        if !self.is_done.get() {
            done.await;
        }
    }
}

impl Opener {
    fn begin(peer: Peer) -> Opener {
        let opening = Rc::<Opening>::default();
        LINES.with_borrow_mut(|lines| lines.entry(peer).or_default().opening = Some(opening.clone()));
        Opener { peer, opening }
    }

    fn opened(&self, channel: &Rc<Channel>) {
        LINES.with_borrow_mut(|lines| {
            let line = lines.entry(self.peer).or_default();
            line.channels.push(channel.clone());
            line.chose_http1 = false;
        });
    }

    fn chose_http1(&self) {
        LINES.with_borrow_mut(|lines| lines.entry(self.peer).or_default().chose_http1 = true);
    }

    fn failed(&self, error: ConnectError) -> ConnectError {
        let error = Rc::new(error);
        *self.opening.failed.borrow_mut() = Some(error.clone());
        ConnectError::Shared(error)
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        LINES.with_borrow_mut(|lines| {
            if let Some(line) = lines.get_mut(&self.peer)
                && line.opening.as_ref().is_some_and(|opening| Rc::ptr_eq(opening, &self.opening))
            {
                line.opening = None;
            }
        });
        self.opening.is_done.set(true);
        self.opening.done.notify_waiters();
    }
}
