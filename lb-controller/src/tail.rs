//! Requests as they end, for those who look at this moment. While nobody does, a request costs the look at one number that
//! nobody writes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::report::{TailFilter, TailLine, Tailed, TailedRequest};

/// People, and not machines: those have the access log.
const MOST_WATCHERS: usize = 16;

/// Requests that wait for one watcher. What ends while they are not read is missed, and counted.
const MOST_WAITING: usize = 1_024;

/// Tells watchers of requests. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Watchers>);

#[derive(Debug, Default)]
struct Watchers {
    /// How many there are.
    count: AtomicUsize,
    all: RwLock<Vec<Arc<Watcher>>>,
}

#[derive(Debug)]
struct Watcher {
    filter: TailFilter,
    requests: Sender<Box<TailedRequest>>,
    missed: AtomicU64,
}

/// One who looks. Dropping it ends that.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    watcher: Arc<Watcher>,
    requests: Receiver<Box<TailedRequest>>,
}

impl Tail {
    pub fn is_watched(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Tells whoever wants it; `whole` is called if anybody does.
    pub fn tell(&self, request: &Tailed<'_>, whole: impl Fn() -> TailedRequest) {
        let watchers = self.0.all.read().unwrap_or_else(PoisonError::into_inner);
        for watcher in watchers.iter().filter(|watcher| watcher.filter.wants(request)) {
            match watcher.requests.try_reserve() {
                Ok(place) => place.send(Box::new(whole())),
                Err(_) => drop(watcher.missed.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    /// Looks from now on. `None`: as many look already as may.
    pub fn watch(&self, filter: TailFilter) -> Option<Watch> {
        let (sender, requests) = mpsc::channel(MOST_WAITING);
        let watcher = Arc::new(Watcher { filter, requests: sender, missed: AtomicU64::new(0) });
        let mut all = self.0.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_WATCHERS {
            return None;
        }
        all.push(watcher.clone());
        self.0.count.store(all.len(), Ordering::Relaxed);
        Some(Watch { watchers: self.0.clone(), watcher, requests })
    }
}

impl Watch {
    /// What is next, and first of all how much was missed; it goes on for ever.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<TailLine> {
        let missed = self.watcher.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            return Poll::Ready(TailLine::Missed { missed });
        }
        match self.requests.poll_recv(context) {
            Poll::Ready(Some(request)) => Poll::Ready(TailLine::Request(request)),
            // The sender is ours and outlives this.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.watchers.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        self.watchers.count.store(all.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn tell(tail: &Tail, status: u16, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let client = "192.0.2.7".parse().unwrap();
            let (route, decision, method, host, path) = (None, None, "GET", "shop.example", "/");
            let request = Tailed { route, status, decision, client, method, host, path, duration_us: number };
            tail.tell(&request, || TailedRequest {
                at: String::new(),
                request_id: String::new(),
                client,
                method: method.to_owned(),
                protocol: String::new(),
                host: host.to_owned(),
                path: path.to_owned(),
                status,
                bytes: 0,
                duration_us: number,
                route: None,
                backend: None,
                decision: None,
                rule: None,
                error: None,
                trace_id: None,
            });
        }
    }

    fn read(watch: &mut Watch) -> Vec<TailLine> {
        let mut context = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match watch.poll_next(&mut context) {
            Poll::Ready(line) => Some(line),
            Poll::Pending => None,
        })
        .collect()
    }

    fn numbers(lines: &[TailLine]) -> Vec<u64> {
        let number = |line: &TailLine| match line {
            TailLine::Request(request) => Some(request.duration_us),
            TailLine::Missed { .. } => None,
        };
        lines.iter().filter_map(number).collect()
    }

    #[test]
    fn each_watcher_sees_what_it_asked_for_and_when_all_are_gone_nobody_is_told() {
        let tail = Tail::default();
        assert!(!tail.is_watched());
        let mut all = tail.watch(TailFilter::default()).unwrap();
        let failures = TailFilter { status: Some("5xx".parse().unwrap()), ..TailFilter::default() };
        let mut failures = tail.watch(failures).unwrap();
        tell(&tail, 200, 0..2);
        tell(&tail, 502, 2..3);
        assert_eq!((numbers(&read(&mut all)), numbers(&read(&mut failures))), (vec![0, 1, 2], vec![2]));
        drop(all);
        assert!(tail.is_watched());
        drop(failures);
        assert!(!tail.is_watched());
        tail.tell(
            &Tailed {
                route: None,
                status: 200,
                decision: None,
                client: "192.0.2.7".parse().unwrap(),
                method: "GET",
                host: "",
                path: "/",
                duration_us: 0,
            },
            || panic!("nobody looks"),
        );
    }

    #[test]
    fn a_slow_watcher_is_told_how_much_it_missed_and_takes_a_bounded_place() {
        let (tail, most) = (Tail::default(), MOST_WAITING as u64);
        let mut slow = tail.watch(TailFilter::default()).unwrap();
        tell(&tail, 200, 0..most + 10);
        let lines = read(&mut slow);
        assert_eq!(lines[0], TailLine::Missed { missed: 10 });
        assert_eq!(numbers(&lines), (0..most).collect::<Vec<_>>());
        tell(&tail, 200, 0..1);
        assert_eq!(numbers(&read(&mut slow)), [0]);
    }

    #[test]
    fn as_many_may_look_as_may_and_no_more() {
        let tail = Tail::default();
        let watches: Vec<Watch> = std::iter::from_fn(|| tail.watch(TailFilter::default())).take(100).collect();
        assert_eq!(watches.len(), MOST_WATCHERS);
        drop(watches);
        assert!(tail.watch(TailFilter::default()).is_some());
    }
}
