//! Where a pool's backends are found, besides those that the configuration names.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::compile::{backend_fits, compile_backends};
use super::{BackendConfig, Config, Diagnostics, read};

/// Where a pool's backends are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverConfig {
    pub from: DiscoverFrom,
    /// Backends that are taken; what else is found is left out.
    pub most: usize,
    /// How long one that is found no more keeps what it has.
    pub drain_for: Duration,
    /// In which zone this host stands.
    pub zone: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverFrom {
    Dns(DnsQuestion),
    /// A list of backends, as the configuration has them.
    File(PathBuf),
}

/// What is asked of name servers, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuestion {
    pub name: String,
    pub kind: DnsKind,
    /// Whom to ask; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// It is asked again when the answer's time is over, but within these bounds.
    pub minimum_ttl: Duration,
    pub maximum_ttl: Duration,
    /// Loopback and link-local addresses are taken.
    pub allow_local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsKind {
    /// A and AAAA, with this port.
    Addresses { port: u16 },
    /// SRV, which names ports and weights, and A and AAAA of its targets.
    Services,
}

/// How a backend came into its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendOrigin {
    /// The configuration names it.
    #[default]
    Configured,
    Discovered,
}

impl fmt::Display for DiscoverFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoverFrom::Dns(DnsQuestion { name, kind: DnsKind::Addresses { port }, .. }) => {
                write!(f, "dns {name}:{port}")
            }
            DiscoverFrom::Dns(DnsQuestion { name, kind: DnsKind::Services, .. }) => write!(f, "srv {name}"),
            DiscoverFrom::File(file) => write!(f, "file {}", file.display()),
        }
    }
}

impl DiscoverConfig {
    pub const DEFAULT_MOST: usize = 256;
    pub const DEFAULT_DRAIN_FOR: Duration = Duration::from_secs(60);
}

/// The backends of `pool` that a file lists.
///
/// Errors: everything that is wrong with it; nothing of it is to be taken then. A list without backends is wrong, too.
pub fn read_backends(
    file: &Path,
    pool: &str,
    zone: Option<&str>,
    config: &Config,
) -> Result<Vec<BackendConfig>, Diagnostics> {
    let text = read(file)?;
    let mut backends = compile_backends(&file.display().to_string(), &text, pool, zone, &config.services)?;
    backends.iter_mut().for_each(|backend| backend.origin = BackendOrigin::Discovered);
    Ok(backends)
}

/// Why `address` can be no backend of `pool`, whoever says so.
pub fn unfit_backend(address: SocketAddr, pool: &str, config: &Config) -> Option<String> {
    backend_fits(address, pool, &config.services).err()
}
