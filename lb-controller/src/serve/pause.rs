//! How long a response may pause in the midst of its body. Without a limit, a backend that stalls there would hold its
//! client, a connection and a place among the requests under way for as long as it likes.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::serve::body::Progress;
use crate::serve::http1::client::ExchangeError;

/// Of one response.
#[derive(Debug)]
pub(crate) struct Pause {
    most: Duration,
    /// Of the request's body, where that may still be under way: an upload moves the exchange too.
    upload: Option<Rc<Progress>>,
    /// While it pauses.
    over_at: Option<Instant>,
}

impl Pause {
    pub(crate) fn new(most: Duration, upload: Option<Rc<Progress>>) -> Pause {
        Pause { most, upload, over_at: None }
    }

    /// A part of the response came.
    pub(crate) fn moved(&mut self) {
        self.over_at = None;
    }

    /// To be asked while there is nothing of the response: ready once that has lasted too long. `past` is ready when a moment
    /// is over.
    pub(crate) fn poll_over(
        &mut self,
        mut past: impl FnMut(Instant, &mut Context<'_>) -> Poll<()>,
        context: &mut Context<'_>,
    ) -> Poll<ExchangeError> {
        loop {
            let over_at = *self.over_at.get_or_insert_with(|| Instant::now() + self.most);
            ready!(past(over_at, context));
            match &self.upload {
                Some(upload) if upload.take_moved() => self.over_at = None,
                // Each may wait for the other to speak.
                Some(upload) if upload.waits_for_client() => {
                    return Poll::Ready(ExchangeError::BothSilent(self.most));
                }
                _ => return Poll::Ready(ExchangeError::Silent(self.most)),
            }
        }
    }
}
