//! The BPF file system, where pinned maps and links outlive the controller.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Mounts bpffs when it is absent. systemd mounts it on most machines; containers and small images lack it.
pub(super) fn ensure() -> Result<()> {
    if is_mounted()? {
        return Ok(());
    }
    if !run::is_root() {
        eprintln!("    {MOUNT_POINT} is not mounted; as root: mount -t bpf bpf {MOUNT_POINT}");
        return Ok(());
    }
    eprintln!("==> Mounting {MOUNT_POINT}");
    run::run(
        Command::new("mount").args(["-t", "bpf", "bpf", MOUNT_POINT]),
        "the kernel must have CONFIG_BPF_SYSCALL, and a container needs CAP_SYS_ADMIN",
    )
}

fn is_mounted() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    Ok(mounts.lines().any(|mount| {
        let mut fields = mount.split(' ').skip(1);
        fields.next() == Some(MOUNT_POINT) && fields.next() == Some("bpf")
    }))
}
