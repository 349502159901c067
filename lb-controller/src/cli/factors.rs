//! `lb-controller factors`: what a user enrolled, and what to do when it was lost.

use super::output::{print, print_json, table};
use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::EnrolledFactor;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Whose factors; a user of an identity provider is written as PROVIDER/NAME.
    #[arg(value_name = "USER", required = true)]
    user: Option<String>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Remove a factor that was lost or stolen. The user is told by e-mail.
    Remove {
        #[arg(value_name = "USER")]
        user: String,
        /// As `factors USER` lists it.
        #[arg(value_name = "ID")]
        id: String,
    },
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    match (arguments.command, arguments.user) {
        (Some(Command::Remove { user, id }), _) => remove(instance, &user, &id),
        (None, Some(user)) => list(instance, &user, arguments.json),
        (None, None) => Ok(()),
    }
}

fn list(instance: &Instance, user: &str, json: bool) -> Result<(), Failure> {
    let path = format!("/v1/users/{}/factors", in_path(user));
    let factors: Vec<EnrolledFactor> = client::get(instance, &path).map_err(failed)?;
    if json {
        print_json(&factors)?;
        return Ok(());
    }
    let mut rows = table(&["id", "method", "name", "added", "last used"]);
    for factor in &factors {
        let used = factor.last_used_at.map_or("never".to_owned(), date);
        rows.add_row([&factor.id, &factor.method, &factor.name, &date(factor.created_at), &used]);
    }
    print(&format!("Factors that {user} enrolled"), &rows);
    Ok(())
}

fn remove(instance: &Instance, user: &str, id: &str) -> Result<(), Failure> {
    let path = format!("/v1/users/{}/factors/{}/remove", in_path(user), in_path(id));
    client::post::<_, bool>(instance, &path, &()).map_err(failed)?;
    say!("{id} of {user} was removed");
    Ok(())
}

/// One segment of a path.
pub(super) fn in_path(name: &str) -> String {
    name.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(super) fn failed(error: AskError) -> Failure {
    let kind = if matches!(error, AskError::NotRunning { .. }) { ExitKind::NotRunning } else { ExitKind::Other };
    Failure::new(kind, error)
}

fn date(at: u64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let at = i64::try_from(at).ok().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(&format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment_of_a_path() {
        for (name, path) in [("alice", "alice"), ("corp/bob", "corp%2Fbob"), ("é ?", "%C3%A9%20%3F"), ("..", "%2E%2E")]
        {
            assert_eq!(in_path(name), path);
        }
    }

    #[test]
    fn times_are_read_by_people() {
        assert_eq!(date(1_790_000_010), "2026-09-21 14:13 UTC");
    }
}
