//! Deny and allow prefixes: from a list in any order to the maps that XDP looks addresses up in, replaced at once.

mod build;
mod install;
mod prefix;
mod table;
#[cfg(test)]
mod tests;

pub use build::{ListError, compile};
pub(crate) use install::await_packets;
pub use prefix::{ListedPrefix, Prefix};

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use lb_common::lists::{LINE_SLOTS, Line, ListMaps, Listed, ROOT_BLOCK_WORDS, RootBlock, RootHeader, find};

/// Both families' lists, ready to be written into maps.
#[derive(Debug, Default)]
pub struct CompiledLists {
    /// IPv4 and IPv6; `None` where no prefix is listed.
    pub(crate) families: [Option<CompiledList>; 2],
}

/// One family's list as the maps will hold it.
#[derive(Debug)]
pub(crate) struct CompiledList {
    /// The blocks of a root one after the other, with the header.
    pub(crate) root: Vec<u64>,
    /// It names table 0.
    pub(crate) header: RootHeader,
    pub(crate) lines: Vec<Line>,
    pub(crate) denied: u64,
    pub(crate) allowed: u64,
}

/// What the kernel holds of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListStatus {
    /// Prefixes that deny, each counted once; likewise those that allow.
    pub denied: u64,
    pub allowed: u64,
    /// In the kernel.
    pub memory_bytes: u64,
    pub loaded_at: SystemTime,
}

impl CompiledLists {
    /// What the maps will say of `address`, by the lines that XDP runs.
    pub fn find(&self, address: IpAddr) -> Listed {
        let (is_ipv6, [high, low]) = prefix::halves(address);
        match &self.families[usize::from(is_ipv6)] {
            Some(list) => find(list, high, low),
            None => Listed::Unlisted,
        }
    }

    /// Kernel memory that it takes while it is in force.
    pub fn memory_bytes(&self) -> u64 {
        self.families.iter().flatten().map(CompiledList::memory_bytes).sum()
    }
}

impl CompiledList {
    /// The first block of the root.
    pub(crate) fn hints(&self) -> RootBlock {
        std::array::from_fn(|word| self.root[word])
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        ((self.root.len() + self.lines.len() * LINE_SLOTS) * size_of::<u64>()) as u64
    }
}

impl ListMaps for CompiledList {
    fn root_word(&self, block: u32, word: usize) -> Option<u64> {
        self.root.get(block as usize * ROOT_BLOCK_WORDS + word).copied()
    }

    fn line(&self, _table: u32, line: u32) -> Option<&Line> {
        self.lines.get(line as usize)
    }
}

impl ListStatus {
    /// `None` if the family has no list.
    pub(crate) fn of(facts: &lb_common::types::ListFacts) -> Option<Self> {
        let loaded_at = SystemTime::UNIX_EPOCH + Duration::from_secs(facts.loaded_unix_s);
        (facts.memory_bytes > 0).then_some(Self {
            denied: facts.denied,
            allowed: facts.allowed,
            memory_bytes: facts.memory_bytes,
            loaded_at,
        })
    }
}
