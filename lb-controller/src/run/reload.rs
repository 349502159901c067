//! Following the configuration file: a good edit takes effect as a whole, a bad one not at all.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::Context;
use lb_datapath::VipPrefix;
use tokio::runtime::Handle;

use crate::config::{CertificateFiles, Config, Diagnostics, Known, Watcher};
use crate::edge::{Edge, Snapshot};
use crate::failure::{ExitKind, Failure, OrExit};
use crate::health::HealthChecks;
use crate::identity::{self, Identities};
use crate::lists::{self, Follower, Lists, Prepared};
use crate::pool::Pools;
use crate::reconcile::Wish;
use crate::serve::tls::{CertificateSwitch, Certificates, ClientAuthorities, self_signed};
use crate::signals::Sources;

/// What a new configuration reaches.
pub(super) struct Reload {
    /// As the file listed them at the start, whatever `--iface` made of it.
    pub(super) file_interfaces: Vec<String>,
    pub(super) edge: Arc<Edge>,
    pub(super) certificates: Arc<CertificateSwitch>,
    /// Where identity providers are asked.
    pub(super) issuers: Handle,
    pub(super) health: HealthChecks,
    pub(super) wishes: Sender<Wish>,
    pub(super) lists: Arc<Lists>,
    pub(super) lists_follower: Follower,
}

impl Reload {
    /// Follows `file`, last read as `text`, until the returned value is dropped.
    pub(super) fn follow(self, file: &Path, text: String) -> Result<Watcher, Failure> {
        let known = Known { text, taken_in: self.edge.snapshot().config.taken_in.clone() };
        let watcher = Watcher::start(file, Some(known), move |loaded| match loaded {
            Ok(config) => self.take(config),
            Err(diagnostics) => refused(&diagnostics),
        });
        Ok(watcher.with_context(|| format!("cannot follow {}", file.display()))?)
    }

    fn take(&self, mut config: Config) {
        let current = self.edge.snapshot();
        if config.interfaces != self.file_interfaces {
            tracing::warn!("`interfaces` take effect with the next start");
        }
        keep_what_needs_a_restart(&current.config, &mut config);
        let certificates = match certificates(&config) {
            Ok(certificates) => certificates,
            Err(error) => {
                tracing::error!("new configuration refused, the old one goes on: {error:#}");
                return;
            }
        };
        let lists = match self.lists.prepare(&config.lists) {
            Ok(lists) => lists,
            Err(refusal) => {
                tracing::error!("new configuration refused for its lists, the old one goes on:\n{refusal}");
                return;
            }
        };
        let sources = match Sources::open(&config, &current.sources) {
            Ok(sources) => sources,
            Err(error) => {
                tracing::error!("new configuration refused, the old one goes on: {error:#}");
                return;
            }
        };
        let identities = Identities::build(&config, Some(&current.identities), &self.edge.clock, &self.issuers);
        let identities = match identities {
            Ok(identities) => Arc::new(identities),
            Err(error) => {
                tracing::error!("new configuration refused, the old one goes on: {error:#}");
                return;
            }
        };
        let config = Arc::new(config);
        let pools = Pools::build(&config.pools, Some(&current.pools));
        let version = current.version + 1;
        self.certificates.replace(certificates);
        if let Some(lists) = lists {
            self.put_in_force(lists);
        }
        self.edge.metrics.show_pools(&pools);
        // Before the checks begin: what they say of backends that no configuration names is not taken in.
        let _ = self.wishes.send(Wish::Config(config.clone()));
        self.health.watch(&pools);
        self.edge.replace_snapshot(Snapshot { version, config, pools, identities, sources });
        if let Err(error) = client_authorities(&self.edge) {
            tracing::error!("the authorities of client certificates stay as they were: {error:#}");
        }
        tracing::info!(version, "new configuration in force");
    }

    fn put_in_force(&self, lists: Prepared) {
        self.lists.put(lists);
        if let Err(error) = self.lists_follower.follow_files() {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
    }
}

/// The lists that a configuration names, read; every mistake is printed before failing.
pub(super) fn lists(config: &Config) -> Result<Prepared, Failure> {
    lists::check(&config.lists).map_err(|refusal| {
        eprintln!("{refusal}");
        Failure::new(ExitKind::Config, anyhow::anyhow!("the deny and allow lists were refused"))
    })
}

/// Whether the lists that the configuration names can be read; tells how many prefixes they hold.
pub fn check_lists(config: &Config) -> Result<usize, Failure> {
    Ok(lists(config)?.prefixes())
}

fn refused(diagnostics: &Diagnostics) {
    tracing::error!("new configuration refused, the old one goes on:\n{diagnostics}");
}

fn keep_what_needs_a_restart(current: &Config, next: &mut Config) {
    next.interfaces.clone_from(&current.interfaces);
    if next.nat.capacity != current.nat.capacity {
        tracing::warn!("`capacity` of `nat` takes effect with the next start after `lb-controller unload`");
        next.nat.capacity = current.nat.capacity;
    }
    if next.state_dir != current.state_dir || next.metrics != current.metrics {
        tracing::warn!("`state_dir` and `metrics` take effect with the next start");
        next.state_dir.clone_from(&current.state_dir);
        next.metrics = current.metrics;
    }
}

/// The configuration's certificates, or a self-signed one for its VIPs and hosts.
pub(super) fn certificates(config: &Config) -> anyhow::Result<Certificates> {
    if !config.certificates.is_empty() {
        return read(&config.certificates);
    }
    let local = config.services.iter().filter(|service| service.is_local());
    let vips = local.flat_map(|service| service.vips.iter().filter_map(VipPrefix::address)).map(|vip| vip.to_string());
    let hosts = config.routes.iter().filter_map(|route| route.host.clone());
    let names: Vec<String> = vips.chain(hosts).collect();
    read(&[self_signed(&config.state_dir, &names)?])
}

/// Puts the authorities of client certificates in force that the present configuration names.
pub(super) fn client_authorities(edge: &Edge) -> anyhow::Result<()> {
    let snapshot = edge.snapshot();
    let file = snapshot.config.client_certificates.as_ref().map(|certificates| certificates.ca.as_path());
    Ok(edge.client_authorities.load(file)?)
}

/// Whether the files that the configuration names for identity providers and token issuers can be used.
pub fn check_issuers(config: &Config) -> Result<(), Failure> {
    identity::check(config).or_exit(ExitKind::Config)?;
    let authorities = config.client_certificates.as_ref().map(|certificates| certificates.ca.as_path());
    ClientAuthorities::default().load(authorities).or_exit(ExitKind::Certificate)
}

/// Whether the certificates that the configuration names can be served; makes none.
pub fn check_certificates(config: &Config) -> anyhow::Result<()> {
    if config.certificates.is_empty() { Ok(()) } else { read(&config.certificates).map(drop) }
}

fn read(files: &[CertificateFiles]) -> anyhow::Result<Certificates> {
    Certificates::load(files).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", all.join("; "))
    })
}
