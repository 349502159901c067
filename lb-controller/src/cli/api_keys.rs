//! `lb-controller api-keys`: making, listing, replacing and revoking the keys of programs.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::{print, print_json, table, time_text};
use crate::admin::client::{self, AskError};
use crate::config::parse_duration;
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{ApiKeyReport, NewSecret};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and print it, this once.
    Create(Create),
    /// List the keys; their secrets are known to their owners alone.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a key another secret at once, and print it, this once.
    Rotate {
        #[command(flatten)]
        key: Key,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a key for good.
    Revoke(Key),
    /// Have a key, or all keys of a user, answered 401 until each is rotated.
    RequireRegeneration {
        /// How the key begins, such as lbk_0123456789abcdef.
        #[arg(value_name = "KEY", required_unless_present = "user")]
        id: Option<String>,
        /// All keys of this user.
        #[arg(long, conflicts_with = "id")]
        user: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// For whom it acts, as rules see the user.
    #[arg(long)]
    user: String,
    /// What it is for.
    #[arg(long)]
    name: String,
    /// A group that rules see; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A scope that routes ask for; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// End it after this long, such as 90d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_in: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Key {
    /// How the key begins, such as lbk_0123456789abcdef.
    #[arg(value_name = "KEY")]
    id: String,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Create(new) => {
            let question = serde_json::json!({
                "user": new.user, "name": new.name, "groups": new.groups, "scopes": new.scopes,
                "lifetime_seconds": new.expires_in.map(|duration| duration.as_secs()),
            });
            show_secret(&ask(instance, "/v1/api-keys", &question)?, new.json)?;
        }
        Command::List { json } => {
            let keys: Vec<ApiKeyReport> = client::get(instance, "/v1/api-keys").map_err(failed)?;
            if json {
                print_json(&keys)?;
            } else {
                show(&keys);
            }
        }
        Command::Rotate { key, json } => show_secret(&ask(instance, "/v1/api-keys/rotate", &key.id)?, json)?,
        Command::Revoke(key) => {
            let () = ask(instance, "/v1/api-keys/revoke", &key.id)?;
            say!("{} opens nothing any more", key.id);
        }
        Command::RequireRegeneration { id: Some(id), .. } => {
            let () = ask(instance, "/v1/api-keys/require-regeneration", &id)?;
            say!("{id} opens nothing until it is rotated: lb-controller api-keys rotate {id}");
        }
        Command::RequireRegeneration { user, .. } => {
            let user = user.unwrap_or_default();
            let keys: usize = ask(instance, "/v1/api-keys/require-regeneration-of-user", &user)?;
            say!("{keys} keys of {user} open nothing until each is rotated");
        }
    }
    Ok(())
}

fn ask<Q: Serialize, A: DeserializeOwned>(instance: &Instance, path: &str, question: &Q) -> Result<A, Failure> {
    client::post(instance, path, question).map_err(failed)
}

fn failed(error: AskError) -> Failure {
    let kind = if matches!(error, AskError::NotRunning { .. }) { ExitKind::NotRunning } else { ExitKind::Other };
    Failure::new(kind, error)
}

fn show_secret(made: &NewSecret, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(made);
    }
    say!("{}", made.key);
    eprintln!("Keep it now: it is not shown again. Send it as `Authorization: Bearer …`.");
    Ok(())
}

fn show(keys: &[ApiKeyReport]) {
    let mut rows = table(&["key", "user", "name", "groups", "scopes", "made", "ends", "state"]);
    for key in keys {
        let ends = key.expires_at.map_or_else(|| "never".to_owned(), time_text);
        rows.add_row([
            key.id.clone(),
            key.user.clone(),
            key.name.clone(),
            key.groups.join(" "),
            key.scopes.join(" "),
            time_text(key.created_at),
            ends,
            if key.regenerate_required { "regenerate required" } else { "in use" }.to_owned(),
        ]);
    }
    print("API keys", &rows);
}
