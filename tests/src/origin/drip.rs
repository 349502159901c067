//! A body that comes in pieces over time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Interval, interval};

/// `pieces` short lines, one every `period`.
pub(super) struct Drip {
    sent: u32,
    pieces: u32,
    interval: Interval,
}

impl Drip {
    pub(super) fn new(pieces: u32, period: Duration) -> Drip {
        Drip { sent: 0, pieces, interval: interval(period) }
    }
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent == self.pieces {
            return Poll::Ready(None);
        }
        ready!(self.interval.poll_tick(context));
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("piece {} of {}\n", self.sent, self.pieces))))))
    }
}
