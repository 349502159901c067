//! Where log lines go: standard error, human on a terminal and JSON elsewhere unless told.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::metrics::Metrics;
use crate::serve::access_log::{AccessLog, NonBlocking};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging. `LB_LOG`, in the syntax of `tracing`'s filters, overrides the level target by target.
///
/// In JSON, access lines go a way of their own that never makes a worker wait; in text, for people who watch, they are lines
/// like all others, unless the configuration wants them elsewhere. The returned log still has to be given its sink.
pub fn start(level: LogLevel, format: Option<LogFormat>, metrics: &Metrics) -> AccessLog {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Dependencies narrate every frame at debug; whoever asks for debug asks about the edge. And rustls warns of what clients send:
    // whoever names an address as the server's name would write a line with each handshake.
    let default =
        format!("warn,rustls=error,lb_controller={level},lb_datapath={level},xdp={level},access={level},audit={level}");
    let filter = EnvFilter::try_from_env("LB_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let writer = NonBlocking::new(metrics.clone());
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => {
            let colours = terminal && std::env::var_os("NO_COLOR").is_none();
            tracing_subscriber::registry().with(filter).with(lines.with_ansi(colours)).init();
            AccessLog::text(writer)
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing_subscriber::registry().with(filter).with(lines).init();
            AccessLog::json(writer)
        }
    }
}
