//! A certificate of our own for the first start, kept so that browsers that trust it once keep trusting it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};
use time::{Duration, OffsetDateTime};

use super::files::{self, TlsError};
use crate::config::CertificateFiles;

/// Some browsers refuse certificates that are valid for longer than 398 days.
const VALID_DAYS: i64 = 397;

/// The self-signed certificate for `names` (host names and IP addresses; `localhost`, the loopback addresses and this
/// machine's name are added), in `state_dir`. Made anew when there is none, when it has expired, or when it lacks one
/// of the names.
pub fn self_signed(state_dir: &Path, names: &[String]) -> Result<CertificateFiles, TlsError> {
    let names = all_names(names);
    let files = CertificateFiles {
        certificate: state_dir.join("self-signed.crt"),
        key: state_dir.join("self-signed.key"),
        place: None,
    };
    let now = OffsetDateTime::now_utc();
    let is_good = |loaded: files::Loaded| {
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        loaded.check_time(&files.certificate, seconds).is_ok() && names.iter().all(|name| loaded.names.contains(name))
    };
    if files::load(&files).is_ok_and(is_good) {
        return Ok(files);
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "lb self-signed");
    // An hour back, for clients whose clock is late.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(VALID_DAYS);
    let certificate = params.self_signed(&key)?;
    // The key first: a crash between the two leaves a pair that does not match, which the next start replaces.
    write_private(&files.key, &key.serialize_pem())?;
    write_private(&files.certificate, &certificate.pem())?;
    tracing::info!(certificate = %files.certificate.display(), "made a self-signed certificate");
    Ok(files)
}

fn all_names(names: &[String]) -> BTreeSet<String> {
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    let machine = lb_policy::canonical_host(&machine).ok();
    names.iter().map(|name| name.to_ascii_lowercase()).chain(loopback).chain(machine).collect()
}

/// Replaces a file as a whole, readable by the controller alone: at no moment is the key of a new file open to others.
fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    let unwritable = |source| TlsError::Unwritable { path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(unwritable)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    fs::rename(&temporary, path).map_err(unwritable)
}
