//! `lb-controller`: runs the edge, and asks a running one.

use std::process::ExitCode;

use clap::Parser;
use lb_controller::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
