//! Following the configuration file: a good edit takes effect as a whole, a bad one not at all.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use lb_datapath::VipPrefix;
use tokio::runtime::Handle;

use crate::acme::{self, Acme};
use crate::clock::Clock;
use crate::config::{CertificateFiles, Config, Diagnostic, Diagnostics, Known, Watcher};
use crate::discovery::Discovery;
use crate::edge::{Edge, Snapshot};
use crate::failure::{ExitKind, Failure, OrExit};
use crate::health::HealthChecks;
use crate::identity::{self, Identities};
use crate::lists::{self, Follower, Lists, Prepared};
use crate::pool::Pools;
use crate::reconcile::Wish;
use crate::serve::front::Front;
use crate::serve::tls::{
    self, ClientAuthorities, Origin, Prepared as PreparedCertificates, Tls, TlsError, Wanted, self_signed,
};
use crate::signals::Sources;

/// What a new configuration reaches.
pub(super) struct Reload {
    /// As the file listed them at the start, whatever `--iface` made of it.
    pub(super) file_interfaces: Vec<String>,
    pub(super) edge: Arc<Edge>,
    pub(super) front: Arc<Front>,
    pub(super) tls: Arc<Tls>,
    pub(super) acme: Arc<Acme>,
    /// Where identity providers are asked.
    pub(super) issuers: Handle,
    pub(super) health: HealthChecks,
    pub(super) wishes: Sender<Wish>,
    pub(super) lists: Arc<Lists>,
    pub(super) lists_follower: Follower,
    pub(super) discovery: Discovery,
    /// Held while pools are put together: a new file and newly found backends may come at once.
    pub(super) changing: Mutex<()>,
}

impl Reload {
    /// Follows `file`, last read as `text`, until the returned value is dropped.
    pub(super) fn follow(self, file: &Path, text: String) -> Result<Watcher, Failure> {
        self.apply_orders();
        let reload = Arc::new(self);
        // Weak, because what tells is held by what is told.
        let told = Arc::downgrade(&reload);
        reload.discovery.on_change(move || {
            if let Some(reload) = told.upgrade() {
                reload.take_found();
            }
        });
        reload.discovery.follow(&reload.edge.snapshot().config);
        let known = Known { text, taken_in: reload.edge.snapshot().config.taken_in.clone() };
        let watcher = Watcher::start(file, Some(known), move |loaded| match loaded {
            Ok(config) => reload.take(config),
            Err(diagnostics) => refused(&diagnostics),
        });
        Ok(watcher.with_context(|| format!("cannot follow {}", file.display()))?)
    }

