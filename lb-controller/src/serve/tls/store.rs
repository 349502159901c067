//! The certificates in force, and the files they come from, which are followed: a new pair is served once it is whole, and
//! a broken one is refused while the old one goes on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use lb_policy::UnixSeconds;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificates::Certificates;
use super::files::{self, Loaded, TlsError};
use super::stamp::{self, Stamp};
use crate::clock::Clock;
use crate::config::CertificateFiles;
use crate::report;

/// A pair of files that should be served.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub files: CertificateFiles,
    pub origin: Origin,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody puts it there.
    Files,
    /// We order it. Until it comes there is none.
    Acme,
    SelfSigned,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Files => "files",
            Origin::Acme => "acme",
            Origin::SelfSigned => "self_signed",
        }
    }
}

/// What is served. Handshakes that begin after a change see the new certificates.
#[derive(Debug)]
pub struct CertificateStore {
    served: ArcSwap<Certificates>,
    pairs: Mutex<Vec<Pair>>,
    taken: AtomicU64,
    refused: AtomicU64,
    clock: Clock,
}

/// Certificates that were read for a configuration, not yet in force.
#[derive(Debug)]
pub struct Prepared(Vec<Pair>);

#[derive(Clone, Debug)]
struct Pair {
    wanted: Wanted,
    /// As the files were when they were read last, accepted or refused.
    read: Stamps,
    /// As they were at the last look: files that change from one look to the next are still being written.
    seen: Stamps,
    /// `None`: it has not come yet.
    loaded: Option<Arc<Loaded>>,
    /// Why the files as they are now are not served.
    refusal: Option<Arc<TlsError>>,
}

type Stamps = [Stamp; 2];

fn stamps(files: &CertificateFiles) -> Stamps {
    [stamp::of(&files.certificate), stamp::of(&files.key)]
}

impl CertificateStore {
    pub fn new(first: Prepared, clock: Clock) -> Arc<CertificateStore> {
        let store = CertificateStore {
            served: ArcSwap::from_pointee(Certificates::default()),
            pairs: Mutex::default(),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            clock,
        };
        store.put(first);
        Arc::new(store)
    }

    /// Reads what a new configuration names, without putting it in force. What is served already and is broken now goes on
    /// as it is: an edit of something else must not wait for it.
    ///
    /// Errors: all that is wrong with files that were not served before.
    pub fn prepare(&self, wanted: Vec<Wanted>) -> Result<Prepared, Vec<TlsError>> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let held: HashMap<_, _> = pairs.iter().map(|pair| (pair.paths(), pair)).collect();
        prepare(wanted, |wanted| held.get(&paths(&wanted.files)).map(|pair| (*pair).clone()), self.clock.now())
    }

    /// Puts certificates in force.
    pub fn put(&self, prepared: Prepared) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        *pairs = prepared.0;
        self.serve(&pairs);
    }

    fn serve(&self, pairs: &[Pair]) {
        let loaded: Vec<_> = pairs.iter().filter_map(|pair| pair.loaded.clone()).collect();
        self.served.store(Arc::new(Certificates::of(&loaded)));
    }

    /// Reads the files that are others than before and are no longer being written.
    pub fn look(&self) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let mut has_changed = false;
        for pair in pairs.iter_mut() {
            match pair.look(now) {
                Looked::Same => {}
                Looked::Taken => {
                    has_changed = true;
                    self.taken.fetch_add(1, Ordering::Relaxed);
                }
                Looked::Refused => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if has_changed {
            self.serve(&pairs);
        }
    }

    /// All of them, the default first.
    pub fn list(&self) -> Vec<report::Certificate> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let default = pairs.iter().position(|pair| pair.loaded.is_some());
        let now = self.clock.now();
        pairs.iter().enumerate().map(|(index, pair)| pair.report(Some(index) == default, now)).collect()
    }

    /// How often new files were put in force, and how often they were refused.
    pub fn changes(&self) -> (u64, u64) {
        (self.taken.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// When the certificate in this file ends; `None`: there is none yet.
    pub fn ends_at(&self, certificate: &std::path::Path) -> Option<UnixSeconds> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = pairs.iter().find(|pair| pair.wanted.files.certificate == certificate)?;
        pair.loaded.as_ref().map(|loaded| loaded.not_after)
    }
}

