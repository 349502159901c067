//! What the eBPF programs and user space must agree on, and the pure logic both sides can test.
//!
//! Nothing here does I/O, allocates or reads a clock, so the same lines run in the kernel and under `cargo test`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod checksum;
pub mod decapsulation;
pub mod encapsulation;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod icmp;
pub mod lists;
pub mod maps;
pub mod mss;
pub mod nat;
pub mod outer;
pub mod parse;
pub mod quic;
pub mod rate;
pub mod sample;
pub mod service;
pub mod slow_path;
pub mod source;
pub mod syn_cookie;
pub mod types;
pub mod verdict;
pub mod vip;

pub use address::Address;
pub use lists::Listed;
pub use slow_path::{SlowPath, Stop};
pub use source::Source;
pub use verdict::{DropClass, Reason, SourceClass, Verdict};
