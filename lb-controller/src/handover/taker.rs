//! The new process's side.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::wire::{Ask, Channel, Tell};
use super::{PROTOCOL, Running};

/// The running process answers at once, but for a store to be closed and maps to be let go of.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error(
        "no controller that can be taken over from answers at {path}; start one with `lb-controller run --config FILE`"
    )]
    NotRunning { path: String },
    #[error("the running controller refused: {why}")]
    Refused { why: String },
    #[error("the running controller refused: {why}")]
    Busy { why: String },
    #[error("the running controller was not understood: {0}; restart it instead")]
    Garbled(#[source] io::Error),
    #[error("the running controller ended before it had handed over; start this one anew")]
    Gone,
}

/// A takeover under way. Dropping it is all that it takes for the running process to go on.
#[derive(Debug)]
pub struct Taker {
    channel: Channel,
    pub running: Running,
    /// Where the running process writes its log: standard output and standard error.
    pub output: [OwnedFd; 2],
    /// By worker.
    pub listeners: Vec<Vec<TcpListener>>,
    pub metrics: Option<TcpListener>,
    /// Of the eBPF maps' instance; `None`: L7 runs alone there.
    pub lock: Option<OwnedFd>,
}

/// The controller that answers at `door`, and where it writes its log.
pub fn running(door: &Path) -> Result<(Running, [OwnedFd; 2]), HandoverError> {
    let channel = connect(door)?;
    match ask(&channel, &Ask::Who)? {
        (Tell::Who(running), output) => Ok((running, pair(output)?)),
        (other, _) => Err(unexpected(other)),
    }
}

impl Taker {
    /// Begins to take over from the controller that answers at `door`.
    pub fn begin(door: &Path) -> Result<Taker, HandoverError> {
        let channel = connect(door)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let take_over = Ask::TakeOver { protocol: PROTOCOL, pid: std::process::id(), version };
        let (offer, output) = ask(&channel, &take_over)?;
        let Tell::Offer { running, sockets, has_metrics, has_lock } = offer else { return Err(unexpected(offer)) };
        let count = sockets.iter().sum::<usize>() + usize::from(has_metrics) + usize::from(has_lock);
        let mut all = descriptors(&channel, count)?;
        let listeners = sockets.iter().map(|of_one| all.drain(..of_one).map(TcpListener::from).collect()).collect();
        let metrics = if has_metrics { all.pop_front().map(TcpListener::from) } else { None };
        let lock = if has_lock { all.pop_front() } else { None };
        Ok(Taker { channel, running, output: pair(output)?, listeners, metrics, lock })
    }

    /// The running process writes no more to the maps.
    pub fn borrow_datapath(&self) -> Result<(), HandoverError> {
        self.step(&Ask::LendDatapath)
    }

    /// The running process has closed the store.
    pub fn borrow_store(&self) -> Result<(), HandoverError> {
        self.step(&Ask::LendStore)
    }

    /// The point of no return: everything is this process's from now on.
    pub fn commit(&self) -> Result<(), HandoverError> {
        self.step(&Ask::Commit)
    }

    fn step(&self, step: &Ask) -> Result<(), HandoverError> {
        match ask(&self.channel, step)? {
            (Tell::Done, _) => Ok(()),
            (other, _) => Err(unexpected(other)),
        }
    }
}

fn connect(door: &Path) -> Result<Channel, HandoverError> {
    Channel::connect(door).map_err(|_| HandoverError::NotRunning { path: door.display().to_string() })
}

fn ask(channel: &Channel, ask: &Ask) -> Result<(Tell, Vec<OwnedFd>), HandoverError> {
    channel.send(ask, &[]).map_err(|_| HandoverError::Gone)?;
    channel.receive(ANSWERS_WITHIN).map_err(HandoverError::Garbled)?.ok_or(HandoverError::Gone)
}

fn descriptors(channel: &Channel, count: usize) -> Result<VecDeque<OwnedFd>, HandoverError> {
    let mut all = VecDeque::with_capacity(count);
    while all.len() < count {
        let received = channel.receive::<Tell>(ANSWERS_WITHIN).map_err(HandoverError::Garbled)?;
        match received.ok_or(HandoverError::Gone)? {
            (Tell::More, some) if !some.is_empty() => all.extend(some),
            (other, _) => return Err(unexpected(other)),
        }
    }
    Ok(all)
}

fn pair(output: Vec<OwnedFd>) -> Result<[OwnedFd; 2], HandoverError> {
    let wrong = |_| HandoverError::Garbled(io::Error::other("its output did not come with the answer"));
    output.try_into().map_err(wrong)
}

fn unexpected(tell: Tell) -> HandoverError {
    match tell {
        Tell::Refused { why, busy: true } => HandoverError::Busy { why },
        Tell::Refused { why, busy: false } => HandoverError::Refused { why },
        _ => HandoverError::Garbled(io::Error::other("an answer out of turn")),
    }
}
