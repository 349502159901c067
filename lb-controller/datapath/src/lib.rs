//! Loads, attaches, fills and reads the eBPF programs and maps: the only crate that talks to the kernel's BPF side.
//!
//! [`Datapath`] is the only writer and belongs to one thread. [`Reader`] is cheap to clone and reads beside it, or
//! alone from the pins while no controller runs.
#![forbid(unsafe_code)]

mod apply;
mod attach;
mod clock;
mod desired;
mod doctor;
mod error;
mod genl;
mod globals;
mod hints;
mod interface;
mod kernel_tcp;
mod layout;
mod limits;
mod link;
mod lists;
mod load;
mod lock;
mod log;
pub mod maglev;
mod maps;
mod migrate;
mod nat;
mod netlink;
mod occupant;
mod pins;
mod plan;
mod preflight;
mod programs;
mod publish;
mod reader;
mod route;
mod samples;
mod sources;
mod stats;
mod steer;
mod trace;
mod try_out;
mod tunnels;
mod unload;
mod verify;
mod watch;
mod way;

pub use apply::Applied;
pub use attach::{AttachMode, AttachedInterface};
pub use desired::{
    Desired, DesiredBackend, DesiredNat, DesiredServerId, DesiredService, Endpoint, Limits, Ports, Protocols, Rate,
    Rates, Sampling, Tier,
};
pub use doctor::{Finding, Grade, examine_interface, examine_kernel};
pub use error::{ApplyError, LoadError, LoadErrorKind, MapError, OpenError, SteerError, UnloadError};
pub use globals::Globals;
pub use kernel_tcp::{CookieSetting, KernelTcp};
pub use layout::OtherVersion;
pub use lb_common::Listed;
pub use lb_common::quic::{ServerId, ServerIdLengths};
pub use lb_common::syn_cookie::SynCookies;
pub use lb_common::types::{BackendState, Forward, HashBy};
pub use lb_common::vip::VipPrefix;
pub use lb_common::{DropClass, Reason, Source, SourceClass, Verdict};
pub use lists::{CompiledLists, ListError, ListStatus, ListedPrefix, Prefix, compile as compile_lists};
pub use load::{Datapath, LoadOptions, LoadReport, LogLevel, MapsOrigin};
pub use log::XdpLog;
pub use migrate::Forgotten;
pub use nat::NatStatus;
pub use occupant::Occupant;
pub use plan::{MapOp, PlanError};
pub use reader::{BackendStatus, Reader, ServiceStatus, Way, open_pinned};
pub use samples::{Sample, SampleReader};
pub use sources::{BlockOutcome, BlockedSource, VerifiedSource};
pub use stats::{
    BackendCounters, CookieCounters, CpuCounters, NatCounters, SampleCounters, Sampled, ServiceCounters, ServiceDrops,
    Stats, TunnelCounters, WorkerCounters,
};
pub use steer::WorkerSocket;
pub use trace::{TraceError, Traced, TracedBackend, TracedService, Tracer};
pub use try_out::Outcome;
pub use unload::{UnloadReport, unload};
pub use verify::{MapMemory, Verified, VerifiedProgram, verify};

/// The eBPF object that this binary carries; `None` if it was not built before.
#[cfg(ebpf_object)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT")));
#[cfg(not(ebpf_object))]
const OBJECT: Option<&[u8]> = None;
