//! How the program fails: one chain of causes, no backtrace, an exit code of its own.

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;

/// What kind of failure it was. The number is the exit code; scripts rely on it, so it never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitKind {
    Other = 1,
    // 2 is clap's, for wrong arguments.
    Config = 3,
    Permission = 4,
    PortBusy = 5,
    Interface = 6,
    Kernel = 7,
    NotRunning = 8,
    AlreadyRunning = 9,
    Certificate = 10,
    State = 11,
}

impl ExitKind {
    /// Of another process of this program.
    pub(crate) fn of_code(code: i32) -> Option<ExitKind> {
        use ExitKind::{
            AlreadyRunning, Certificate, Config, Interface, Kernel, NotRunning, Other, Permission, PortBusy, State,
        };
        let all =
            [Other, Config, Permission, PortBusy, Interface, Kernel, NotRunning, AlreadyRunning, Certificate, State];
        all.into_iter().find(|kind| *kind as i32 == code)
    }
}

pub(crate) const EXIT_CODES: &str = "Exit codes: 0 done, 1 other failure, 2 wrong arguments, 3 configuration refused, \
4 permission missing, 5 port busy, 6 interface unusable, 7 kernel or eBPF object unfit, 8 no controller running, \
9 already running, 10 certificate unusable, 11 state folder unusable.";

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    kind: ExitKind,
    error: anyhow::Error,
}

impl Failure {
    pub fn new(kind: ExitKind, error: impl Into<anyhow::Error>) -> Failure {
        Failure { kind, error: error.into() }
    }

    /// Prints the chain of causes to standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (red, plain) = if std::io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        eprintln!("{red}error{plain}: {}", self.error);
        for cause in self.error.chain().skip(1) {
            eprintln!("  because: {cause}");
        }
        ExitCode::from(self.kind as u8)
    }

    pub fn kind(&self) -> ExitKind {
        self.kind
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(ExitKind::Other, error)
    }
}

/// Gives an error its exit code: `.or_exit(ExitKind::Certificate)`.
pub(crate) trait OrExit<T> {
    fn or_exit(self, kind: ExitKind) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, kind: ExitKind) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(kind, error))
    }
}

/// An error and what caused it, for libraries whose errors do not tell of their causes themselves.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
