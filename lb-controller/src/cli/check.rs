//! `lb-controller check`: everything that `run` would refuse about a file, and the certificates and lists it names, without
//! opening a port.

use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::failure::{ExitKind, Failure, OrExit};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let (config, _) = load(&arguments.config)?;
    crate::run::check_certificates(&config).or_exit(ExitKind::Certificate)?;
    crate::run::check_issuers(&config)?;
    let listed = crate::run::check_lists(&config)?;
    say!(
        "{} is good: {} services, {} pools, {} routes, {} users, {} rules, {listed} listed prefixes",
        arguments.config.display(),
        config.services.len(),
        config.pools.len(),
        config.routes.len(),
        config.users.len(),
        config.rules.len(),
    );
    Ok(())
}

/// Loads a configuration, and its text as compiled; prints every diagnostic in full before failing.
pub(super) fn load(file: &Path) -> Result<(Config, String), Failure> {
    let compiled = config::read(file).and_then(|text| Ok((config::compile_read(file, &text)?, text)));
    compiled.map_err(|diagnostics| {
        eprintln!("{diagnostics}");
        Failure::new(ExitKind::Config, anyhow::anyhow!("{} was refused", file.display()))
    })
}
