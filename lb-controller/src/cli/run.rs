//! `lb-controller run`: arguments only; the edge is put together in [`crate::run`].

use std::net::SocketAddr;
use std::path::PathBuf;

use lb_common::maps::MAX_WORKERS;

use crate::failure::Failure;
use crate::instance::Instance;
use crate::logging::{self, LogFormat, LogLevel};
use crate::metrics::Metrics;
use crate::run::{Options, TakeoverOptions};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file; it is followed while the edge runs.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Attach XDP to this interface (repeat for several) instead of those in the configuration.
    #[arg(long = "iface", value_name = "IFACE", conflicts_with = "listen")]
    interfaces: Vec<String>,

    /// Run L7 alone, without XDP or root, on this address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// With --listen: answer plain HTTP on this address, with nothing but the way to HTTPS.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "listen")]
    listen_http: Option<SocketAddr>,

    /// L7 workers, one thread each.
    #[arg(long, value_name = "COUNT", default_value_t = available_cpus(), value_parser = clap::value_parser!(u16).range(1..=MAX_WORKERS as i64))]
    workers: u16,

    /// Take over from the controller of this instance that runs, without losing a connection; `lb-controller upgrade` does
    /// so in the background.
    #[arg(long)]
    takeover: bool,

    /// With --takeover: write the log where the old controller did, once it is taken over from.
    #[arg(long, requires = "takeover", hide = true)]
    adopt_output: bool,

    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    log_level: LogLevel,

    /// Default: text on a terminal, JSON elsewhere.
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

fn available_cpus() -> u16 {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MAX_WORKERS) as u16)
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let metrics = Metrics::default();
    let access_log = logging::start(arguments.log_level, arguments.log_format, &metrics);
    let (config, config_text) = super::check::load(&arguments.config)?;
    crate::run::run(Options {
        instance: instance.clone(),
        config_file: arguments.config,
        config_text,
        config,
        interfaces: arguments.interfaces,
        listen: arguments.listen,
        listen_http: arguments.listen_http,
        workers: usize::from(arguments.workers),
        takeover: arguments.takeover.then_some(TakeoverOptions { adopt_output: arguments.adopt_output }),
        log_level: arguments.log_level,
        metrics,
        access_log,
    })
}
