//! Where each prefix in force came from.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_datapath::{Listed, Prefix};

/// What is in force, for people; the maps alone do not know files and lines. 32 bytes a prefix.
#[derive(Debug)]
pub struct Catalogue {
    pub(super) rows: Vec<Row>,
    pub(super) sources: Vec<Source>,
    pub(super) loaded_at: SystemTime,
    /// How long reading and compiling took.
    pub(super) took: Duration,
    /// In the kernel.
    pub(super) memory_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) prefix: Prefix,
    pub(super) listed: Listed,
    /// Index into the sources.
    pub(super) source: u16,
    /// From 1; 0 in the configuration itself.
    pub(super) line: u32,
}

/// One file, or the prefixes that stand in the configuration itself.
#[derive(Clone, Debug)]
pub struct Source {
    pub listed: Listed,
    /// `None`: the configuration.
    pub file: Option<Arc<Path>>,
    pub ipv4: usize,
    pub ipv6: usize,
}

/// The prefix that decides about an address.
#[derive(Clone, Debug)]
pub struct Decision {
    pub prefix: Prefix,
    pub listed: Listed,
    pub file: Option<Arc<Path>>,
    pub line: u32,
}

impl Catalogue {
    /// Looks at every prefix: some milliseconds for a million.
    pub fn decision(&self, address: IpAddr) -> Option<Decision> {
        let holding = self.rows.iter().filter(|row| row.prefix.contains(address));
        let row = holding.max_by_key(|row| (row.prefix.length(), row.listed))?;
        let source = self.sources.get(usize::from(row.source))?;
        Some(Decision { prefix: row.prefix, listed: row.listed, file: source.file.clone(), line: row.line })
    }

    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    pub fn prefixes(&self) -> usize {
        self.rows.len()
    }

    pub fn loaded_at(&self) -> SystemTime {
        self.loaded_at
    }

    pub fn took(&self) -> Duration {
        self.took
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}
