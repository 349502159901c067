//! What is written of each request, and where to.

use std::path::PathBuf;
use std::time::Duration;

/// The access log, where the configuration has a section for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub destination: LogDestination,
    /// `None`: to standard error as other log lines are, to a file as JSON.
    pub format: Option<AccessFormat>,
    /// One request in so many has a line, chosen at random; 1: each.
    pub one_in: u32,
    /// Which requests have a line whatever the choice.
    pub always: AlwaysLogged,
    /// A request that takes as long is slow. Whole milliseconds.
    pub slow: Duration,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogDestination {
    /// No line is written.
    Off,
    #[default]
    StandardError,
    File(LogFileConfig),
}

/// A file that lines are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFileConfig {
    pub path: PathBuf,
    /// `None`: it grows until somebody else puts it aside.
    pub rotation: Option<Rotation>,
}

/// When a file is put aside, and how many such files stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Before it would be larger, by a second's lines at most.
    pub size_bytes: u64,
    /// Older ones are deleted.
    pub keep: u32,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// An object a line.
    Json,
    /// The Common Log Format of the first web servers.
    Common,
    /// That, with `Referer` and `User-Agent`.
    Combined,
}

/// Requests that are not left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlwaysLogged {
    /// Answered 5xx, or broken off.
    pub errors: bool,
    /// Refused, challenged or told to wait by this edge.
    pub denials: bool,
    /// See [`AccessLogConfig::slow`].
    pub slow: bool,
}

impl Default for AlwaysLogged {
    fn default() -> AlwaysLogged {
        AlwaysLogged { errors: true, denials: true, slow: true }
    }
}

impl Default for AccessLogConfig {
    fn default() -> AccessLogConfig {
        AccessLogConfig {
            destination: LogDestination::default(),
            format: None,
            one_in: 1,
            always: AlwaysLogged::default(),
            slow: Duration::from_secs(1),
        }
    }
}
