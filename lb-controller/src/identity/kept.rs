//! Something that an issuer publishes, fetched when it is needed and kept: metadata, key sets.
//!
//! What was fetched once is used on while the issuer does not answer, for a day at most, and nobody waits for what is
//! there. However many ask, one question is under way, and questions keep their distance.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use lb_policy::UnixSeconds;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::http::Unavailable;
use crate::clock::Clock;

/// Until it is this old, nobody asks again.
const FRESH_SECONDS: u64 = 300;
/// An issuer that does not answer for a day is gone, and so are its keys.
const USABLE_SECONDS: u64 = 24 * 3600;
/// Between two questions that somebody waits for, after one that failed.
const PAUSE_AFTER_FAILURE_SECONDS: u64 = 3;

/// Why the issuer is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// There is nothing that would do.
    Needed,
    /// What is there will do, and is old.
    Stale,
    /// What is there lacks something, as anybody can claim by naming a key that does not exist.
    Lacking,
}

type Fetching<T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send>>;

pub(super) struct Kept<T> {
    fetch: Box<dyn Fn() -> Fetching<T> + Send + Sync>,
    value: ArcSwapOption<Fetched<T>>,
    /// Counts the times that the value became another.
    version: AtomicU64,
    last_attempt: Mutex<Option<Attempt>>,
    /// Between two questions, unless somebody waits who has nothing at all.
    pause_seconds: u64,
    clock: Clock,
    runtime: Handle,
}

struct Fetched<T> {
    value: Arc<T>,
    at: UnixSeconds,
}

#[derive(Clone)]
struct Attempt {
    at: UnixSeconds,
    failure: Option<Unavailable>,
}

impl Attempt {
    fn is_too_recent(&self, reason: Reason, now: UnixSeconds, pause_seconds: u64) -> bool {
        let is_within = |seconds| now < self.at.saturating_add(seconds);
        match reason {
            Reason::Needed => self.failure.is_some() && is_within(PAUSE_AFTER_FAILURE_SECONDS),
            Reason::Stale | Reason::Lacking => is_within(pause_seconds),
        }
    }
}

