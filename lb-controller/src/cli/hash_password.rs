//! `lb-controller hash-password`: what goes into `users[].password_hash`.

use std::io::{IsTerminal, Read};

use crate::failure::Failure;
use crate::stepup::factor::password;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: Arguments) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        eprintln!("Type the password, then Enter and Ctrl-D. It is shown as you type; pipe it in to avoid that.");
    }
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).map_err(anyhow::Error::from)?;
    let typed = text.trim_end_matches(['\r', '\n']);
    if typed.is_empty() {
        return Err(anyhow::anyhow!("no password was given on standard input").into());
    }
    say!("{}", password::hash(typed)?);
    Ok(())
}
