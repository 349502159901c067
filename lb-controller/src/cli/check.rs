//! `lb-controller check`: everything that `run` would refuse about a file, and the certificates and lists it names, without
//! opening a port.

use std::path::{Path, PathBuf};

use super::output::{print, table};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::explain;
use crate::failure::{ExitKind, Failure, OrExit};
use crate::signals::Sources;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let (config, text) = load(&arguments.config)?;
    crate::run::check_certificates(&config, &arguments.config, &text)?;
    crate::run::check_issuers(&config)?;
    Sources::open(&config, &Sources::default()).or_exit(ExitKind::Config)?;
    let listed = crate::run::check_lists(&config)?;
    rehearse(&arguments.config, &config)?;
    say!(
        "{} is good: {} services, {} pools, {} routes, {} users, {} rules, {} tests passed, {listed} listed prefixes",
        arguments.config.display(),
        config.services.len(),
        config.pools.len(),
        config.routes.len(),
        config.users.len(),
        config.rules.len(),
        config.tests.len(),
    );
    Ok(())
}

/// Runs the tests in the file; prints those that fail.
fn rehearse(file: &Path, config: &Config) -> Result<(), Failure> {
    let failed = explain::rehearse(config, Clock::system().now());
    if failed.is_empty() {
        return Ok(());
    }
    let mut rows = table(&["line", "test", "what differs"]);
    for test in &failed {
        rows.add_row([test.line.to_string(), test.name.clone(), test.problems.join("\n")]);
    }
    print("Failed tests", &rows);
    let why = anyhow::anyhow!("{} of {} tests in {} failed", failed.len(), config.tests.len(), file.display());
    Err(Failure::new(ExitKind::Config, why))
}

/// Loads a configuration, and its text as compiled; prints every diagnostic in full before failing.
pub(super) fn load(file: &Path) -> Result<(Config, String), Failure> {
    let compiled = config::read(file).and_then(|text| Ok((config::compile_read(file, &text)?, text)));
    compiled.map_err(|diagnostics| {
        eprintln!("{diagnostics}");
        Failure::new(ExitKind::Config, anyhow::anyhow!("{} was refused", file.display()))
    })
}