impl<T: PartialEq + Send + Sync + 'static> Kept<T> {
    /// `fetch` asks the issuer; between two questions there are `pause_seconds` at least, unless there is nothing to go on
    /// with.
    pub(super) fn new<Fetch, Fut>(clock: Clock, runtime: Handle, pause_seconds: u64, fetch: Fetch) -> Arc<Kept<T>>
    where
        Fetch: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Unavailable>> + Send + 'static,
    {
        Arc::new(Kept {
            fetch: Box::new(move || Box::pin(fetch())),
            value: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            last_attempt: Mutex::default(),
            pause_seconds,
            clock,
            runtime,
        })
    }

    /// The value; waits for the issuer only when there is none that can be used.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<T>, Unavailable> {
        let now = self.clock.now();
        match self.usable(now) {
            Some((value, age)) => {
                if age >= FRESH_SECONDS {
                    self.runtime.spawn(self.clone().refresh(now - age + 1, Reason::Stale));
                }
                Ok(value)
            }
            None => self.ask(now, Reason::Needed).await,
        }
    }

    /// The value, asked for again when it is older than `most_seconds`.
    ///
    /// Errors: the issuer did not answer, even when an older value is at hand.
    pub(super) async fn get_younger_than(self: &Arc<Self>, most_seconds: u64) -> Result<Arc<T>, Unavailable> {
        let now = self.clock.now();
        match self.usable(now) {
            Some((value, age)) if age < most_seconds => Ok(value),
            _ => self.ask(now.saturating_sub(most_seconds) + 1, Reason::Needed).await,
        }
    }

    /// The value, without asking for one.
    pub(super) fn at_hand(&self) -> Option<Arc<T>> {
        self.usable(self.clock.now()).map(|(value, _)| value)
    }

    /// Asks the issuer again, unless it was asked lately; then what is there must do.
    pub(super) async fn get_anew(self: &Arc<Self>) -> Result<Arc<T>, Unavailable> {
        let now = self.clock.now();
        let outcome = self.ask(now + 1, Reason::Lacking).await;
        outcome.or_else(|unavailable| self.usable(now).map(|(value, _)| value).ok_or(unavailable))
    }

    /// How long ago it was fetched; `None`: it never was.
    pub(super) fn age_seconds(&self) -> Option<u64> {
        self.value.load().as_ref().map(|fetched| self.clock.now().saturating_sub(fetched.at))
    }

    /// Counts up when the value becomes another.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn usable(&self, now: UnixSeconds) -> Option<(Arc<T>, u64)> {
        let fetched = self.value.load();
        let fetched = fetched.as_ref()?;
        let age = now.saturating_sub(fetched.at);
        (age < USABLE_SECONDS).then(|| (fetched.value.clone(), age))
    }

    /// Waits for [`Kept::refresh`]. It runs by itself: a client that goes away must not take the answer along for which
    /// others wait.
    async fn ask(self: &Arc<Self>, since: UnixSeconds, reason: Reason) -> Result<Arc<T>, Unavailable> {
        let asking = self.runtime.spawn(self.clone().refresh(since, reason));
        asking.await.unwrap_or_else(|error| {
            Err(Unavailable::Unusable { url: "the answer".to_owned(), reason: error.to_string() })
        })
    }

    /// A value fetched at or after `since`: one that came while we waited for our turn, or a new one.
    async fn refresh(self: Arc<Self>, since: UnixSeconds, reason: Reason) -> Result<Arc<T>, Unavailable> {
        let mut last = self.last_attempt.lock().await;
        let now = self.clock.now();
        if let Some(fetched) = self.value.load().as_ref().filter(|fetched| fetched.at >= since) {
            return Ok(fetched.value.clone());
        }
        if let Some(attempt) = last.as_ref().filter(|attempt| attempt.is_too_recent(reason, now, self.pause_seconds)) {
            return match (&attempt.failure, self.value.load().as_ref()) {
                (None, Some(fetched)) => Ok(fetched.value.clone()),
                (Some(failure), _) => Err(failure.clone().some_time_ago(now.saturating_sub(attempt.at))),
                (None, None) => Err(Unavailable::FailedLately { url: "it".to_owned(), ago_seconds: 0 }),
            };
        }
        let outcome = (self.fetch)().await;
        *last = Some(Attempt { at: now, failure: outcome.as_ref().err().cloned() });
        let value = outcome.inspect_err(|unavailable| tracing::warn!(%unavailable, "an issuer cannot be asked"))?;
        let value = Arc::new(value);
        let is_another = self.value.load().as_ref().is_none_or(|before| before.value != value);
        self.value.store(Some(Arc::new(Fetched { value: value.clone(), at: now })));
        if is_another {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const PAUSE_SECONDS: u64 = 30;

    struct Issuer {
        kept: Arc<Kept<usize>>,
        clock: Clock,
        asked: Arc<AtomicUsize>,
        answers: Arc<std::sync::atomic::AtomicBool>,
    }

    /// It answers with how often it was asked.
    fn issuer() -> Issuer {
        let (clock, asked, answers) = (Clock::fixed(1_000_000), Arc::default(), Arc::new(true.into()));
        let (count, up): (Arc<AtomicUsize>, Arc<std::sync::atomic::AtomicBool>) =
            (Arc::clone(&asked), Arc::clone(&answers));
        let kept = Kept::new(clock.clone(), Handle::current(), PAUSE_SECONDS, move || {
            let (number, up) = (count.fetch_add(1, Ordering::SeqCst) + 1, up.load(Ordering::SeqCst));
            async move {
                tokio::task::yield_now().await;
                if up { Ok(number) } else { Err(Unavailable::Busy { url: "idp".to_owned() }) }
            }
        });
        Issuer { kept, clock, asked, answers }
    }

    #[tokio::test]
    async fn of_many_who_need_it_at_once_one_asks() {
        let issuer = issuer();
        let all = (0..50).map(|_| issuer.kept.get());
        for value in futures(all).await {
            assert_eq!(value.ok().as_deref(), Some(&1));
        }
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_there_is_used_on_for_a_day_while_the_issuer_is_silent_and_then_no_more() {
        let issuer = issuer();
        assert_eq!(*issuer.kept.get().await.unwrap(), 1);
        issuer.answers.store(false, Ordering::SeqCst);
        for (after, usable) in
            [(10, true), (FRESH_SECONDS + 1, true), (USABLE_SECONDS - 1, true), (USABLE_SECONDS, false)]
        {
            issuer.clock.set(1_000_000 + after);
            assert_eq!(issuer.kept.get().await.is_ok(), usable, "after {after} s");
        }
        issuer.answers.store(true, Ordering::SeqCst);
        issuer.clock.set(1_000_000 + USABLE_SECONDS + PAUSE_AFTER_FAILURE_SECONDS);
        assert!(issuer.kept.get().await.is_ok(), "it came back");
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_makes_one_question_in_thirty_seconds() {
        let issuer = issuer();
        issuer.kept.get().await.unwrap();
        for second in 0..300 {
            issuer.clock.set(1_000_000 + second);
            for _ in 0..10 {
                issuer.kept.get_anew().await.unwrap();
            }
        }
        assert_eq!(issuer.asked.load(Ordering::SeqCst) as u64, 300 / PAUSE_SECONDS, "the first one included");
    }

    #[tokio::test]
    async fn who_wants_to_know_whether_the_issuer_is_there_is_told() {
        let issuer = issuer();
        issuer.kept.get().await.unwrap();
        issuer.answers.store(false, Ordering::SeqCst);
        issuer.clock.set(1_000_000 + 40);
        assert!(issuer.kept.get_younger_than(30).await.is_err());
        assert!(issuer.kept.get_younger_than(60).await.is_ok());
        assert!(issuer.kept.get().await.is_ok(), "keys go on");
        let asked = issuer.asked.load(Ordering::SeqCst);
        assert!(issuer.kept.get_younger_than(30).await.is_err());
        assert_eq!(issuer.asked.load(Ordering::SeqCst), asked, "not again at once");
    }

    async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut waiting: Vec<_> = all.map(Box::pin).collect();
        let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
        std::future::poll_fn(|context| {
            for (future, done) in waiting.iter_mut().zip(&mut done) {
                if done.is_none()
                    && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
                {
                    *done = Some(output);
                }
            }
            if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        done.into_iter().flatten().collect()
    }
}
