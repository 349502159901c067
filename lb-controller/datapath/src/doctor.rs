//! Whether this machine can run the data plane, and what would keep it from running well: each finding with the remedy.

mod interface;
mod kernel;

pub use interface::examine as examine_interface;
pub use kernel::examine as examine_kernel;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Such as `kernel`, or `queues`.
    pub what: &'static str,
    pub grade: Grade,
    /// As it is here.
    pub found: String,
    /// Why it matters and what mends it; empty where nothing is wrong.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Good,
    /// It cannot be told from here.
    Unknown,
    /// It runs, but slower or less well than it could.
    Warning,
    /// It does not run.
    Bad,
}

impl Grade {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, grade: Grade::Good, found: found.into(), remedy: String::new() }
    }

    fn unknown(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, grade: Grade::Unknown, found: found.into(), remedy: String::new() }
    }

    fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, grade: Grade::Warning, found: found.into(), remedy: remedy.into() }
    }

    fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, grade: Grade::Bad, found: found.into(), remedy: remedy.into() }
    }
}
