//! One process takes the place of another without a connection lost: the running one, the giver, hands its sockets to a
//! new one, the taker, and lends it step by step what only one of them may have. Until the taker commits, its end is all
//! that it takes for the giver to go on as if nothing had been asked. See decisions 65 and 66.
//!
//! They speak over a socket in the runtime folder, which only their own user can reach.

mod drained;
mod giver;
mod taker;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lb_policy::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::report::DrainingProcess;
use crate::store::Revoked;

pub use drained::{Follower, Heard};
pub use giver::Giver;
pub use taker::{HandoverError, Taker, running};
pub use wire::Door;

/// Counts up when old and new could no longer understand each other; such a pair is restarted instead.
const PROTOCOL: u32 = 1;

/// A drained process that says nothing for so long has ended.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// A running controller, and how it was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub version: String,
    /// Counts up with every upgrade, from 1.
    pub generation: u32,
    /// Behind the program's name.
    pub arguments: Vec<String>,
    pub folder: String,
    /// Where it tells systemd that it serves, if anywhere.
    pub notify_socket: Option<String>,
}

/// What a drained process tells its successor, about twice a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drained {
    pub pid: u32,
    pub generation: u32,
    /// Still open.
    pub connections: u64,
    pub seconds_left: u64,
    /// It asks what ended then or later.
    pub since: UnixSeconds,
    /// Sessions that ended in it when it could no longer record that.
    pub ended: Vec<Revoked>,
}

/// What it is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct News {
    /// Of whoever answers.
    pub generation: u32,
    pub ended: Vec<Revoked>,
    /// Counts changes of API keys.
    pub api_key_changes: u64,
}

/// What can be shared of what is open.
#[derive(Debug)]
pub struct Sockets {
    /// By worker.
    pub listeners: Vec<Vec<OwnedFd>>,
    /// Where metrics are scraped.
    pub metrics: Option<OwnedFd>,
    /// Of the eBPF maps' instance; `None`: L7 runs alone.
    pub lock: Option<OwnedFd>,
    /// Where the log is written: standard output and standard error.
    pub output: [OwnedFd; 2],
}

impl Sockets {
    pub fn try_clone(&self) -> io::Result<Sockets> {
        let of_one = |of_one: &Vec<OwnedFd>| of_one.iter().map(OwnedFd::try_clone).collect();
        let [output, errors] = &self.output;
        Ok(Sockets {
            listeners: self.listeners.iter().map(of_one).collect::<io::Result<_>>()?,
            metrics: self.metrics.as_ref().map(OwnedFd::try_clone).transpose()?,
            lock: self.lock.as_ref().map(OwnedFd::try_clone).transpose()?,
            output: [output.try_clone()?, errors.try_clone()?],
        })
    }
}

/// What a giver gives. All of it may block.
pub trait Gives: Send + Sync + 'static {
    fn running(&self) -> Running;
    /// Duplicates, to be sent. Fails once they are another's.
    fn sockets(&self) -> io::Result<Sockets>;
    /// Writes no more to the maps until they are taken back.
    fn lend_datapath(&self) -> Result<(), String>;
    /// Closes the store until it is taken back.
    fn lend_store(&self);
    fn take_back(&self);
    /// All that was lent is the taker's for good. Nothing has changed if it fails.
    fn commit(&self) -> Result<(), String>;
    /// Begins to drain, after the taker has been told.
    fn go(&self);
    fn hear(&self, drained: Drained) -> News;
}

/// Processes that drain, as their successor knows them.
#[derive(Debug, Default)]
pub struct DrainingProcesses(Mutex<BTreeMap<u32, (Drained, Instant)>>);

impl DrainingProcesses {
    pub fn note(&self, drained: Drained) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, heard)| heard.elapsed() < SILENT_FOR);
        all.insert(drained.pid, (drained, Instant::now()));
    }

    pub fn list(&self) -> Vec<DrainingProcess> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, heard)| heard.elapsed() < SILENT_FOR);
        let shown = |(drained, _): &(Drained, Instant)| DrainingProcess {
            pid: drained.pid,
            generation: drained.generation,
            connections: drained.connections,
            seconds_left: drained.seconds_left,
        };
        all.values().map(shown).collect()
    }
}

#[cfg(test)]
mod tests;
