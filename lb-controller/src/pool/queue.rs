//! Requests that wait until a backend of their pool has room.

mod lines;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lb_common::Source;
use tokio::sync::Notify;

use lines::{Lines, Ticket};

/// Whoever is next looks this often, told or not: a backend may have come back, or a limit been raised.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who waits for one pool, across its configurations and all workers: a line for each source, and the sources take turns
/// (decision 73).
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Beside the lines, so that whoever frees room where nobody waits takes no lock.
    waiting: AtomicU32,
    lines: Mutex<Lines<Arc<Bell>>>,
}

/// How one that waits is told.
#[derive(Debug, Default)]
struct Bell {
    rings: Notify,
    /// It has no place any more. Written and read under the lock of the lines.
    is_sent_away: AtomicBool,
    /// Somebody found room that nobody had told of: there may be more. Likewise.
    is_of_more: AtomicBool,
}

/// A place in the line of its source, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
    source: Source,
    ticket: Ticket,
    bell: Arc<Bell>,
    /// Nobody waited before.
    is_first: bool,
    /// If it finds room now, there may be more that nobody has told of.
    passes_on: bool,
}

impl Queue {
    /// Requests that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Some backend has room for one more.
    pub(super) fn freed(&self) {
        if self.waiting() > 0 {
            ring_next(&mut self.lines(), false);
        }
    }

    /// `None`: there are `most` already, and none of a source that has clearly more than this one.
    pub(super) fn enter(&self, source: Source, most: u32) -> Option<Place<'_>> {
        let bell = Arc::<Bell>::default();
        let mut lines = self.lines();
        let before = self.waiting();
        if before < most {
            self.waiting.fetch_add(1, Ordering::SeqCst);
        } else {
            let other = lines.make_room_for(source)?;
            other.is_sent_away.store(true, Ordering::Relaxed);
            other.rings.notify_one();
        }
        let ticket = lines.enter(source, bell.clone());
        drop(lines);
        Some(Place { queue: self, source, ticket, bell, is_first: before == 0, passes_on: false })
    }

    fn lines(&self) -> MutexGuard<'_, Lines<Arc<Bell>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ring_next(lines: &mut Lines<Arc<Bell>>, is_of_more: bool) {
    if let Some(bell) = lines.call() {
        bell.is_of_more.store(is_of_more, Ordering::Relaxed);
        bell.rings.notify_one();
    }
}

