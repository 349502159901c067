//! Which socket gets a worker's connections.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use lb_common::maps::{MAX_WORKERS, worker_socket_index};

use crate::error::SteerError;
use crate::load::Datapath;

/// A listening TCP socket of one worker. It may be bound to any address and port: VIPs need not be local addresses.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSocket<'a> {
    pub service: &'a str,
    /// From 0 without gaps.
    pub worker: u16,
    pub socket: BorrowedFd<'a>,
    /// The socket's own family; it gets VIPs of that family.
    pub ipv6: bool,
}

impl Datapath {
    /// Puts the sockets in place and spreads each named service's connections over its workers. Services that are not
    /// named keep what they have. The sockets must be listening; a closed one leaves its place by itself.
    pub fn steer_to(&mut self, sockets: &[WorkerSocket<'_>]) -> Result<(), SteerError> {
        let counts = count_workers(sockets)?;
        for socket in sockets {
            let service = self
                .state
                .service(socket.service)
                .ok_or_else(|| SteerError::UnknownService { service: socket.service.to_owned() })?;
            let index = worker_socket_index(service, socket.ipv6, socket.worker).ok_or_else(|| too_many(socket))?;
            self.maps.sockets.set(index, &socket.socket)?;
        }
        // The sockets are in place before the table sends them packets.
        self.workers.extend(counts);
        let desired = self.desired.clone();
        self.apply(&desired)?;
        Ok(())
    }
}

fn count_workers(sockets: &[WorkerSocket<'_>]) -> Result<BTreeMap<String, u16>, SteerError> {
    let mut seen: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for socket in sockets {
        if socket.worker as usize >= MAX_WORKERS {
            return Err(too_many(socket));
        }
        seen.entry(socket.service).or_default().push(socket.worker);
    }
    let mut counts = BTreeMap::new();
    for (service, workers) in seen {
        let count = workers.iter().max().map_or(0, |worker| worker + 1);
        if let Some(missing) = (0..count).find(|worker| !workers.contains(worker)) {
            return Err(SteerError::Gap { service: service.to_owned(), missing });
        }
        counts.insert(service.to_owned(), count);
    }
    Ok(counts)
}

fn too_many(socket: &WorkerSocket<'_>) -> SteerError {
    SteerError::TooManyWorkers { service: socket.service.to_owned(), worker: socket.worker, limit: MAX_WORKERS }
}
