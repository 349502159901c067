//! Orders certificates from an authority (RFC 8555) and renews them, on a thread of its own. What it gets it writes to files,
//! which are followed like any other; hosts of a fleet share the folder, and one of them orders for all.

mod client;
mod folder;
mod metrics;
mod order;
mod schedule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lb_policy::UnixSeconds;
use tokio::sync::watch;

pub use metrics::AcmeCollector;

use crate::clock::Clock;
use crate::config::{AcmeConfig, OrderedCertificate};
use crate::report::{Certificate, CertificateOrder};
use crate::serve::tls::Challenges;
use folder::{Attempts, Folder, Stamp};
use schedule::Spread;

/// How often a host looks what is due, and what others of its fleet are being asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One order, with all that an authority may take its time for.
const ORDER_WITHIN: Duration = Duration::from_secs(300);

/// Where the certificate lies that is ordered for these names.
pub fn certificate_file(config: &AcmeConfig, state_dir: &Path, certificate: &OrderedCertificate) -> PathBuf {
    Folder::at(config.folder(state_dir)).certificate(certificate.names.first().map_or("", String::as_str))
}

/// Whether the authority can be asked as configured; asks nothing.
pub fn check(config: &AcmeConfig) -> anyhow::Result<()> {
    client::authorities(config.ca.as_deref()).map(drop)
}

/// Orders what the configuration in force says. Dropping it ends an order under way.
#[derive(Debug)]
pub struct Acme {
    jobs: watch::Sender<Option<Job>>,
    told: Arc<Told>,
}

/// What others may know.
#[derive(Debug, Default)]
struct Told {
    /// By the file of the certificate.
    orders: Mutex<BTreeMap<PathBuf, CertificateOrder>>,
    issued: AtomicU64,
    failed: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    config: AcmeConfig,
    folder: PathBuf,
}

impl Acme {
    /// Starts the thread; it ends when the returned value is dropped.
    pub fn start(challenges: Arc<Challenges>, clock: Clock) -> std::io::Result<Acme> {
        let (jobs, watched) = watch::channel(None);
        let told: Arc<Told> = Arc::default();
        let telling = told.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("acme".into()).spawn(move || {
            let worker =
                Worker { challenges, clock, told: telling, spread: Spread::of_this_host(), due: BTreeMap::new() };
            runtime.block_on(worker.run(watched));
        })?;
        Ok(Acme { jobs, told })
    }

    /// Orders what this configuration says from now on.
    pub fn apply(&self, config: Option<&AcmeConfig>, state_dir: &Path) {
        let job = config.map(|config| Job { config: config.clone(), folder: config.folder(state_dir) });
        self.jobs.send_if_modified(|current| {
            let is_new = *current != job;
            if is_new {
                *current = job;
            }
            is_new
        });
    }

    /// Adds to each certificate how its order goes.
    pub fn tell_of(&self, certificates: &mut [Certificate]) {
        let orders = self.told.orders.lock().unwrap_or_else(PoisonError::into_inner);
        for certificate in certificates {
            certificate.order = orders.get(Path::new(&certificate.file)).cloned();
        }
    }
}

struct Worker {
    challenges: Arc<Challenges>,
    clock: Clock,
    told: Arc<Told>,
    spread: Spread,
    /// When each certificate is due, as long as neither its file nor what is known of failed orders changes.
    due: BTreeMap<PathBuf, ([Stamp; 2], UnixSeconds)>,
}

