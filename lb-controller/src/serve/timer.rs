//! Deadlines that move with every request. To set a timer anew takes longer than to look whether one that ran down was the
//! right one, so it is set only when it has run down.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug)]
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// `deadline`: the first.
    pub(crate) fn new(deadline: Instant) -> Timer {
        Timer(Box::pin(sleep_until(deadline)))
    }

    /// Ready once `deadline` has passed. It may be later than at the last call; one that is earlier is met late.
    pub(crate) fn poll_past(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.0.as_mut().poll(context));
            if self.0.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }

    /// As [`Timer::poll_past`], where the deadline may have become an earlier one.
    pub(crate) fn poll_past_earlier(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        self.poll_past(deadline, context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_deadline_counts() {
        let begin = Instant::now();
        let mut timer = Timer::new(begin + Duration::from_secs(1));
        let mut past = async |seconds| {
            let deadline = begin + Duration::from_secs(seconds);
            poll_fn(|context| timer.poll_past_earlier(deadline, context)).await;
            begin.elapsed().as_secs()
        };
        assert_eq!(past(3).await, 3);
        assert_eq!(past(5).await, 5);
        assert_eq!(past(4).await, 5, "it is past already");
    }
}
