//! Lines, plain tables and colours, for terminals and for pipes.

use std::fmt;
use std::io::{IsTerminal, Write};

use comfy_table::{Table, presets};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A line on standard output, as `println!` writes it. When nobody reads it any more (`… | head`), the program ends
/// quietly instead of panicking.
macro_rules! say {
    ($($argument:tt)*) => { $crate::cli::output::line(format_args!($($argument)*)) };
}

pub(super) fn line(text: fmt::Arguments<'_>) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A borderless table with the given heading.
pub(super) fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heading.to_vec());
    table
}

pub(super) fn print(title: &str, table: &Table) {
    say!("{}", paint(Paint::Bold, title));
    if table.is_empty() {
        say!("  none");
    } else {
        for line in table.lines() {
            say!(" {}", line.trim_end());
        }
    }
    say!("");
}

#[derive(Clone, Copy)]
pub(super) enum Paint {
    Bold,
    Good,
    Bad,
}

/// Colours on a terminal only, and never with NO_COLOR (no-color.org).
pub(super) fn paint(paint: Paint, text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Bold => "1",
        Paint::Good => "32",
        Paint::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A time in Unix seconds as RFC 3339 writes it.
pub(super) fn time_text(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
