//! The log that requests have in common: where lines go, and how they are written.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::line::Line;
use super::sink::{LogFile, Sink};
use super::terms::{Format, InForce, Terms};
use super::writer::NonBlocking;
use super::{PassedThrough, TARGET, cut};
use crate::config::{AccessLogConfig, LogDestination};
use crate::metrics::Metrics;

/// Clones share it; the default writes lines as those of the log, in text.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How lines are written that go where the log's own do.
    beside_log: Format,
    terms: InForce,
    writer: NonBlocking,
    in_force: Mutex<Option<AccessLogConfig>>,
}

/// A log that can be put in force: what it needs is open.
#[derive(Debug)]
pub struct Prepared {
    config: Option<AccessLogConfig>,
    /// `None`: lines go on to where they went.
    sink: Option<Sink>,
}

impl Default for AccessLog {
    fn default() -> AccessLog {
        AccessLog::text(NonBlocking::new(Metrics::default()))
    }
}

impl AccessLog {
    /// Beside other lines as JSON, by a way that never makes a worker wait.
    pub fn json(writer: NonBlocking) -> AccessLog {
        AccessLog::new(Format::Json, writer)
    }

    /// For people who watch: lines are like all others of the log, unless the configuration wants them elsewhere.
    pub fn text(writer: NonBlocking) -> AccessLog {
        AccessLog::new(Format::Text, writer)
    }

    fn new(beside_log: Format, writer: NonBlocking) -> AccessLog {
        let terms = InForce::new(Terms::beside_log(beside_log));
        AccessLog(Arc::new(Shared { beside_log, terms, writer, in_force: Mutex::default() }))
    }

    /// Opens what `config` wants; nothing changes yet. A file that is in use already is not opened again.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn prepare(&self, config: Option<&AccessLogConfig>) -> Result<Prepared> {
        let wanted = config.map(|config| &config.destination);
        let in_force = self.0.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = match wanted {
            wanted if wanted == in_force.as_ref().map(|config| &config.destination) => None,
            Some(LogDestination::File(file)) => Some(Sink::File(LogFile::open(file)?)),
            _ => Some(Sink::stream(io::stderr())),
        };
        Ok(Prepared { config: config.cloned(), sink })
    }

    /// What is written from now on.
    pub fn put(&self, Prepared { config, sink }: Prepared) {
        let Shared { beside_log, terms, writer, in_force } = &*self.0;
        let wanted = config.as_ref().map_or(Terms::beside_log(*beside_log), |config| Terms::of(config, *beside_log));
        // First, so that lines of the new kind may end in the file that is left, and none of the old in the new one.
        terms.set(wanted);
        if let Some(sink) = sink {
            writer.turn_to(sink);
        }
        *in_force.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Starts the thread that writes lines: to `beside_log`, unless they go elsewhere.
    pub fn write_to(&self, beside_log: impl Write + Send + 'static) -> io::Result<()> {
        self.0.writer.write_to(beside_log)
    }

    /// Whoever rotates files has put this one aside: begins it anew.
    pub fn reopen(&self) {
        self.0.writer.reopen();
    }

    /// Writes the last lines before the process ends.
    pub fn flush(&self) {
        self.0.writer.flush();
    }

    /// Writes the line of a connection that was not ours to read. Formats of requests have no place for it: there it is among
    /// the log's own.
    pub(crate) fn passed_through(&self, passed: &PassedThrough<'_>) {
        let terms = self.terms();
        if terms.format == Format::Off || terms.by_level && !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        if terms.format == Format::Json {
            return Line::with(|line| self.append(line.of_passed_through(passed)));
        }
        tracing::info!(
            target: TARGET,
            client = %passed.client,
            server_name = cut(passed.server_name),
            pool = passed.pool,
            backend = passed.backend.map(tracing::field::display),
            bytes_in = passed.bytes_in,
            bytes_out = passed.bytes_out,
            duration_us = passed.duration.as_micros() as u64,
            ended = passed.ended,
        );
    }

    pub(super) fn terms(&self) -> Terms {
        self.0.terms.get()
    }

    /// Lines have headers by which clients speak of themselves.
    pub(super) fn tells_visitors(&self) -> bool {
        self.terms().format == Format::Combined
    }

    pub(super) fn append(&self, lines: &[u8]) {
        self.0.writer.append(lines);
    }
}
