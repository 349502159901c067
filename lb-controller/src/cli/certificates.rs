//! `lb-controller certificates`: what is served, until when, and what became of files that were put there since.

use super::factors::failed;
use super::output::{Paint, paint, print, print_json, table, time_text};
use crate::admin::client;
use crate::failure::Failure;
use crate::instance::Instance;
use crate::report::{Certificate, CertificateOrder};

/// People have this long to find out why a certificate is not renewed.
const SOON_DAYS: i64 = 14;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let certificates: Vec<Certificate> = client::get(instance, "/v1/certificates").map_err(failed)?;
    if arguments.json {
        return Ok(print_json(&certificates)?);
    }
    let mut rows = table(&["names", "issuer", "key", "from", "until", "days left", "source", "file"]);
    for certificate in &certificates {
        rows.add_row(row(certificate));
    }
    print("Certificates", &rows);
    for certificate in &certificates {
        if let Some(refused) = &certificate.refused {
            say!("{} {refused}", paint(Paint::Bad, "refused, what was served before goes on:"));
        }
        if let Some(order) = &certificate.order {
            show_order(order);
        }
    }
    Ok(())
}

fn row(certificate: &Certificate) -> [String; 8] {
    let absent = || "-".to_owned();
    let time = |time: Option<u64>| time.map_or_else(absent, time_text);
    let mut names = certificate.names.join(", ");
    if names.is_empty() {
        names = certificate.order.as_ref().map_or_else(absent, |order| format!("({})", order.names.join(", ")));
    }
    if certificate.is_default {
        names.push_str(" (default)");
    }
    let days_left = certificate
        .days_left
        .map_or_else(absent, |days| paint(if days < SOON_DAYS { Paint::Bad } else { Paint::Good }, &days.to_string()));
    [
        names,
        certificate.issuer.clone().unwrap_or_else(absent),
        certificate.key_type.clone().unwrap_or_else(absent),
        time(certificate.not_before),
        time(certificate.not_after),
        days_left,
        certificate.source.clone(),
        certificate.file.clone(),
    ]
}

fn show_order(order: &CertificateOrder) {
    let names = order.names.join(", ");
    let next = time_text(order.next_attempt_at);
    match &order.last_error {
        None => say!("{names}: to be ordered at {next}"),
        Some(error) => say!(
            "{} {names}, {} times in a row; next attempt at {next}: {error}",
            paint(Paint::Bad, "order failed for"),
            order.failures
        ),
    }
}
