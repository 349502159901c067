//! What can go wrong, each with the remedy.

use std::io;
use std::path::PathBuf;

use lb_common::vip::VipPrefix;

use crate::occupant::Occupant;
use crate::plan::PlanError;

/// Groups [`LoadError`]s by what the operator has to do; the command line gives each an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadErrorKind {
    /// The binary was built without the eBPF object.
    ObjectMissing,
    /// The process lacks a capability.
    Capability,
    /// The kernel is too old.
    Kernel,
    /// No BPF file system to pin to.
    Bpffs,
    /// The interface does not exist.
    Interface,
    /// Another XDP program is attached there.
    InterfaceBusy,
    /// Another instance runs on the same pins.
    AlreadyRunning,
    /// Pinned maps are not what this version expects.
    Layout,
    /// The kernel refused the program.
    Verifier,
    /// Anything else the kernel or the file system refused.
    System,
}

/// Nothing is left attached that was not attached before.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("this binary carries no eBPF object; run `cargo xtask build`, which builds the object and then the binary")]
    ObjectMissing,
    #[error("missing {}; run as root, or grant them with `setcap` or AmbientCapabilities= of systemd", missing.join(", "))]
    MissingCapability { missing: Vec<&'static str> },
    #[error("kernel {found} is too old: {needed} or newer is needed")]
    OldKernel { found: String, needed: &'static str },
    #[error(
        "{path} is not on a BPF file system; run `mount -t bpf bpf /sys/fs/bpf`, or choose pins below a mounted one"
    )]
    NoBpffs { path: PathBuf },
    #[error("there is no interface {name:?} in this network namespace; there are: {}", present.join(", "))]
    NoInterface { name: String, present: Vec<String> },
    #[error("interface {name:?} already runs another XDP program{occupant}")]
    InterfaceBusy { name: String, occupant: Occupant },
    #[error("another instance runs with these pins{}; stop it first, or give this one pins of its own (lock file {})",
        pid.map(|pid| format!(" as process {pid}")).unwrap_or_default(), lock_file.display())]
    AlreadyRunning { pid: Option<u32>, lock_file: PathBuf },
    #[error("pinned map {} has another layout ({difference}); remove the pins with `lb-controller unload`", path.display())]
    LayoutMismatch { path: PathBuf, difference: String },
    #[error("the verifier of kernel {kernel} refused program {program} ({finding}); please report both")]
    Refused {
        program: &'static str,
        kernel: String,
        /// The end of the verifier's log.
        finding: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot attach to interface {name:?}, natively ({native}) or generically")]
    Attach {
        name: String,
        native: String,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("cannot {action}")]
    System {
        action: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Map(#[from] MapError),
}

impl LoadError {
    pub fn kind(&self) -> LoadErrorKind {
        match self {
            Self::ObjectMissing => LoadErrorKind::ObjectMissing,
            Self::MissingCapability { .. } => LoadErrorKind::Capability,
            Self::OldKernel { .. } => LoadErrorKind::Kernel,
            Self::NoBpffs { .. } => LoadErrorKind::Bpffs,
            Self::NoInterface { .. } => LoadErrorKind::Interface,
            Self::InterfaceBusy { .. } => LoadErrorKind::InterfaceBusy,
            Self::AlreadyRunning { .. } => LoadErrorKind::AlreadyRunning,
            Self::LayoutMismatch { .. } => LoadErrorKind::Layout,
            Self::Refused { .. } => LoadErrorKind::Verifier,
            Self::Attach { .. } | Self::System { .. } | Self::Map(_) => LoadErrorKind::System,
        }
    }

    pub(crate) fn system(
        action: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::System { action: action.into(), source: source.into() }
    }
}

/// The kernel refused a read or a write of a map.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} map {map}")]
pub struct MapError {
    pub(crate) action: &'static str,
    pub(crate) map: &'static str,
    #[source]
    pub(crate) source: aya::maps::MapError,
}

impl MapError {
    /// The process may not use the pin or the bpf(2) call.
    pub(crate) fn is_denied(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&self.source);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_permission) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// The maps may hold part of the change; applying again completes it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("cannot {action} the local route of VIP {vip}; is the loopback interface up (`ip link set lo up`)?")]
    Route {
        action: &'static str,
        vip: VipPrefix,
        #[source]
        source: io::Error,
    },
}

/// Why worker sockets were not put into place.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    #[error("service {service:?} is not in the maps; apply the configuration that names it first")]
    UnknownService { service: String },
    #[error("worker {worker} of service {service:?} is beyond the {limit} workers a service can have")]
    TooManyWorkers { service: String, worker: u16, limit: usize },
    #[error("service {service:?} has no socket for worker {missing}; number the workers from 0 without gaps")]
    Gap { service: String, missing: u16 },
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Why the pins cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("nothing is loaded under {}; start it with `lb-controller run`", pin_root.display())]
    NothingLoaded { pin_root: PathBuf },
    #[error("the maps under {} were written by another version of lb; use that version, or unload", pin_root.display())]
    OtherLayout { pin_root: PathBuf },
    #[error("cannot read the pins under {}; run as root", pin_root.display())]
    Denied { pin_root: PathBuf },
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Why something is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UnloadError {
    #[error("the controller is running{}; stop it first", pid.map(|pid| format!(" as process {pid}")).unwrap_or_default())]
    Running { pid: Option<u32> },
    #[error("cannot remove {}{}", path.display(), as_root(source))]
    Pin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove the local routes of the VIPs{}", as_root(.0))]
    Route(#[source] io::Error),
    #[error("cannot lock {}{}", path.display(), as_root(source))]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl UnloadError {
    /// The process may not remove it.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Running { .. } => false,
            Self::Pin { source, .. } | Self::Route(source) | Self::Lock { source, .. } => is_permission(source),
        }
    }
}

fn is_permission(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The remedy, where it is that.
fn as_root(error: &io::Error) -> &'static str {
    if is_permission(error) { "; run as root" } else { "" }
}

/// The error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
