//! `lb-controller threat`: how threatened the service is, for rules that go by it.

use std::time::Duration;

use super::output::{Paint, paint, print_json};
use crate::admin::client::{self, AskError};
use crate::admin::threat::{Setting, Shown};
use crate::clock::Clock;
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Set the level for a time; it is `normal` again after that, and it outlives a restart.
    Set {
        #[arg(value_name = "LEVEL", value_parser = ["normal", "elevated", "high", "critical"])]
        level: String,
        /// How long, such as 30m or 2h; at most a day.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = crate::config::parse_duration)]
        how_long: Duration,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the level, and until when it holds.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let (shown, json): (Shown, bool) = match arguments.action {
        Action::Set { level, how_long, json } => {
            let setting = Setting { level, for_seconds: how_long.as_secs() };
            (client::post(instance, "/v1/threat", &setting).map_err(failure)?, json)
        }
        Action::Show { json } => (client::get(instance, "/v1/threat").map_err(failure)?, json),
    };
    if json {
        return Ok(print_json(&shown)?);
    }
    let good = shown.level == "normal";
    say!("threat level  {}", paint(if good { Paint::Good } else { Paint::Bad }, &shown.level));
    if let Some(until) = shown.until {
        say!("ends in       {} s", until.saturating_sub(Clock::system().now()));
    }
    Ok(())
}

fn failure(error: AskError) -> Failure {
    let kind = if matches!(error, AskError::NotRunning { .. }) { ExitKind::NotRunning } else { ExitKind::Other };
    Failure::new(kind, error)
}
