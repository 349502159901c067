//! What a new process does otherwise when it takes over from one that runs; see [`crate::handover`].

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::{Options, State, metrics_listener};
use crate::admin::AdminSocket;
use crate::config::Config;
use crate::failure::{ExitKind, Failure, OrExit};
use crate::handover::{Door, HandoverError, Taker};
use crate::serve::listen;

/// The sockets in the runtime folder.
pub(super) struct Sockets {
    pub(super) door: Door,
    /// Dropped last, because it removes the folder when nothing else is in it.
    pub(super) admin: AdminSocket,
}

/// Where a socket is until the running process puts it in the place of its own: at the point of no return, and not before.
pub(super) fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Asks the running process for its sockets.
pub(super) fn begin(options: &Options) -> Result<Taker, Failure> {
    let taker = Taker::begin(&options.instance.handover_socket()).map_err(failure)?;
    let has_xdp = taker.lock.is_some();
    if has_xdp == options.listen.is_some() {
        let (old, new) = if has_xdp { ("with XDP", "alone") } else { ("alone", "with XDP") };
        return Err(Failure::new(
            ExitKind::Other,
            anyhow!("the running controller serves L7 {old}, and this one is to serve it {new}: restart it instead"),
        ));
    }
    tracing::info!(pid = taker.running.pid, version = taker.running.version, "taking over");
    Ok(taker)
}

pub(super) fn failure(error: HandoverError) -> Failure {
    let kind = match error {
        HandoverError::NotRunning { .. } => ExitKind::NotRunning,
        HandoverError::Busy { .. } => ExitKind::AlreadyRunning,
        HandoverError::Refused { .. } | HandoverError::Garbled(_) | HandoverError::Gone => ExitKind::Other,
    };
    Failure::new(kind, error)
}

pub(super) fn admin_socket(options: &Options, takes_over: bool) -> Result<AdminSocket, Failure> {
    let path = options.instance.admin_socket();
    if takes_over { AdminSocket::open_beside(beside(&path)) } else { AdminSocket::open(path) }
}

pub(super) fn door(options: &Options, takes_over: bool) -> Result<Door, Failure> {
    let path = options.instance.handover_socket();
    let path = if takes_over { beside(&path) } else { path };
    let shown = path.display().to_string();
    Door::open(path).with_context(|| format!("cannot open the handover socket {shown}")).or_exit(ExitKind::Permission)
}

/// Where metrics are scraped: the socket of the running process, unless the address is another.
pub(super) fn metrics(taker: &mut Option<Taker>, address: SocketAddr) -> Result<TcpListener, Failure> {
    let is_same = |listener: &mut TcpListener| listener.local_addr().is_ok_and(|local| local == address);
    match taker.as_mut().and_then(|taker| taker.metrics.take_if(is_same)) {
        Some(listener) => Ok(listener),
        None => metrics_listener(address),
    }
}

/// By worker. All sockets of the running process are among them: connections may wait in each.
pub(super) fn listeners(options: &Options, taker: &mut Option<Taker>) -> Result<Vec<Vec<TcpListener>>, Failure> {
    let Some(taker) = taker else {
        return match options.listen {
            Some(address) => listen::direct_all(address, options.listen_http, options.workers),
            None => listen::steered(options.workers),
        }
        .or_exit(ExitKind::PortBusy);
    };
    let handed = std::mem::take(&mut taker.listeners);
    if let Some(address) = options.listen {
        check_addresses(&handed, address, options.listen_http)?;
    }
    let more = options.workers.saturating_sub(handed.len());
    let mut sets = more_listeners(options, &handed, more).or_exit(ExitKind::PortBusy)?;
    // The first workers get the old ones' sockets: theirs are the places that connections are steered to.
    sets.splice(0..0, handed);
    let surplus = sets.split_off(options.workers);
    for (index, set) in surplus.into_iter().enumerate() {
        sets[index % options.workers].extend(set);
    }
    Ok(sets)
}

