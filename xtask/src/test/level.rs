//! The levels of tests: what each proves, what it needs, and which test targets belong to it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths::Workspace;
use crate::run;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Tables,
    Programs,
    Namespaces,
    Peers,
    Browser,
    Scene,
}

/// Test files of lb-tests that are not of the level `namespaces`.
const LEVEL_OF_FILE: &[(&str, Level)] = &[
    ("packets", Level::Programs),
    ("packets_backends", Level::Programs),
    ("packets_forwarding", Level::Programs),
    ("packets_lists", Level::Programs),
    ("packets_pmtu", Level::Programs),
    ("packets_quic", Level::Programs),
    ("packets_samples", Level::Programs),
    ("packets_scapy", Level::Programs),
    ("packets_services", Level::Programs),
    ("packets_tunnels", Level::Programs),
    ("load_matrix", Level::Programs),
    ("access_log", Level::Peers),
    ("federation", Level::Peers),
    ("bearer", Level::Peers),
    ("bound_tokens", Level::Peers),
    ("forged_credentials", Level::Peers),
    ("hosted_providers", Level::Peers),
    ("session_cookies", Level::Peers),
    ("step_up_seen", Level::Peers),
    ("chaos", Level::Peers),
    ("client_certificates", Level::Peers),
    ("tail", Level::Peers),
    ("tls", Level::Peers),
    ("tracing", Level::Peers),
    ("acme", Level::Peers),
    ("backend_step_up", Level::Peers),
    ("clients", Level::Peers),
    ("cross_origin", Level::Peers),
    ("pages", Level::Peers),
    ("streams", Level::Peers),
    ("approvals", Level::Peers),
    ("proof_of_work", Level::Peers),
    ("factors", Level::Peers),
    ("attacks_on_proofs", Level::Peers),
    ("attacks_on_requests", Level::Peers),
    ("actions", Level::Peers),
    ("overload", Level::Peers),
    ("slow_clients", Level::Peers),
    ("discovery", Level::Peers),
    ("upgrades", Level::Peers),
    ("websocket_clients", Level::Peers),
    ("clock_jumps", Level::Peers),
    ("browser", Level::Browser),
    ("browser_factors", Level::Browser),
    ("browser_scripts", Level::Browser),
];

impl Level {
    pub(super) const ALL: [Level; 6] =
        [Level::Tables, Level::Programs, Level::Namespaces, Level::Peers, Level::Browser, Level::Scene];

    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Tables => "tables",
            Level::Programs => "programs",
            Level::Namespaces => "namespaces",
            Level::Peers => "peers",
            Level::Browser => "browser",
            Level::Scene => "scene",
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Level::Tables => "functions, and servers on loopback",
            Level::Programs => "packet in, verdict, counters and packet out, in the kernel's own runner",
            Level::Namespaces => "real packets between network namespaces",
            Level::Peers => "the whole program over HTTP, beside other people's: an identity provider, a mail server",
            Level::Browser => "a headless Chromium",
            Level::Scene => "the demo, driven unattended",
        }
    }

    /// What is lacking here, if anything.
    pub(super) fn can_run(self) -> Result<(), &'static str> {
        match self {
            Level::Tables | Level::Peers => Ok(()),
            Level::Programs | Level::Namespaces | Level::Scene if !run::is_root() => Err("needs root"),
            Level::Browser if run::find_program("chromedriver").is_none() => {
                Err("needs Chromium and its driver; as root: cargo xtask setup --for test")
            }
            _ => Ok(()),
        }
    }

    /// Arguments that choose this level's targets, one set for each run of cargo.
    pub(super) fn targets(self, workspace: &Workspace) -> Result<Vec<Vec<String>>> {
        if self == Level::Tables {
            let mut functions = vec!["--lib".to_owned(), "--bins".to_owned()];
            for package in ["lb-common", "lb-controller", "lb-controller/policy", "lb-controller/datapath"] {
                functions.extend(choose(test_files(&workspace.root.join(package).join("tests"))?));
            }
            return Ok(vec![functions, vec!["--doc".to_owned()]]);
        }
        let mut files = test_files(&workspace.root.join("tests/tests"))?;
        files.retain(|file| level_of(file) == self);
        Ok(if files.is_empty() { vec![] } else { vec![choose(files)] })
    }
}

fn level_of(file: &str) -> Level {
    LEVEL_OF_FILE.iter().find(|(name, _)| *name == file).map_or(Level::Namespaces, |(_, level)| *level)
}

fn choose(files: Vec<String>) -> Vec<String> {
    files.into_iter().flat_map(|file| ["--test".to_owned(), file]).collect()
}

/// Names of the test targets in `folder`, sorted; none when there is no such folder.
fn test_files(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| target_at(&entry.path())).collect();
    names.sort();
    Ok(names)
}

/// The test target that cargo finds at `path`: `NAME.rs`, or a folder NAME with a `main.rs` in it.
fn target_at(path: &Path) -> Option<String> {
    let is_target = path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
    is_target.then(|| path.file_stem().map(|name| name.to_string_lossy().into_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_a_folder_is_chosen_like_one_that_is_a_file() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (folder, name) in [("lb-controller/tests", "proxy"), ("tests/tests", "packets")] {
            let names = test_files(&workspace.join(folder)).expect("readable");
            assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
        }
        assert_eq!(test_files(&workspace.join("lb-common/tests")).expect("absent"), [""; 0]);
    }
}
