//! `lb-controller enrol-token`: how a user without a second factor comes by the first.

use std::time::Duration;

use super::factors::{failed, in_path};
use super::output::print_json;
use crate::admin::client;
use crate::failure::Failure;
use crate::instance::Instance;
use crate::report::{ENROLMENT_TOKEN_LONGEST_SECONDS, EnrolmentToken, TokenOrder};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Who may add a factor with it; a user of an identity provider is written as PROVIDER/NAME.
    #[arg(value_name = "USER")]
    user: String,

    /// How long it may be used: 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = crate::config::parse_duration)]
    valid_for: Duration,

    /// Mail it to the address on record instead of printing it.
    #[arg(long)]
    mail: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let valid_for_seconds = arguments.valid_for.as_secs().min(ENROLMENT_TOKEN_LONGEST_SECONDS);
    let order = TokenOrder { valid_for_seconds, mail: arguments.mail };
    let path = format!("/v1/users/{}/enrolment-token", in_path(&arguments.user));
    let answer: EnrolmentToken = client::post(instance, &path, &order).map_err(failed)?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(());
    }
    match answer.token {
        Some(token) => {
            say!("{token}");
            eprintln!(
                "Give it to {} by a way you trust. Log in, open /.lb/enrol and type it there; it works once.",
                arguments.user
            );
        }
        None => say!("The token was mailed to {}", arguments.user),
    }
    Ok(())
}
