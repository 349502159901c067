//! `lb-controller audit`: whether a trail of events is whole.

use std::path::PathBuf;

use super::output::{Paint, paint, print_json};
use crate::audit::Verifier;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Follow the chain of hashes through the files; say how far it goes, or where it breaks.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The files, the oldest first: those that were put aside carry the number of their last event.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Command::Verify(arguments) = arguments.command;
    let mut verifier = Verifier::default();
    arguments.files.iter().try_for_each(|file| verifier.check(file))?;
    let found = verifier.found();
    if arguments.json {
        print_json(&found)?;
        return Ok(());
    }
    match (found.first_seq, found.last_seq, &found.first_at, &found.last_at) {
        (Some(first), Some(last), Some(from), Some(to)) => {
            say!("{}: events {first} to {last}, {from} to {to}", paint(Paint::Good, "whole"));
            say!("hash of the last: {}", found.last_hash.unwrap_or_default());
        }
        _ => say!("no events"),
    }
    Ok(())
}