fn more_listeners(
    options: &Options,
    handed: &[Vec<TcpListener>],
    workers: usize,
) -> Result<Vec<Vec<TcpListener>>, listen::ListenError> {
    if options.listen.is_none() {
        return if workers == 0 { Ok(Vec::new()) } else { listen::steered(workers) };
    }
    let addresses = handed.first().into_iter().flatten().filter_map(|listener| listener.local_addr().ok());
    let mut sets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for address in addresses {
        for (set, listener) in sets.iter_mut().zip(listen::more_direct(address, workers)?) {
            set.push(listener);
        }
    }
    Ok(sets)
}

fn check_addresses(handed: &[Vec<TcpListener>], https: SocketAddr, http: Option<SocketAddr>) -> Result<(), Failure> {
    let of_one: Vec<SocketAddr> =
        handed.first().into_iter().flatten().filter_map(|listener| listener.local_addr().ok()).collect();
    let wanted: Vec<SocketAddr> = std::iter::once(https).chain(http).collect();
    // Port 0 is whichever the kernel chose.
    let fits = |(had, wanted): (&SocketAddr, &SocketAddr)| {
        had.ip() == wanted.ip() && (wanted.port() == 0 || had.port() == wanted.port())
    };
    if of_one.len() == wanted.len() && of_one.iter().zip(&wanted).all(fits) {
        return Ok(());
    }
    let why = anyhow!("the running controller listens on {of_one:?}, and not on {wanted:?}: restart it instead");
    Err(Failure::new(ExitKind::Other, why))
}

/// The lock of the maps, which the running process lets go of.
pub(super) fn lock(taker: Option<&Taker>) -> Result<Option<OwnedFd>, Failure> {
    let Some((taker, lock)) = taker.and_then(|taker| Some((taker, taker.lock.as_ref()?))) else { return Ok(None) };
    taker.borrow_datapath().map_err(failure)?;
    Ok(Some(lock.as_fd().try_clone_to_owned().context("cannot share the lock")?))
}

/// The store, which the running process closes.
pub(super) fn state(taker: Option<&Taker>, config: &Config) -> Result<State, Failure> {
    taker.map_or(Ok(()), Taker::borrow_store).map_err(failure)?;
    State::open(config)
}

/// Where the log goes once this process serves. Where it goes until then nothing may hold open: whoever started us waits
/// for its end.
pub(super) fn output(options: &Options, taker: Option<&Taker>) -> anyhow::Result<[OwnedFd; 2]> {
    let adopted = taker.filter(|_| options.takeover.is_some_and(|how| how.adopt_output));
    let (output, errors) = (std::io::stdout(), std::io::stderr());
    let all = match adopted {
        Some(taker) => taker.output.each_ref().map(AsFd::as_fd),
        None => [output.as_fd(), errors.as_fd()],
    };
    let [output, errors] = all.map(|one| one.try_clone_to_owned());
    let duplicated = output.and_then(|output| Ok([output, errors?]));
    duplicated.context("cannot duplicate the log's descriptors, which an upgrade hands over")
}

/// The point of no return, where somebody is taken over from. The running process puts our sockets in the place of its own.
pub(super) fn commit(options: &Options, taker: Option<Taker>, sockets: &mut Sockets) -> Result<(), Failure> {
    let (Some(taker), Some(how)) = (taker, options.takeover) else { return Ok(()) };
    let places = (options.instance.admin_socket(), options.instance.handover_socket());
    match taker.commit() {
        Ok(()) => {}
        // It has ended: nobody else serves, and nothing of what it lent can be asked back.
        Err(HandoverError::Gone) => {
            tracing::warn!(pid = taker.running.pid, "the old process has ended, without a word, while it handed over");
            put_in_place(&places.0).and_then(|()| put_in_place(&places.1)).context("cannot move the sockets")?;
        }
        Err(error) => return Err(failure(error)),
    }
    sockets.admin.is_at(places.0);
    sockets.door.is_at(places.1);
    if how.adopt_output {
        let [output, errors] = &taker.output;
        let adopted = rustix::stdio::dup2_stdout(output).and_then(|()| rustix::stdio::dup2_stderr(errors));
        if let Err(error) = adopted {
            tracing::warn!(%error, "the log does not go where the old process wrote it");
        }
    }
    tracing::info!(pid = taker.running.pid, "taken over; the old process drains");
    Ok(())
}

/// Gives the socket that was opened beside `path` that name.
pub(super) fn put_in_place(path: &Path) -> std::io::Result<()> {
    std::fs::rename(beside(path), path)
}
