//! What this process hands to one that takes over from it.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{oneshot, watch};

use super::{Options, takeover};
use crate::admin::AdminState;
use crate::handover::{Drained, Gives, News, Running, Sockets};
use crate::reconcile::Wish;

/// The reconciler looks for what it is asked five times a second; writing all maps anew takes it a second.
const LENT_WITHIN: Duration = Duration::from_secs(10);

/// Duplicates of everything that is open and can be shared. `output` is where the log goes once this process serves.
pub(super) fn sockets(
    listeners: &[Vec<TcpListener>],
    metrics: Option<&TcpListener>,
    lock: Option<OwnedFd>,
    output: [OwnedFd; 2],
) -> anyhow::Result<Sockets> {
    let duplicate = |listener: &TcpListener| listener.as_fd().try_clone_to_owned();
    let of_one = |of_one: &Vec<TcpListener>| of_one.iter().map(duplicate).collect();
    let listeners = listeners.iter().map(of_one).collect::<std::io::Result<_>>();
    let metrics = metrics.map(duplicate).transpose();
    let why = "cannot duplicate the sockets that an upgrade hands over";
    Ok(Sockets { listeners: listeners.context(why)?, metrics: metrics.context(why)?, lock, output })
}

pub(super) struct Gift {
    admin: Arc<AdminState>,
    /// `None` once they are another process's: held open here, they would outlive whoever accepts.
    sockets: Mutex<Option<Sockets>>,
    /// Of the admin socket, and of the one for handing over.
    places: [PathBuf; 2],
    /// Lets the reconciler go on; dropped: it ends.
    back: Mutex<Option<oneshot::Sender<()>>>,
    given: watch::Sender<bool>,
}

impl Gift {
    pub(super) fn new(options: &Options, sockets: Sockets, admin: &Arc<AdminState>) -> Gift {
        let places = [options.instance.admin_socket(), options.instance.handover_socket()];
        let (sockets, back, given) = (Mutex::new(Some(sockets)), Mutex::default(), watch::Sender::new(false));
        Gift { admin: admin.clone(), sockets, places, back, given }
    }

    /// Becomes true once everything is another process's.
    pub(super) fn given(&self) -> watch::Receiver<bool> {
        self.given.subscribe()
    }

    fn back(&self) -> Option<oneshot::Sender<()>> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Gives for Gift {
    fn running(&self) -> Running {
        let folder = std::env::current_dir().unwrap_or_default();
        Running {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.admin.generation,
            arguments: std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect(),
            folder: folder.to_string_lossy().into_owned(),
            notify_socket: std::env::var("NOTIFY_SOCKET").ok(),
        }
    }

    fn sockets(&self) -> std::io::Result<Sockets> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.as_ref().ok_or(std::io::ErrorKind::NotConnected)?.try_clone()
    }

    fn lend_datapath(&self) -> Result<(), String> {
        let ((lent, is_lent), (back, comes_back)) = (channel(), oneshot::channel());
        let asked = self.admin.wishes.send(Wish::Lend { lent, back: comes_back });
        asked.map_err(|_| "this controller is stopping".to_owned())?;
        is_lent.recv_timeout(LENT_WITHIN).map_err(|_| "the reconciler does not let go of the eBPF maps".to_owned())?;
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(back);
        Ok(())
    }

    fn lend_store(&self) {
        self.admin.edge.step_up.store().lend();
    }

    fn take_back(&self) {
        self.admin.edge.step_up.store().take_back();
        if let Some(back) = self.back() {
            let _ = back.send(());
        }
    }

    fn commit(&self) -> Result<(), String> {
        let [admin, door] = &self.places;
        let failed = |error: std::io::Error| format!("its sockets could not be moved to {}: {error}", admin.display());
        // Looked at first: of two that are to be moved, none is if the second is not there.
        std::fs::symlink_metadata(takeover::beside(door)).map_err(failed)?;
        takeover::put_in_place(admin).map_err(failed)?;
        if let Err(error) = takeover::put_in_place(door) {
            tracing::error!(%error, "the new process's handover socket could not be moved: it can only be restarted");
        }
        self.admin.edge.leave();
        self.admin.edge.step_up.store().give_away();
        drop(self.back());
        Ok(())
    }

    fn go(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.given.send_replace(true);
    }

    fn hear(&self, drained: Drained) -> News {
        let edge = &self.admin.edge;
        if !drained.ended.is_empty() {
            edge.step_up.end_as_predecessor_did(&drained.ended);
        }
        let ended = edge.step_up.ended_since(drained.since);
        self.admin.draining.note(drained);
        News { generation: self.admin.generation, ended, api_key_changes: edge.api_keys.changes() }
    }
}