    fn take(&self, mut config: Config) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.edge.snapshot();
        if config.interfaces != self.file_interfaces {
            tracing::warn!("`interfaces` take effect with the next start");
        }
        keep_what_needs_a_restart(&current.config, &mut config);
        let certificates = match self.certificates(&config) {
            Ok(certificates) => certificates,
            Err(error) => return not_taken(&error),
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
            Err(error) => return not_taken(&error),
        };
        let identities = Identities::build(&config, Some(&current.identities), &self.edge.clock, &self.issuers);
        let identities = match identities {
            Ok(identities) => Arc::new(identities),
            Err(error) => return not_taken(&error),
        };
        let access_log = match self.edge.recorder.access_log.prepare(config.access_log.as_ref()) {
            Ok(access_log) => access_log,
            Err(error) => return not_taken(&error),
        };
        let tracing = match self.edge.recorder.tracer.prepare(config.tracing.as_ref(), &self.edge.metrics) {
            Ok(tracing) => tracing,
            Err(error) => return not_taken(&error),
        };
        let version = current.version + 1;
        if let Err(error) = self.tls.apply(&config.tls, &config.state_dir) {
            return not_taken(&error.into());
        }
        self.edge.recorder.access_log.put(access_log);
        self.edge.recorder.tracer.put(tracing);
        self.find(&mut config);
        let config = Arc::new(config);
        let pools = Pools::build(&config.pools, Some(&current.pools)).with_routes(&config.routes);
        self.tls.certificates.put(certificates);
        self.tls.plain_http.apply(config.clone());
        self.front.apply(config.clone(), pools.clone());
        if let Some(lists) = lists {
            self.put_in_force(lists);
        }
        self.edge.metrics.show_pools(&pools);
        // Before the checks begin: what they say of backends that no configuration names is not taken in.
        let _ = self.wishes.send(Wish::Config(config.clone()));
        self.health.watch(&pools);
        self.edge.replace_snapshot(Snapshot { version, config, pools, identities, sources });
        if let Err(error) = load_client_authorities(&self.edge.snapshot().config, &self.edge.client_authorities) {
            tracing::error!("the authorities of client certificates stay as they were: {error:#}");
        }
        self.apply_orders();
        tracing::info!(version, "new configuration in force");
    }

    /// Puts in the backends that are found; of pools that are new, those of the first answers.
    fn find(&self, config: &mut Config) {
        self.discovery.follow(&Arc::new(config.clone()));
        self.discovery.await_first(config);
        self.discovery.discovered().fill(config);
    }

    /// Other backends were found: the same configuration goes on with these.
    fn take_found(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.edge.snapshot();
        let mut config = (*current.config).clone();
        self.discovery.discovered().fill(&mut config);
        let backends = |config: &Config| config.pools.iter().map(|pool| pool.backends.clone()).collect::<Vec<_>>();
        if backends(&config) == backends(&current.config) {
            return;
        }
        let sources = match Sources::open(&config, &current.sources) {
            Ok(sources) => sources,
            Err(error) => return tracing::error!("found backends are not taken, the known ones go on: {error:#}"),
        };
        let config = Arc::new(config);
        let pools = Pools::build(&config.pools, Some(&current.pools)).with_routes(&config.routes);
        self.front.apply(config.clone(), pools.clone());
        self.edge.metrics.show_pools(&pools);
        let _ = self.wishes.send(Wish::Config(config.clone()));
        self.health.watch(&pools);
        let (version, identities) = (current.version, current.identities.clone());
        self.edge.replace_snapshot(Snapshot { version, config, pools, identities, sources });
    }

    /// Orders what the configuration in force says.
    fn apply_orders(&self) {
        if self.edge.is_leaving() {
            return;
        }
        let snapshot = self.edge.snapshot();
        self.acme.apply(snapshot.config.acme.as_ref(), &snapshot.config.state_dir);
    }

    fn certificates(&self, config: &Config) -> anyhow::Result<PreparedCertificates> {
        self.tls.certificates.prepare(wanted_certificates(config)?).map_err(|errors| all_of(&errors))
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

fn not_taken(error: &anyhow::Error) {
    tracing::error!("new configuration refused, the old one goes on: {error:#}");
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

/// The certificates of a first start.
pub(super) fn first_certificates(config: &Config) -> anyhow::Result<PreparedCertificates> {
    tls::prepare_first(wanted_certificates(config)?, Clock::system().now()).map_err(|errors| all_of(&errors))
}

/// The configuration's certificates and those that are ordered; without any of the first a self-signed one too, for its VIPs
/// and hosts, and until the others have come.
fn wanted_certificates(config: &Config) -> anyhow::Result<Vec<Wanted>> {
    tls::check_not_passed_through(config)?;
    let given = config.certificates.iter().map(|files| Wanted { files: files.clone(), origin: Origin::Files });
    let ordered = config.acme.iter().flat_map(|acme| {
        let file = |certificate| acme::certificate_file(acme, &config.state_dir, certificate);
        acme.certificates.iter().map(move |certificate| {
            let (file, place) = (file(certificate), Some(certificate.place.clone()));
            Wanted { files: CertificateFiles { certificate: file.clone(), key: file, place }, origin: Origin::Acme }
        })
    });
    let mut wanted: Vec<Wanted> = given.chain(ordered).collect();
    if config.certificates.is_empty() {
        wanted.push(Wanted { files: self_signed(&config.state_dir, &own_names(config))?, origin: Origin::SelfSigned });
    }
    Ok(wanted)
}

/// What this edge is called, as far as its configuration knows.
fn own_names(config: &Config) -> Vec<String> {
    let local = config.services.iter().filter(|service| service.is_local());
    let vips = local.flat_map(|service| service.vips.iter().filter_map(VipPrefix::address)).map(|vip| vip.to_string());
    let hosts = config.routes.iter().filter_map(|route| Some(route.matcher.host.as_ref()?.exact()?.to_owned()));
    let ordered = config.acme.iter().flat_map(|acme| &acme.certificates).flat_map(|certificate| &certificate.names);
    vips.chain(hosts).chain(ordered.cloned()).collect()
}

/// Puts the authorities of client certificates in force that a configuration names.
pub(super) fn load_client_authorities(config: &Config, authorities: &ClientAuthorities) -> anyhow::Result<()> {
    let file = config.client_certificates.as_ref().map(|certificates| certificates.ca.as_path());
    Ok(authorities.load(file)?)
}

fn all_of(errors: &[TlsError]) -> anyhow::Error {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", all.join("; "))
}

/// Whether the files that the configuration names for identity providers and token issuers can be used.
pub fn check_issuers(config: &Config) -> Result<(), Failure> {
    identity::check(config).or_exit(ExitKind::Config)?;
    let authorities = config.client_certificates.as_ref().map(|certificates| certificates.ca.as_path());
    ClientAuthorities::default().load(authorities).or_exit(ExitKind::Certificate)
}

/// Whether the certificates and the secrets of tickets that a configuration names can be used; makes none. `file` and `text`
/// are for messages: every mistake is printed at its place before failing.
pub fn check_certificates(config: &Config, file: &Path, text: &str) -> Result<(), Failure> {
    tls::check_ticket_keys(&config.tls).or_exit(ExitKind::Certificate)?;
    config.acme.as_ref().map_or(Ok(()), acme::check).or_exit(ExitKind::Certificate)?;
    tls::check_not_passed_through(config).or_exit(ExitKind::Certificate)?;
    let wrong = tls::check(&config.certificates, Clock::system().now());
    if wrong.is_empty() {
        return Ok(());
    }
    let mistakes = wrong.iter().map(|(files, error)| {
        let (message, help) = error.with_remedy();
        Diagnostic { place: files.place.clone(), message, help: Some(help) }
    });
    eprintln!("{}", Diagnostics::at_places(&file.display().to_string(), text, mistakes.collect()));
    let why = anyhow::anyhow!("{} names certificates that cannot be served", file.display());
    Err(Failure::new(ExitKind::Certificate, why))
}
