//! Finds the eBPF object that `cargo xtask build` leaves in the target folder.
//!
//! It must not build it: a plain `cargo build` of the workspace has to work without the eBPF toolchain. Without an
//! object the crate compiles, and loading says what to run.

use std::path::{Path, PathBuf};
use std::{env, fs};

const OBJECT_NAME: &str = "lb-ebpf";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let folder = target_folder().join("ebpf/bpfel-unknown-none/ebpf");
    // Cargo watches the folder, not the file: a watched file that is missing makes every build run this script again,
    // and a missing folder would do the same.
    if let Err(error) = fs::create_dir_all(&folder) {
        println!("cargo::warning=cannot create {}: {error}", folder.display());
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    let object = folder.join(OBJECT_NAME);
    if object.is_file() {
        println!("cargo::rustc-cfg=ebpf_object");
        println!("cargo::rustc-env=LB_EBPF_OBJECT={}", object.display());
        println!("cargo::rerun-if-changed={}", object.display());
    }
}

/// `CARGO_TARGET_DIR` if set; otherwise the folder `target` that this script's own output is under, which also follows
/// `build.target-dir` of a cargo configuration; otherwise the workspace's.
fn target_folder() -> PathBuf {
    let manifest_folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let workspace = manifest_folder.ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf();
    if let Some(configured) = env::var_os("CARGO_TARGET_DIR") {
        return workspace.join(configured);
    }
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    // …/target[/triple]/PROFILE/build/lb-datapath-HASH/out
    let tagged = output.ancestors().filter(|folder| folder.join("CACHEDIR.TAG").is_file()).last();
    tagged.map_or_else(|| workspace.join("target"), Path::to_path_buf)
}
