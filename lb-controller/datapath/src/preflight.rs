//! What must be true before the kernel is asked for anything, so that the answer is a remedy and not an errno.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::sys::utsname::uname;

use crate::error::LoadError;

/// Oldest long-term kernel with everything in use: XDP links and fragments, sk_lookup, compare-and-swap in programs,
/// and map access by descriptor for a process that has dropped its capabilities (5.19).
const MINIMUM_KERNEL: (u32, u32) = (6, 1);
const MINIMUM_KERNEL_TEXT: &str = "6.1";

/// Capability numbers (capabilities(7)).
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

pub(crate) fn check(pin_root: &Path) -> Result<(), LoadError> {
    check_kernel(&kernel_release())?;
    check_capabilities(&thread_status())?;
    provide_bpffs(pin_root)
}

/// Such as `6.1.0-13-amd64`.
pub(crate) fn kernel_release() -> String {
    uname().map_or_else(|_| String::from("unknown"), |name| name.release().to_string_lossy().into_owned())
}

pub(crate) fn check_kernel(release: &str) -> Result<(), LoadError> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    // A release that does not read as numbers is left to the kernel itself to judge.
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    if (major, minor) >= MINIMUM_KERNEL {
        return Ok(());
    }
    Err(LoadError::OldKernel { found: release.to_owned(), needed: MINIMUM_KERNEL_TEXT })
}

/// Capabilities belong to threads.
pub(crate) fn thread_status() -> String {
    fs::read_to_string("/proc/thread-self/status").unwrap_or_default()
}

pub(crate) fn check_capabilities(status: &str) -> Result<(), LoadError> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) else {
        return Ok(());
    };
    let missing: Vec<_> =
        NEEDED.iter().filter(|(_, number)| effective >> number & 1 == 0).map(|(name, _)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::MissingCapability { missing }) }
}

/// Mounts the BPF file system where it usually is, if it is not: containers and small systems come without it.
pub(crate) fn provide_bpffs(pin_root: &Path) -> Result<(), LoadError> {
    const USUAL: &str = "/sys/fs/bpf";
    if is_on_bpffs(pin_root) {
        return Ok(());
    }
    if pin_root.starts_with(USUAL) {
        // Its failure shows in the second look.
        let _ = mount(Some("bpf"), USUAL, Some("bpf"), MsFlags::empty(), None::<&str>);
    }
    if is_on_bpffs(pin_root) { Ok(()) } else { Err(LoadError::NoBpffs { path: pin_root.to_path_buf() }) }
}

fn is_on_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.and_then(|folder| statfs(folder).ok()).is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_before_the_minimum_are_refused() {
        let rows = [
            ("6.1.0-13-amd64", true),
            ("6.18.5", true),
            ("7.0-rc1", true),
            ("5.15.0-91-generic", false),
            ("6.0.19", false),
            ("something", true),
        ];
        for (release, accepted) in rows {
            assert_eq!(check_kernel(release).is_ok(), accepted, "{release}");
        }
    }

    #[test]
    fn every_missing_capability_is_named() {
        let rows: [(&str, &[&str]); 4] = [
            ("Name:\tlb\nCapEff:\t000001ffffffffff\n", &[]),
            ("CapEff:\t0000000000000000\n", &["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]),
            ("CapEff:\t0000000000001000\n", &["CAP_PERFMON", "CAP_BPF"]),
            ("CapEff:\t000000c000001000\n", &[]),
        ];
        for (status, expected) in rows {
            match check_capabilities(status) {
                Ok(()) => assert!(expected.is_empty(), "{status}"),
                Err(LoadError::MissingCapability { missing }) => assert_eq!(missing, expected, "{status}"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_folder_on_another_file_system_is_not_taken_for_a_bpf_one() {
        assert!(!is_on_bpffs(Path::new("/proc/nothing/here")));
    }
}
