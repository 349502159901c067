//! From a configuration's lists to what the maps take, or to all that is wrong with the files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lb_datapath::{CompiledLists, Listed, ListedPrefix, Prefix, compile_lists};

use super::catalogue::{Catalogue, Row, Source};
use super::progress::{Progress, Stage};
use super::read::{self, Mistake};
use crate::config::{ListEntry, ListsConfig};

/// Prefixes of one family, both lists together: beyond this it is not a list of networks any more.
const MOST_PREFIXES: usize = 2_000_000;

/// Larger files are refused unread.
const MOST_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// A file with a thousand mistakes is the wrong file: the rest is counted.
const MOST_SHOWN: usize = 50;

/// Lists that can be put in force.
pub struct Loaded {
    pub compiled: CompiledLists,
    pub catalogue: Catalogue,
}

/// Why lists were refused: every mistake with its file and line.
#[derive(Debug, Default)]
pub struct Refusal {
    shown: Vec<String>,
    more: usize,
}

impl Refusal {
    fn add(&mut self, mistake: impl FnOnce() -> String) {
        if self.shown.len() < MOST_SHOWN {
            self.shown.push(mistake());
        } else {
            self.more += 1;
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown.join("\n"))?;
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for Refusal {}

/// Reads every file and compiles everything. Takes a second or two for a million prefixes, all of it on the caller's
/// thread.
pub(super) fn load(config: &ListsConfig, progress: &Progress) -> Result<Loaded, Refusal> {
    let begin = Instant::now();
    let mut reading = Reading { progress, rows: Vec::new(), sources: Vec::new(), refusal: Refusal::default() };
    for (listed, entries) in [(Listed::Denied, &config.deny), (Listed::Allowed, &config.allow)] {
        reading.prefixes_in_place(listed, entries);
        for entry in entries {
            if let ListEntry::File(file) = entry {
                reading.file(listed, file);
            }
        }
    }
    reading.check_count();
    let Reading { rows, sources, mut refusal, .. } = reading;
    if !refusal.shown.is_empty() {
        return Err(refusal);
    }
    progress.enter(Stage::Compiling);
    let prefixes = rows.iter().map(|row| ListedPrefix { prefix: row.prefix, listed: row.listed }).collect();
    let compiled = compile_lists(prefixes).map_err(|error| {
        refusal.add(|| error.to_string());
        refusal
    })?;
    let catalogue = Catalogue {
        rows,
        sources,
        loaded_at: SystemTime::now(),
        took: begin.elapsed(),
        memory_bytes: compiled.memory_bytes(),
    };
    Ok(Loaded { compiled, catalogue })
}

struct Reading<'p> {
    progress: &'p Progress,
    rows: Vec<Row>,
    sources: Vec<Source>,
    refusal: Refusal,
}

impl Reading<'_> {
    fn prefixes_in_place(&mut self, listed: Listed, entries: &[ListEntry]) {
        let networks = entries.iter().filter_map(|entry| match entry {
            ListEntry::Prefix(network) => Prefix::new(network.addr(), network.prefix_len()),
            ListEntry::File(_) => None,
        });
        let source = self.sources.len() as u16;
        let before = self.rows.len();
        self.rows.extend(networks.map(|prefix| Row { prefix, listed, source, line: 0 }));
        self.count_source(listed, None, before);
    }

    fn file(&mut self, listed: Listed, file: &Path) {
        let text = match read_file(file) {
            Ok(text) => text,
            Err(why) => return self.refusal.add(|| format!("{}: {why}", file.display())),
        };
        let source = self.sources.len() as u16;
        let before = self.rows.len();
        let (rows, refusal, progress) = (&mut self.rows, &mut self.refusal, self.progress);
        // One over is enough to be refused.
        let most_rows = 2 * MOST_PREFIXES + 1;
        let found = |line, prefix| {
            rows.push(Row { prefix, listed, source, line });
            progress.read(rows.len());
            rows.len() < most_rows
        };
        let wrong = |line: u32, mistake: Mistake| refusal.add(|| format!("{}:{line}: {mistake}", file.display()));
        read::read(&text, found, wrong);
        self.count_source(listed, Some(file), before);
    }

    /// The rows from `before` on are the source's.
    fn count_source(&mut self, listed: Listed, file: Option<&Path>, before: usize) {
        let rows = &self.rows[before..];
        let ipv6 = rows.iter().filter(|row| row.prefix.is_ipv6()).count();
        if file.is_some() || !rows.is_empty() {
            self.sources.push(Source { listed, file: file.map(Arc::from), ipv4: rows.len() - ipv6, ipv6 });
        }
    }

    fn check_count(&mut self) {
        let total = |count: fn(&Source) -> usize| self.sources.iter().map(count).sum::<usize>();
        for (family, found) in [("IPv4", total(|source| source.ipv4)), ("IPv6", total(|source| source.ipv6))] {
            if found > MOST_PREFIXES {
                let help = "merge neighbouring prefixes, or leave out a list";
                self.refusal.add(|| format!("the lists hold more than {MOST_PREFIXES} {family} prefixes; {help}"));
            }
        }
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("the file cannot be read: {error}");
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("this is no file".to_owned());
    }
    if metadata.len() > MOST_FILE_BYTES {
        return Err(format!("the file has {} bytes; at most {MOST_FILE_BYTES} are read", metadata.len()));
    }
    std::fs::read(file).map_err(unreadable)
}