impl Worker {
    async fn run(mut self, mut jobs: watch::Receiver<Option<Job>>) {
        loop {
            let job = jobs.borrow_and_update().clone();
            self.due.clear();
            self.forget_orders_but(job.as_ref());
            let work = async {
                match &job {
                    Some(job) => self.work(job).await,
                    None => {
                        self.challenges.put(Vec::new());
                        std::future::pending().await
                    }
                }
            };
            tokio::select! {
                () = work => {}
                changed = jobs.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Goes on for ever.
    async fn work(&mut self, job: &Job) {
        let folder = Folder::at(job.folder.clone());
        let mut is_told = false;
        loop {
            match folder.prepare().and_then(|()| folder.challenges()) {
                Ok(challenges) => {
                    self.challenges.put(challenges);
                    is_told = false;
                    for certificate in &job.config.certificates {
                        self.tend(job, &folder, certificate).await;
                    }
                }
                Err(error) if !is_told => {
                    tracing::error!("no certificate can be ordered: {error:#}");
                    is_told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Orders a certificate if it is due and nobody else is ordering.
    async fn tend(&mut self, job: &Job, folder: &Folder, certificate: &OrderedCertificate) {
        let Some(name) = certificate.names.first() else { return };
        if self.clock.now() < self.due_at(job, folder, certificate, name) {
            return;
        }
        let lock = match folder.lock() {
            Ok(Some(lock)) => lock,
            // Another host orders; what it gets will be seen.
            Ok(None) => return,
            Err(error) => return tracing::error!("no certificate can be ordered: {error:#}"),
        };
        // It may have come between the look and the lock.
        self.due.remove(&folder.certificate(name));
        if self.clock.now() < self.due_at(job, folder, certificate, name) {
            return;
        }
        tracing::info!(names = ?certificate.names, directory = job.config.directory, "ordering a certificate");
        let order = order::order(&job.config, folder, certificate, &self.challenges);
        let ended = tokio::time::timeout(ORDER_WITHIN, order).await;
        let ended = ended.unwrap_or_else(|_| Err(order::Failed::slow(ORDER_WITHIN)));
        if let Err(error) = folder.remove_challenges() {
            tracing::warn!("answers to challenges stay behind: {error:#}");
        }
        self.challenges.put(Vec::new());
        match ended {
            Ok(()) => {
                self.told.issued.fetch_add(1, Ordering::Relaxed);
                folder.forget_attempts(name);
                tracing::info!(names = ?certificate.names, "a certificate has come");
            }
            Err(failed) => self.note_failure(folder, certificate, name, &failed),
        }
        drop(lock);
    }

    fn note_failure(&self, folder: &Folder, certificate: &OrderedCertificate, name: &str, failed: &order::Failed) {
        self.told.failed.fetch_add(1, Ordering::Relaxed);
        let before = folder.attempts(name).filter(|attempts| attempts.names == certificate.names);
        let failures = before.map_or(0, |attempts| attempts.failures).saturating_add(1);
        let pause = schedule::pause_after(failures, failed.kind, self.spread).max(failed.retry_after);
        let next_attempt_at = self.clock.now() + pause.as_secs();
        let names = certificate.names.clone();
        tracing::error!(?names, failures, pause_seconds = pause.as_secs(), "ordering failed: {}", failed.reason);
        let attempts = Attempts { names, failures, next_attempt_at, last_error: failed.reason.clone() };
        if let Err(error) = folder.write_attempts(name, &attempts) {
            tracing::error!("{error:#}");
        }
    }

    /// When this certificate should be ordered; tells others.
    fn due_at(&mut self, job: &Job, folder: &Folder, certificate: &OrderedCertificate, name: &str) -> UnixSeconds {
        let file = folder.certificate(name);
        let stamps = folder.stamps(name);
        if let Some((known, due)) = self.due.get(&file)
            && *known == stamps
        {
            return *due;
        }
        let held = folder.held(name).filter(|held| certificate.names.iter().all(|name| held.names.contains(name)));
        let attempts = folder.attempts(name).filter(|attempts| attempts.names == certificate.names);
        let due = schedule::due_at(held.as_ref(), attempts.as_ref(), job.config.renew_before, self.spread);
        let told = CertificateOrder {
            names: certificate.names.clone(),
            // What is due at once is due now, and not in 1970.
            next_attempt_at: due.max(self.clock.now()),
            failures: attempts.as_ref().map_or(0, |attempts| attempts.failures),
            last_error: attempts.map(|attempts| attempts.last_error),
        };
        self.told.orders.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone(), told);
        self.due.insert(file, (stamps, due));
        due
    }

    fn forget_orders_but(&self, job: Option<&Job>) {
        let kept: Vec<PathBuf> = job.map_or(Vec::new(), |job| {
            let folder = Folder::at(job.folder.clone());
            let first =
                |certificate: &OrderedCertificate| certificate.names.first().map(|name| folder.certificate(name));
            job.config.certificates.iter().filter_map(first).collect()
        });
        self.told.orders.lock().unwrap_or_else(PoisonError::into_inner).retain(|file, _| kept.contains(file));
    }
}