/// Reads certificates for a first start, or for a look at a configuration.
///
/// Errors: all that is wrong with the files, not only the first; also when there is nothing to serve.
pub fn prepare_first(wanted: Vec<Wanted>, now: UnixSeconds) -> Result<Prepared, Vec<TlsError>> {
    prepare(wanted, |_| None, now)
}

fn prepare(
    wanted: Vec<Wanted>,
    held: impl Fn(&Wanted) -> Option<Pair>,
    now: UnixSeconds,
) -> Result<Prepared, Vec<TlsError>> {
    let (mut pairs, mut errors) = (Vec::new(), Vec::new());
    for wanted in wanted {
        match Pair::read(&wanted, held(&wanted), now) {
            Ok(pair) => pairs.push(pair),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() && pairs.iter().all(|pair| pair.loaded.is_none()) {
        errors.push(TlsError::NoCertificate);
    }
    if errors.is_empty() { Ok(Prepared(pairs)) } else { Err(errors) }
}

enum Looked {
    Same,
    Taken,
    Refused,
}

impl Pair {
    fn read(wanted: &Wanted, held: Option<Pair>, now: UnixSeconds) -> Result<Pair, TlsError> {
        let read = stamps(&wanted.files);
        if let Some(held) = &held
            && held.read == read
        {
            return Ok(Pair { wanted: wanted.clone(), ..held.clone() });
        }
        let is_awaited = wanted.origin == Origin::Acme && read[0].is_none();
        let (loaded, refusal) = match files::load(&wanted.files) {
            Ok(loaded) => (Some(Arc::new(loaded)), None),
            Err(_) if is_awaited => (held.and_then(|pair| pair.loaded), None),
            // What we order ourselves, we order again.
            Err(error) if held.is_some() || wanted.origin == Origin::Acme => {
                tracing::error!("certificate refused, what was served goes on: {error}");
                (held.and_then(|pair| pair.loaded), Some(Arc::new(error)))
            }
            Err(error) => return Err(error),
        };
        // Whoever restarts an edge, or edits its pools, is not helped by one that serves nothing.
        if let Some(Err(error)) = loaded.as_ref().map(|loaded| loaded.check_time(&wanted.files.certificate, now)) {
            tracing::error!("clients will refuse what is served: {error}");
        }
        Ok(Pair { wanted: wanted.clone(), read, seen: read, loaded, refusal })
    }

    fn look(&mut self, now: UnixSeconds) -> Looked {
        let files = &self.wanted.files;
        let current = stamps(files);
        let is_settled = current == self.seen;
        self.seen = current;
        if current == self.read || !is_settled {
            return Looked::Same;
        }
        self.read = current;
        let path = &files.certificate;
        // One that is over is no better than what is served.
        let loaded = files::load(files).and_then(|loaded| loaded.check_time(path, now).map(|()| loaded));
        match loaded {
            Ok(loaded) => {
                tracing::info!(certificate = %path.display(), names = ?loaded.names, "new certificate in force");
                self.loaded = Some(Arc::new(loaded));
                self.refusal = None;
                Looked::Taken
            }
            Err(error) => {
                tracing::error!("new certificate refused, the old one goes on: {error}");
                self.refusal = Some(Arc::new(error));
                Looked::Refused
            }
        }
    }

    fn paths(&self) -> (PathBuf, PathBuf) {
        paths(&self.wanted.files)
    }

    fn report(&self, is_default: bool, now: UnixSeconds) -> report::Certificate {
        let loaded = self.loaded.as_ref();
        let days_left = loaded.map(|loaded| (loaded.not_after as i64 - now as i64).div_euclid(86_400));
        report::Certificate {
            names: loaded.map(|loaded| loaded.names.clone()).unwrap_or_default(),
            issuer: loaded.map(|loaded| loaded.issuer.clone()),
            key_type: loaded.map(|loaded| loaded.key_type.clone()),
            not_before: loaded.map(|loaded| loaded.not_before),
            not_after: loaded.map(|loaded| loaded.not_after),
            days_left,
            source: self.wanted.origin.name().to_owned(),
            file: self.wanted.files.certificate.display().to_string(),
            is_default,
            refused: self.refusal.as_ref().map(ToString::to_string),
            order: None,
        }
    }
}

fn paths(files: &CertificateFiles) -> (PathBuf, PathBuf) {
    (files.certificate.clone(), files.key.clone())
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.load().choose(client_hello.server_name(), client_hello.signature_schemes()).cloned()
    }
}