impl Place<'_> {
    /// Tries until `attempt` says that it is done. Who is not next does not try before it was told: it would take the room that
    /// somebody else was told of. `None`: it was sent away for somebody else.
    pub(super) async fn wait<T>(mut self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let mut is_my_turn = self.is_first;
        loop {
            if is_my_turn && let Some(done) = attempt() {
                return Some(done);
            }
            self.passes_on = false;
            match tokio::time::timeout(LOOK_EVERY, self.bell.rings.notified()).await {
                Ok(()) if !self.line_up() => return None,
                Ok(()) => is_my_turn = true,
                Err(_) => {
                    is_my_turn = self.queue.lines().is_next(self.source, self.ticket);
                    self.passes_on = is_my_turn;
                }
            }
        }
    }

    /// Once it was told, and before it tries: if nothing comes of that it waits on, behind the others. `false`: it was told
    /// to go.
    fn line_up(&mut self) -> bool {
        let mut lines = self.queue.lines();
        if self.bell.is_sent_away.load(Ordering::Relaxed) {
            return false;
        }
        lines.heard();
        self.passes_on = self.bell.is_of_more.load(Ordering::Relaxed);
        self.ticket = lines.enter(self.source, self.bell.clone());
        true
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.queue.lines();
        if self.bell.is_sent_away.load(Ordering::Relaxed) {
            return;
        }
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        let was_told = !lines.leave(self.source, self.ticket);
        // It was told, and tries no more: whoever is next may.
        if was_told {
            lines.heard();
            self.passes_on = self.bell.is_of_more.load(Ordering::Relaxed);
        }
        if was_told || self.passes_on {
            ring_next(&mut lines, self.passes_on);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn source(last: u8) -> Source {
        Source::of([192, 0, 2, last].into())
    }

    /// Whether it is told, and done once `attempt` says so.
    fn poll<T>(waiting: &mut std::pin::Pin<Box<impl Future<Output = Option<T>>>>) -> Poll<Option<T>> {
        waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_given_to_whoever_is_next_and_goes_on_where_that_one_has_gone() {
        let queue = Queue::default();
        let places: Vec<_> = (1..=3).map(|number| queue.enter(source(number), 8).unwrap()).collect();
        let mut waiting: Vec<_> = places
            .into_iter()
            .map(|mut place| {
                place.is_first = false;
                Box::pin(place.wait(|| Some(())))
            })
            .collect();
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()), "nobody was told");
        queue.freed();
        // The first was told, and goes without a look at it.
        drop(waiting.remove(0));
        assert!(poll(&mut waiting[1]).is_pending() && poll(&mut waiting[0]).is_ready());
        drop(waiting.remove(0));
        assert_eq!(queue.waiting(), 1, "what was used is not passed on");
        assert!(poll(&mut waiting[0]).is_pending());
        tokio::time::advance(LOOK_EVERY * 2).await;
        assert!(poll(&mut waiting[0]).is_ready(), "it looks for itself");
        drop(waiting);
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_has_room_for_who_has_less_in_it() {
        let queue = Queue::default();
        let enter = |number| queue.enter(source(number), 3);
        let greedy: Vec<_> = (0..3).map(|_| enter(1).unwrap()).collect();
        assert!(enter(1).is_none(), "not for more of the same");
        let modest = enter(2).unwrap();
        assert!(enter(2).is_none(), "two and one: nobody has clearly more");
        assert!(enter(3).is_some(), "it is gone again at once");
        assert_eq!(queue.waiting(), 2);
        let mut waiting: Vec<_> = greedy.into_iter().map(|place| Box::pin(place.wait(|| None::<()>))).collect();
        let sent_away: Vec<bool> = waiting.iter_mut().map(|waiting| poll(waiting).is_ready()).collect();
        assert_eq!(sent_away, [false, true, true], "the last of the longest line");
        drop((waiting, modest));
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_nobody_told_of_is_found_by_all_and_taken_in_turn() {
        let (queue, room) = (Queue::default(), AtomicU32::new(0));
        let take = |free: u32| free.checked_sub(1);
        let attempt = || room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok();
        let places: Vec<_> = (1..=4).map(|number| queue.enter(source(number), 8).unwrap()).collect();
        let mut waiting: Vec<_> = places.into_iter().map(|place| Box::pin(place.wait(attempt))).collect();
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()));
        // A backend is back, and has room for three.
        room.store(3, Ordering::Relaxed);
        tokio::time::advance(LOOK_EVERY * 2).await;
        // The last is asked first: it is not its turn.
        let mut rounds = 0;
        while queue.waiting() > 1 {
            for index in (0..waiting.len()).rev() {
                if poll(&mut waiting[index]).is_ready() {
                    drop(waiting.remove(index));
                }
            }
            rounds += 1;
            assert!(rounds <= 4, "without another look at the clock");
        }
        assert_eq!((waiting.len(), queue.waiting()), (1, 1));
        assert!(poll(&mut waiting[0]).is_pending());
        queue.freed();
        room.store(1, Ordering::Relaxed);
        assert!(poll(&mut waiting[0]).is_ready(), "told in vain, it is in line still");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_and_found_nothing_waits_on() {
        let queue = Queue::default();
        let room = AtomicBool::new(false);
        let mut waiting =
            Box::pin(queue.enter(source(1), 1).unwrap().wait(|| room.load(Ordering::Relaxed).then_some(())));
        assert!(poll(&mut waiting).is_pending());
        for _ in 0..3 {
            queue.freed();
            assert!(poll(&mut waiting).is_pending());
        }
        room.store(true, Ordering::Relaxed);
        assert!(poll(&mut waiting).is_pending(), "nothing was freed since");
        queue.freed();
        assert!(poll(&mut waiting).is_ready());
    }
}
