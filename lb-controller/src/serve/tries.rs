//! How often one request is tried, and where.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;

use crate::pool::{Backend, InFlight, NoPick};
use crate::serve::access_log::Record;
use crate::serve::respond::Refusal;
use crate::serve::target::Target;
use crate::serve::upstream::ConnectError;

/// The tries of one request.
pub(super) struct Tries<'a> {
    target: &'a Target<'a>,
    left: u8,
    /// Those that failed it.
    avoid: Vec<Arc<Backend>>,
    /// Those of them that accepted no connection, for whoever tells of them.
    not_connected: Vec<SocketAddr>,
    /// Where it goes next, if that is known.
    next: Option<InFlight>,
    /// Why there was no connection the last time.
    last_error: Option<ConnectError>,
}

/// Why a request that was sent has no response to pass on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    Reset,
    /// The backend has not looked at it.
    Refused,
    TooSlow,
    Status(StatusCode),
}

impl<'a> Tries<'a> {
    pub(super) fn new(target: &'a Target<'a>) -> Tries<'a> {
        Tries {
            target,
            left: target.retries.attempts.saturating_sub(1),
            avoid: Vec::new(),
            not_connected: Vec::new(),
            next: None,
            last_error: None,
        }
    }

    pub(super) fn target(&self) -> &'a Target<'a> {
        self.target
    }

    /// The backend for the next try.
    pub(super) async fn pick(&mut self) -> Result<InFlight, Refusal> {
        if let Some(next) = self.next.take() {
            return Ok(next);
        }
        let picked = self.target.pick(&self.avoid).await;
        picked.map_err(|none| match none {
            NoPick::Busy => Refusal::Overloaded,
            NoPick::Nobody if self.avoid.is_empty() => Refusal::NoBackend,
            NoPick::Nobody => self.last_error.as_ref().map_or(Refusal::BackendFailed, ConnectError::refusal),
        })
    }

    /// Writes down why there was no connection, if that is what became of the request.
    pub(super) fn tell(&self, record: &mut Record) {
        if let Some(error) = &self.last_error {
            record.failed(&error.to_string());
        }
    }

    /// There is no connection, so nothing was sent, and any request may go on to another backend: that costs the pool no
    /// work, so it needs no budget.
    pub(super) fn not_connected(&mut self, in_flight: InFlight, error: ConnectError) -> Result<(), Refusal> {
        if error.is_failure() {
            in_flight.backend().failed(error.to_string());
        }
        let refusal = error.refusal();
        self.last_error = Some(error);
        self.not_connected.push(in_flight.backend().address);
        if self.left == 0 || !self.target.retries.on.connect {
            return Err(refusal);
        }
        self.left -= 1;
        self.avoid.push(in_flight.backend().clone());
        Ok(())
    }

    /// Who accepted no connection since the last call.
    pub(super) fn take_not_connected(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.not_connected)
    }

    /// Whether the request, of which there is a copy, is to be sent to another backend, which is then the next one. Without
    /// another backend, or without a budget, the failure stands as it is.
    pub(super) fn again(&mut self, failure: Failure, failed: &Arc<Backend>) -> bool {
        let on = self.target.retries.on;
        let is_wanted = match failure {
            Failure::Reset => on.reset_before_response,
            Failure::Refused => on.refused_stream,
            Failure::TooSlow => on.gateway_timeout,
            Failure::Status(status) => on.status(status),
        };
        is_wanted && self.go_on(failed)
    }

    /// A second backend to ask while the first, `asked`, is still to answer.
    pub(super) fn hedge(&mut self, asked: &Arc<Backend>) -> Option<InFlight> {
        if !self.go_on(asked) {
            return None;
        }
        self.target.pool.hedged();
        self.next.take()
    }

    fn go_on(&mut self, failed: &Arc<Backend>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.avoid.push(failed.clone());
        self.next = self.target.pick_at_once(&self.avoid).filter(|_| self.target.pool.take_retry());
        if self.next.is_some() {
            self.left -= 1;
        }
        self.next.is_some()
    }
}
