//! Slow work off the worker threads: password hashes (13 ms and 19 MiB each) and disk writes. Bounded, so that a flood of
//! logins fills neither the CPUs nor the memory.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs a few slow jobs at a time and lets a few more wait.
pub(super) struct Blocking {
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Too many jobs wait already; nothing was run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// At 13 ms a hash the last in this queue waits under a second on one CPU: about as long as a person does gladly.
const LONGEST_QUEUE: usize = 64;

impl Blocking {
    pub(super) fn new() -> Blocking {
        // Half the CPUs: packets and requests of people already logged in come first.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Blocking::with_limits(LONGEST_QUEUE, cpus.div_ceil(2))
    }

    fn with_limits(waiting: usize, running: usize) -> Blocking {
        Blocking { waiting: Arc::new(Semaphore::new(waiting)), running: Arc::new(Semaphore::new(running)) }
    }

    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        // The permits go with the job: it runs on after its client has gone, and must go on counting.
        let job = move || {
            let _held = (place, turn);
            job()
        };
        tokio::task::spawn_blocking(job).await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_refused_at_once_and_served_again_when_it_has_emptied() {
        let blocking = Blocking::with_limits(1, 1);
        let (release, gate) = mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let slow = blocking.run(move || {
            let _ = started.send(());
            let _ = gate.recv();
        });
        let second = async {
            has_started.await.unwrap();
            let refused = blocking.run(|| ()).await;
            release.send(()).unwrap();
            refused
        };
        let (first, second) = tokio::join!(slow, second);
        assert_eq!((first, second), (Ok(()), Err(Busy)));
        assert_eq!(blocking.run(|| 7).await, Ok(7));
    }
}
