//! What goes on beside requests. In a process that has a successor only what needs nothing of the store.

use std::sync::Arc;
use std::time::Duration;

use crate::edge::Edge;
use crate::serve::tls::Tls;

const TEND_EVERY: Duration = Duration::from_secs(60);
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

pub(super) fn spawn(edge: &Arc<Edge>, tls: &Arc<Tls>) {
    tokio::spawn(tend(edge.clone()));
    tokio::spawn(follow_signals(edge.clone()));
    tokio::spawn(follow_tls(tls.clone()));
}

/// Forgets expired transactions and sessions and rotates keys. It writes to disk, so it leaves this thread.
async fn tend(edge: Arc<Edge>) {
    let mut every = tokio::time::interval(TEND_EVERY);
    loop {
        every.tick().await;
        if edge.is_leaving() {
            return;
        }
        let edge = edge.clone();
        let tend = move || {
            edge.step_up.tend();
            edge.signals.tend();
        };
        if tokio::task::spawn_blocking(tend).await.is_err() {
            tracing::error!("tending the step-up engine panicked; trying again in a minute");
        }
    }
}

/// Takes in new databases of places and new lists, and tries a store that failed.
async fn follow_signals(edge: Arc<Edge>) {
    let mut every = tokio::time::interval(FOLLOW_EVERY);
    loop {
        every.tick().await;
        let edge = edge.clone();
        if tokio::task::spawn_blocking(move || follow(&edge)).await.is_err() {
            tracing::error!("reading a new file of facts, or trying the store again, panicked; trying again");
        }
    }
}

fn follow(edge: &Edge) {
    edge.snapshot().sources.follow();
    if !edge.is_leaving() && edge.step_up.needs_mending() {
        edge.step_up.mend();
    }
}

/// Takes in new certificates, and changes the keys of tickets.
async fn follow_tls(tls: Arc<Tls>) {
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let tls = tls.clone();
        if tokio::task::spawn_blocking(move || tls.look()).await.is_err() {
            tracing::error!("looking for new certificates panicked; the old ones go on");
        }
    }
}
