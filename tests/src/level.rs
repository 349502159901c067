//! Test levels that need more than `cargo test` has everywhere.

use std::io::{self, Write};
use std::path::PathBuf;

use nix::unistd::Uid;

/// `true` if the level can run. Otherwise it is skipped loudly, and never in CI, where a skipped level would pass for
/// a green one.
pub fn has_root(level: &str) -> bool {
    if Uid::effective().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "level {level} needs root in CI");
    // Not `eprintln!`, which the test harness keeps to itself when the test passes; and in one piece on a line of its
    // own, because the harness writes in the middle of lines.
    let _ = io::stderr().write_all(format!("\nSKIPPED: level {level}: needs root\n").as_bytes());
    false
}

/// Whether a test of this level is skipped because of what is `lacking`: said loudly, and a failure in CI.
pub fn is_skipped(level: &str, lacking: Option<&str>) -> bool {
    let Some(lacking) = lacking else { return false };
    assert!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped: level {level} {lacking}");
    // See `has_root`.
    let _ = io::stderr().write_all(format!("\nSKIPPED: level {level}: {lacking}\n").as_bytes());
    true
}

/// The controller that `cargo xtask test` has built; `None`, said loudly, without it or without root.
pub fn controller() -> Option<PathBuf> {
    if !has_root("namespaces") {
        return None;
    }
    let program = std::env::var_os("LB_CONTROLLER").map(PathBuf::from);
    if program.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the controller is not built in CI");
        eprintln!("SKIPPED: needs the controller; run `cargo xtask test`");
    }
    program
}
