//! The running process's side: it answers who asks, one taker at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::wire::{Ask, Channel, Door, MOST_DESCRIPTORS, Tell, accept};
use super::{Gives, News, PROTOCOL, Sockets};

/// What a taker may do between two steps: reading certificates and a million prefixes, having programs verified.
const STEP_WITHIN: Duration = Duration::from_secs(120);

/// Whoever comes says at once what it wants; drained processes then ask twice a second.
const ASKS_WITHIN: Duration = Duration::from_secs(10);

/// Conversations at once: the command line, one taker, and the processes that drain.
const MOST_CONVERSATIONS: usize = 32;

/// What ended, in one message: some 250 bytes each.
const MOST_ENDED: usize = 400;

/// Answers at a door until the process ends.
#[derive(Clone)]
pub struct Giver {
    gives: Arc<dyn Gives>,
    taken_over: Arc<AtomicBool>,
    /// What it knows is no longer news.
    has_left: Arc<AtomicBool>,
    conversations: Arc<AtomicUsize>,
}

impl Giver {
    /// Starts the thread that answers.
    pub fn start(door: &Door, gives: Arc<dyn Gives>) -> io::Result<()> {
        let listener = door.listener()?;
        let (taken_over, has_left, conversations) = Default::default();
        let giver = Giver { gives, taken_over, has_left, conversations };
        std::thread::Builder::new().name("handover".to_owned()).spawn(move || giver.answer_all(&listener))?;
        Ok(())
    }

    fn answer_all(&self, listener: &OwnedFd) {
        loop {
            let Ok(channel) = accept(listener) else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if self.conversations.fetch_add(1, Ordering::Relaxed) >= MOST_CONVERSATIONS {
                self.conversations.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let giver = self.clone();
            let converse = move || {
                if let Err(error) = giver.converse(&channel) {
                    tracing::debug!(%error, "a conversation at the handover socket broke off");
                }
                giver.conversations.fetch_sub(1, Ordering::Relaxed);
            };
            if std::thread::Builder::new().name("handover".to_owned()).spawn(converse).is_err() {
                self.conversations.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn converse(&self, channel: &Channel) -> io::Result<()> {
        while let Some((ask, _)) = channel.receive::<Ask>(ASKS_WITHIN)? {
            match ask {
                Ask::Who => {
                    let output = self.gives.sockets()?.output;
                    channel.send(&Tell::Who(self.gives.running()), &output.each_ref().map(AsFd::as_fd))?;
                }
                // Its successor's socket has the name by now.
                Ask::Follow(_) if self.has_left.load(Ordering::Acquire) => return Ok(()),
                Ask::Follow(drained) => tell_news(channel, self.gives.hear(drained))?,
                Ask::TakeOver { protocol, pid, version } => {
                    return self.be_taken_over(channel, protocol, pid, &version);
                }
                Ask::LendDatapath | Ask::LendStore | Ask::Commit => {
                    return refuse(channel, "nobody takes over here".to_owned(), false);
                }
            }
        }
        Ok(())
    }

    fn be_taken_over(&self, channel: &Channel, protocol: u32, pid: u32, version: &str) -> io::Result<()> {
        if protocol != PROTOCOL {
            let why =
                format!("this controller hands over by protocol {PROTOCOL}, and not {protocol}; restart it instead");
            return refuse(channel, why, false);
        }
        if self.taken_over.swap(true, Ordering::Acquire) {
            return refuse(channel, "another process is taking over already; wait for its end".to_owned(), true);
        }
        tracing::info!(pid, version, "a new process is taking over");
        match self.step_by_step(channel) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.gives.take_back();
                self.taken_over.store(false, Ordering::Release);
                tracing::warn!(pid, "the new process did not take over, and this one goes on: {error}");
                // Where it still listens it must not believe that it has taken over.
                refuse(channel, error.to_string(), false)
            }
        }
    }

    /// Fails as long as nothing has changed for good.
    fn step_by_step(&self, channel: &Channel) -> io::Result<()> {
        self.offer(channel)?;
        loop {
            let Some((ask, _)) = channel.receive::<Ask>(STEP_WITHIN)? else {
                return Err(io::Error::other("it ended"));
            };
            match ask {
                Ask::LendDatapath => self.gives.lend_datapath().map_err(io::Error::other)?,
                Ask::LendStore => self.gives.lend_store(),
                Ask::Commit => {
                    self.gives.commit().map_err(io::Error::other)?;
                    self.has_left.store(true, Ordering::Release);
                    // Whether or not the taker hears it: all is its own by now.
                    let told = channel.send(&Tell::Done, &[]);
                    self.gives.go();
                    return told.or(Ok(()));
                }
                _ => return Err(io::Error::other("it asked for something out of turn")),
            }
            channel.send(&Tell::Done, &[])?;
        }
    }

    fn offer(&self, channel: &Channel) -> io::Result<()> {
        let Sockets { listeners, metrics, lock, output } = self.gives.sockets()?;
        let offer = Tell::Offer {
            running: self.gives.running(),
            sockets: listeners.iter().map(Vec::len).collect(),
            has_metrics: metrics.is_some(),
            has_lock: lock.is_some(),
        };
        channel.send(&offer, &output.each_ref().map(AsFd::as_fd))?;
        let all: Vec<BorrowedFd<'_>> =
            listeners.iter().flatten().chain(&metrics).chain(&lock).map(AsFd::as_fd).collect();
        all.chunks(MOST_DESCRIPTORS).try_for_each(|some| channel.send(&Tell::More, some))
    }
}

fn refuse(channel: &Channel, why: String, busy: bool) -> io::Result<()> {
    channel.send(&Tell::Refused { why, busy }, &[])
}

fn tell_news(channel: &Channel, news: News) -> io::Result<()> {
    let mut parts: Vec<_> = news.ended.chunks(MOST_ENDED).map(<[_]>::to_vec).collect();
    let last = parts.pop().unwrap_or_default();
    let with = |ended| News { ended, ..News { ended: Vec::new(), ..news } };
    for ended in parts {
        channel.send(&Tell::News { news: with(ended), more: true }, &[])?;
    }
    channel.send(&Tell::News { news: with(last), more: false }, &[])
}
