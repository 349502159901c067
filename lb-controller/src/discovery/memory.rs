//! What name servers last said, kept over a restart: an edge that starts while the DNS is down has the backends that it had.
//! A file for each pool, in the folder `discovered` of the state folder.

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dns::Answered;
use crate::config::BackendConfig;

/// Room for as many backends as a pool may have, and no more: the file is ours, but a disk may bring back anything.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// The question, as people read it. What was found for another one is of no use.
    question: String,
    backends: Vec<KeptBackend>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct KeptBackend {
    address: SocketAddr,
    weight: u8,
    backup: u8,
}

/// Writes what was found, unless it stands there already.
///
/// Errors: the disk's. What stood there before still does.
pub(super) fn keep(state_dir: &Path, pool: &str, question: &str, backends: &[BackendConfig]) -> io::Result<()> {
    let backend = |one: &BackendConfig| KeptBackend { address: one.address, weight: one.weight, backup: one.backup };
    let kept = Kept { question: question.to_owned(), backends: backends.iter().map(backend).collect() };
    let file = file(state_dir, pool);
    if read(&file).is_some_and(|present| present == kept) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let aside = file.with_extension("new");
    fs::write(&aside, serde_json::to_vec(&kept)?)?;
    fs::rename(aside, file)
}

/// What was found last, to be judged anew; empty when there is nothing, or it was found for another question.
pub(super) fn recall(state_dir: &Path, pool: &str, question: &str) -> Vec<Answered> {
    let kept = read(&file(state_dir, pool)).filter(|kept| kept.question == question);
    let answered = |backend: KeptBackend| Answered {
        address: backend.address,
        priority: backend.backup.into(),
        weight: backend.weight.into(),
    };
    kept.map_or_else(Vec::new, |kept| kept.backends.into_iter().map(answered).collect())
}

/// Names of pools have no slash.
fn file(state_dir: &Path, pool: &str) -> PathBuf {
    state_dir.join("discovered").join(format!("{pool}.json"))
}

fn read(file: &Path) -> Option<Kept> {
    let mut bytes = Vec::new();
    fs::File::open(file).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_for_a_question_is_known_later_and_for_that_question_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        let recall = |pool, name| recall(&state_dir, pool, name);
        assert_eq!(recall("shop", "shop.example"), []);
        let backend = BackendConfig { weight: 7, backup: 2, ..SocketAddr::from(([10, 0, 0, 1], 80)).into() };
        keep(&state_dir, "shop", "shop.example", &[backend]).unwrap();
        let address = ([10, 0, 0, 1], 80).into();
        assert_eq!(recall("shop", "shop.example"), [Answered { address, priority: 2, weight: 7 }]);
        assert_eq!((recall("shop", "other.example"), recall("other", "shop.example")), (vec![], vec![]));
        for broken in ["", "{}", "{\"question\": \"shop.example\", \"backends\": [{\"address\": \"x\"}]}"] {
            fs::write(file(&state_dir, "shop"), broken).unwrap();
            assert_eq!(recall("shop", "shop.example"), [], "{broken}");
        }
    }
}
