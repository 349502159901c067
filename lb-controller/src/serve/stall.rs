//! Clients that stop reading. Without a limit, each would hold its response's buffers and a backend connection for as
//! long as it likes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// For a client to take a single byte out of a full socket buffer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs while a write has to wait, and costs nothing while none does.
#[derive(Debug, Default)]
pub(crate) struct StallTimer(Option<Pin<Box<Sleep>>>);

impl StallTimer {
    /// Passes on what a write returned; an error once writes have waited for too long.
    pub(crate) fn watch<Written>(
        &mut self,
        write: Poll<io::Result<Written>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Written>> {
        if write.is_ready() {
            self.0 = None;
            return write;
        }
        match self.0.get_or_insert_with(|| Box::pin(sleep(PATIENCE))).as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end stopped reading")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(timer: &mut StallTimer, mut writes: impl FnMut() -> Poll<io::Result<usize>>) -> io::Result<usize> {
        std::future::poll_fn(|context| timer.watch(writes(), context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_too_long_fails_and_one_that_moves_does_not() {
        let mut timer = StallTimer::default();
        let begin = tokio::time::Instant::now();
        assert_eq!(next(&mut timer, || Poll::Ready(Ok(7))).await.unwrap(), 7);
        let error = next(&mut timer, || Poll::Pending).await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
    }
}
