//! `lb-controller sealing-keys`: the keys that cookies are sealed with, and what to do when one got out.

use super::factors::failed;
use super::output::{print, print_json, table, time_text};
use crate::admin::client;
use crate::failure::Failure;
use crate::instance::Instance;
use crate::report::SealingKey;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the keys, the one that seals first.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Seal with a new key from now on. What the last one sealed opens on; sessions of an earlier one end.
    Rotate {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End everything that a key sealed: sessions, known devices, logins under way. One that seals is replaced at once.
    Revoke {
        /// As listed, and as it stands in cookies between the first and the second dot.
        #[arg(value_name = "KEY")]
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let (keys, json) = match arguments.action {
        Action::List { json } => (client::get(instance, "/v1/sealing-keys"), json),
        Action::Rotate { json } => (client::post(instance, "/v1/sealing-keys/rotate", &()), json),
        Action::Revoke { id, json } => (client::post(instance, "/v1/sealing-keys/revoke", &id), json),
    };
    let keys: Vec<SealingKey> = keys.map_err(failed)?;
    if json {
        return Ok(print_json(&keys)?);
    }
    let mut rows = table(&["key", "made", "use"]);
    for key in &keys {
        let usage = if key.seals { "seals and opens" } else { "opens" };
        rows.add_row([key.id.clone(), time_text(key.made_at), usage.to_owned()]);
    }
    print("Sealing keys", &rows);
    Ok(())
}
