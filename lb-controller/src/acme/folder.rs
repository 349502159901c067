//! The folder of what is ordered, which hosts of a fleet may share: certificates with their keys, accounts at authorities,
//! answers to challenges, and what is known of orders that failed. Everything in it is for its owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use lb_policy::UnixSeconds;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::serve::tls::{Challenge, Inspected, inspect};

const PARTS: [&str; 4] = ["certificates", "accounts", "challenges", "attempts"];
/// What a host left behind that died in the middle of an order.
const CHALLENGES_LIVE: Duration = Duration::from_secs(3_600);
/// One order has at most a hundred; a folder with more is not ours.
const MOST_CHALLENGES: usize = 1_000;
const MOST_FILE_BYTES: u64 = 64 * 1024;

/// Tells one state of a file from the next.
pub(super) type Stamp = Option<(u64, u64, Option<SystemTime>)>;

/// Orders of one certificate that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// What was ordered; with other names one begins anew.
    pub(super) names: Vec<String>,
    /// In a row.
    pub(super) failures: u32,
    pub(super) next_attempt_at: UnixSeconds,
    pub(super) last_error: String,
}

#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// While it lives nobody else orders.
pub(super) struct Lock(#[expect(dead_code, reason = "dropping it unlocks")] Flock<File>);

impl Folder {
    pub(super) fn at(path: PathBuf) -> Folder {
        Folder(path)
    }

    /// Makes what is missing of it.
    pub(super) fn prepare(&self) -> Result<()> {
        for part in PARTS {
            let path = self.0.join(part);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("cannot make {}; check `storage` of `acme`", path.display()))?;
        }
        Ok(())
    }

    /// `None`: somebody else orders. The kernel takes it from a host that dies, on NFS too.
    pub(super) fn lock(&self) -> Result<Option<Lock>> {
        let path = self.0.join("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Certificate, chain and key of a name in one file: nobody ever sees two that do not belong together.
    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.0.join("certificates").join(format!("{name}.pem"))
    }

    /// What is there by now, if it can be read.
    pub(super) fn held(&self, name: &str) -> Option<Inspected> {
        inspect(&self.certificate(name)).ok()
    }

    /// Puts a new certificate in its place, if it can be served and is for `names`.
    pub(super) fn put_certificate(&self, names: &[String], pem: &str, now: UnixSeconds) -> Result<()> {
        let path = self.certificate(names.first().map_or("", String::as_str));
        let aside = path.with_extension("new");
        write(&aside, pem.as_bytes())?;
        let inspected = inspect(&aside).context("the authority answered with what cannot be served")?;
        let lacking: Vec<_> = names.iter().filter(|name| !inspected.names.contains(*name)).cloned().collect();
        anyhow::ensure!(lacking.is_empty(), "the authority answered without {}", lacking.join(", "));
        let is_good = (inspected.not_before..=inspected.not_after).contains(&now);
        anyhow::ensure!(
            is_good,
            "the authority answered with a certificate that is not valid now; check this machine's clock"
        );
        fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn attempts_file(&self, name: &str) -> PathBuf {
        self.0.join("attempts").join(format!("{name}.json"))
    }

    pub(super) fn attempts(&self, name: &str) -> Option<Attempts> {
        read(&self.attempts_file(name))
    }

    pub(super) fn write_attempts(&self, name: &str, attempts: &Attempts) -> Result<()> {
        replace(&self.attempts_file(name), attempts)
    }

    pub(super) fn forget_attempts(&self, name: &str) {
        let _ = fs::remove_file(self.attempts_file(name));
    }

    /// Of a certificate and of what is known of its orders.
    pub(super) fn stamps(&self, name: &str) -> [Stamp; 2] {
        [self.certificate(name), self.attempts_file(name)].map(|file| {
            let metadata = fs::metadata(file).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
        })
    }

    /// An account belongs to one authority.
    fn account_file(&self, directory: &str) -> PathBuf {
        self.0.join("accounts").join(format!("{}.json", file_name_of(directory)))
    }

    pub(super) fn account<T: DeserializeOwned>(&self, directory: &str) -> Option<T> {
        read(&self.account_file(directory))
    }

    pub(super) fn write_account(&self, directory: &str, account: &impl Serialize) -> Result<()> {
        replace(&self.account_file(directory), account)
    }

    pub(super) fn forget_account(&self, directory: &str) {
        let _ = fs::remove_file(self.account_file(directory));
    }

    /// For all hosts to answer.
    pub(super) fn write_challenge(&self, challenge: &Challenge) -> Result<()> {
        let file = self.0.join("challenges").join(format!("{}.json", file_name_of(&challenge.token)));
        replace(&file, challenge)
    }

    pub(super) fn challenges(&self) -> Result<Vec<Challenge>> {
        let files = self.challenge_files()?;
        Ok(files.iter().filter(|file| is_young(file)).filter_map(|file| read(file)).collect())
    }

    /// To be called by who holds the lock.
    pub(super) fn remove_challenges(&self) -> Result<()> {
        for file in self.challenge_files()? {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        Ok(())
    }

    fn challenge_files(&self) -> Result<Vec<PathBuf>> {
        let path = self.0.join("challenges");
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let files = entries.take(MOST_CHALLENGES).flatten().map(|entry| entry.path());
        Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect())
    }
}

/// A name for what an authority said, which must not choose names of files itself.
fn file_name_of(text: &str) -> String {
    crate::identity::sha256(text.as_bytes())[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_young(file: &Path) -> bool {
    let written = fs::metadata(file).and_then(|metadata| metadata.modified());
    // One from the future, by another host's clock, is young.
    written.is_ok_and(|written| written.elapsed().map_or(true, |age| age < CHALLENGES_LIVE))
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let is_small = fs::metadata(file).ok()?.len() <= MOST_FILE_BYTES;
    is_small.then(|| serde_json::from_slice(&zeroize::Zeroizing::new(fs::read(file).ok()?)).ok()).flatten()
}

fn replace(file: &Path, value: &impl Serialize) -> Result<()> {
    let aside = file.with_extension("new");
    write(&aside, &zeroize::Zeroizing::new(serde_json::to_vec(value)?))?;
    fs::rename(&aside, file).with_context(|| format!("cannot write {}", file.display()))
}

/// Writes a new file that is nobody else's to read.
fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", file.display()));
        }
        _ => {}
    }
    let write = || -> std::io::Result<()> {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        new.write_all(bytes)?;
        new.sync_all()
    };
    write().with_context(|| format!("cannot write {}; is the disk full or read-only?", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("acme"));
        folder.prepare().unwrap();
        (dir, folder)
    }

    /// A certificate for `names` and its key, or another's.
    fn pem(names: &[&str], until_year: i32, has_own_key: bool) -> String {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(until_year, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        (if has_own_key { key } else { other }).serialize_pem() + &certificate
    }

    #[test]
    fn only_a_certificate_that_can_be_served_replaces_the_one_that_is_there() {
        let (_dir, folder) = folder();
        let names = ["shop.example".to_owned(), "www.shop.example".to_owned()];
        let now = crate::clock::Clock::system().now();
        let put = |pem: &str| folder.put_certificate(&names, pem, now).map_err(|error| format!("{error:#}"));
        let good = pem(&["www.shop.example", "SHOP.example"], 2090, true);
        put(&good).unwrap();
        for (pem, reason) in [
            (String::new(), "holds no private key"),
            ("<html>".to_owned(), "holds no private key"),
            (pem(&["shop.example", "www.shop.example"], 2090, false), "does not belong to"),
            (pem(&["shop.example"], 2090, true), "without www.shop.example"),
            (pem(&["shop.example", "www.shop.example"], 2020, true), "not valid now"),
        ] {
            let error = put(&pem).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert_eq!(fs::read_to_string(folder.certificate("shop.example")).unwrap(), good, "{reason}");
        }
        let file = fs::metadata(folder.certificate("shop.example")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(folder.held("shop.example").unwrap().names.contains("shop.example"));
    }

    #[test]
    fn one_host_orders_and_what_failed_is_known_to_all() {
        let (_dir, folder) = folder();
        let other = folder.clone();
        let lock = folder.lock().unwrap().unwrap();
        assert!(other.lock().unwrap().is_none(), "it is being ordered");
        let (before, names) = (other.stamps("shop.example"), vec!["shop.example".to_owned()]);
        let attempts = Attempts { names, failures: 3, next_attempt_at: 7, last_error: "no".to_owned() };
        folder.write_attempts("shop.example", &attempts).unwrap();
        assert_ne!(other.stamps("shop.example"), before);
        assert_eq!(other.attempts("shop.example"), Some(attempts));
        drop(lock);
        assert!(other.lock().unwrap().is_some());
        other.forget_attempts("shop.example");
        assert_eq!(folder.attempts("shop.example"), None);
    }

    #[test]
    fn a_challenge_names_no_file_and_is_gone_with_its_order() {
        let (dir, folder) = folder();
        let token = "../../../escaped".to_owned();
        let challenge = Challenge { name: "shop.example".to_owned(), key_authorization: format!("{token}.x"), token };
        folder.write_challenge(&challenge).unwrap();
        assert!(!dir.path().join("escaped.json").exists());
        assert_eq!(folder.challenges().unwrap(), [challenge]);
        fs::write(dir.path().join("acme/challenges/broken.json"), "{").unwrap();
        assert_eq!(folder.challenges().unwrap().len(), 1, "what cannot be read is nobody's");
        folder.remove_challenges().unwrap();
        assert!(folder.challenges().unwrap().is_empty());
    }
}
