//! Attaching XDP and putting the workers' sockets in place.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context;
use lb_datapath::{
    CompiledLists, CookieSetting, Datapath, Finding, Grade, KernelTcp, LoadError, LoadErrorKind, LoadOptions,
    LoadReport, MapsOrigin,
};

use super::Options;
use crate::config::Config;
use crate::failure::{ExitKind, Failure, OrExit};
use crate::logging::LogLevel;
use crate::reconcile::{Reconciler, WorkerSockets};

/// What the datapath is opened for.
pub(super) struct Place<'a> {
    pub(super) options: &'a Options,
    pub(super) config: &'a Arc<Config>,
    pub(super) listeners: &'a [Vec<TcpListener>],
    pub(super) lists: &'a CompiledLists,
}

/// Loads, writes the services and steers them to the listeners; then opens what `last` says, and attaches. Tells where the
/// maps came from, too. `handed_lock`: of a process that has let go of the maps.
pub(super) fn open<T>(
    place: Place<'_>,
    handed_lock: Option<OwnedFd>,
    last: impl FnOnce() -> Result<T, Failure>,
) -> Result<(Reconciler, MapsOrigin, T), Failure> {
    let Place { options, config, listeners, lists } = place;
    let sockets = listeners.iter().map(|of_one| WorkerSockets::of(of_one)).collect::<std::io::Result<_>>();
    let sockets = sockets.context("cannot duplicate the workers' sockets")?;
    let talkative = matches!(options.log_level, LogLevel::Debug | LogLevel::Trace);
    let datapath = Datapath::prepare(&LoadOptions {
        interfaces: config.interfaces.clone(),
        pin_root: options.instance.pin_root(),
        lock_folder: options.instance.runtime_dir(),
        log_level: if talkative { lb_datapath::LogLevel::Debug } else { lb_datapath::LogLevel::Off },
        nat_capacity: config.nat.capacity,
        handed_lock: handed_lock.map(Arc::new),
        ..LoadOptions::default()
    })
    .map_err(load_failure)?;
    tell_of_cookies(config, &datapath.kernel_tcp());
    let is_fresh = datapath.is_fresh();
    let mut reconciler = Reconciler::new(datapath, config.clone(), sockets);
    match fill_and_attach(&mut reconciler, lists, last) {
        Ok((report, opened)) => {
            tell_of(&report);
            Ok((reconciler, report.maps, opened))
        }
        Err(failure) => {
            // What an earlier run attached was serving before this start, and stays.
            drop(reconciler);
            if is_fresh {
                undo(options);
            }
            Err(failure)
        }
    }
}

/// Lists, services and backends come first: no packet may be judged by maps that lack them.
fn fill_and_attach<T>(
    reconciler: &mut Reconciler,
    lists: &CompiledLists,
    last: impl FnOnce() -> Result<T, Failure>,
) -> Result<(LoadReport, T), Failure> {
    let filled = reconciler.replace_lists(lists).and_then(|()| reconciler.settle());
    filled.or_exit(ExitKind::Kernel)?;
    let opened = last()?;
    Ok((reconciler.attach().map_err(load_failure)?, opened))
}

fn load_failure(error: LoadError) -> Failure {
    Failure::new(exit_kind(error.kind()), error)
}

fn tell_of(report: &LoadReport) {
    for interface in &report.interfaces {
        let (name, mode, replaced) = (&interface.name, interface.mode.name(), interface.replaced);
        match &interface.warning {
            Some(warning) => tracing::warn!(interface = name, mode, "{warning}"),
            None => tracing::info!(interface = name, mode, replaced, "XDP attached"),
        }
        for finding in lb_datapath::examine_interface(name).iter().filter(|finding| finding.grade > Grade::Unknown) {
            let Finding { what, found, remedy, .. } = finding;
            tracing::warn!(interface = name, "{what}: {found}; {remedy}");
        }
    }
    match &report.maps {
        MapsOrigin::Fresh => tracing::info!("new eBPF maps"),
        MapsOrigin::Reused => tracing::info!("eBPF maps of the earlier run go on"),
        MapsOrigin::Migrated { forgotten } if forgotten.is_empty() => {
            tracing::info!("eBPF maps of another version were taken over");
        }
        MapsOrigin::Migrated { forgotten } => {
            let forgotten: Vec<&str> = forgotten.iter().map(|what| what.name()).collect();
            let forgotten = forgotten.join(", ");
            tracing::warn!(forgotten, "eBPF maps of another version were taken over, except what means something else");
        }
    }
}

/// What the kernel's settings keep SYN cookies from doing. They are read at the start alone.
fn tell_of_cookies(config: &Config, kernel: &KernelTcp) {
    let wanted = |mode: &str| config.services.iter().find(|service| service.syn_cookies.name() == mode);
    let any = wanted("always").or_else(|| wanted("auto"));
    match (kernel.cookies, any, wanted("always")) {
        (CookieSetting::Never, Some(service), _) => tracing::warn!(
            service = service.name,
            "SYN cookies are off: the kernel takes none. `sysctl -w net.ipv4.tcp_syncookies=1`, or 2, and a restart \
             let XDP answer floods of SYNs"
        ),
        (CookieSetting::WhenFull, _, Some(service)) => tracing::warn!(
            service = service.name,
            "XDP answers SYNs only while a listener's queue has been full of late: for `syn_cookies: always`, \
             `sysctl -w net.ipv4.tcp_syncookies=2` and restart"
        ),
        (CookieSetting::WhenFull | CookieSetting::Always, Some(_), _) if !kernel.plain_timestamps => tracing::info!(
            "connections begun with a SYN cookie have no window scale and no selective acknowledgements; \
             `sysctl -w net.ipv4.tcp_timestamps=2` and a restart give them both"
        ),
        _ => {}
    }
}

/// Leaves nothing of a start that failed after attaching. The datapath must have been dropped.
pub(super) fn undo(options: &Options) {
    if let Err(error) = lb_datapath::unload(&options.instance.pin_root(), &options.instance.runtime_dir()) {
        let error = anyhow::Error::from(error);
        tracing::warn!("not all was undone; `lb-controller unload` does it: {error:#}");
    }
}

fn exit_kind(kind: LoadErrorKind) -> ExitKind {
    match kind {
        LoadErrorKind::Capability => ExitKind::Permission,
        LoadErrorKind::Interface | LoadErrorKind::InterfaceBusy => ExitKind::Interface,
        LoadErrorKind::AlreadyRunning => ExitKind::AlreadyRunning,
        LoadErrorKind::ObjectMissing
        | LoadErrorKind::Kernel
        | LoadErrorKind::Bpffs
        | LoadErrorKind::Layout
        | LoadErrorKind::Verifier
        | LoadErrorKind::System => ExitKind::Kernel,
    }
}
