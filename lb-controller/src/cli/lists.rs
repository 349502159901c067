//! `lb-controller lists`: what is denied and allowed, and why one address is.

use std::net::IpAddr;

use super::output::{Paint, paint, print, print_json, table};
use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{ListDecision, Lists};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Say which prefix of which file decides about this address.
    address: Option<IpAddr>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    match arguments.address {
        Some(address) => decide(instance, address, arguments.json),
        None => list(instance, arguments.json),
    }
}

fn decide(instance: &Instance, address: IpAddr, json: bool) -> Result<(), Failure> {
    let decision: ListDecision = client::post(instance, "/v1/lists/decision", &address).map_err(|error| {
        let kind = if matches!(error, AskError::NotRunning { .. }) { ExitKind::NotRunning } else { ExitKind::Other };
        Failure::new(kind, error)
    })?;
    if json {
        print_json(&decision)?;
        return Ok(());
    }
    let colour = if decision.listed == "denied" { Paint::Bad } else { Paint::Good };
    let listed = paint(colour, &decision.listed);
    match &decision.prefix {
        None => say!("{address} is {listed}: no prefix holds it"),
        Some(prefix) => say!("{address} is {listed} by {prefix} ({})", place(&decision)),
    }
    Ok(())
}

fn place(decision: &ListDecision) -> String {
    match (&decision.file, decision.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        (None, _) => "in the configuration".to_owned(),
    }
}

fn list(instance: &Instance, json: bool) -> Result<(), Failure> {
    let lists: Lists = match client::get(instance, "/v1/lists") {
        Ok(lists) => lists,
        Err(AskError::NotRunning { .. }) => {
            Lists { families: crate::datapath_report::lists_of_pins(instance)?, ..Lists::default() }
        }
        Err(error) => return Err(Failure::new(ExitKind::Other, error)),
    };
    if json {
        print_json(&lists)?;
        return Ok(());
    }
    show(&lists);
    Ok(())
}

fn show(lists: &Lists) {
    let mut rows = table(&["family", "denied", "allowed", "kernel memory", "loaded at"]);
    for family in &lists.families {
        rows.add_row([
            family.family.clone(),
            family.denied.to_string(),
            family.allowed.to_string(),
            format!("{:.1} MiB", family.memory_bytes as f64 / f64::from(1 << 20)),
            family.loaded_at.clone(),
        ]);
    }
    print("In force", &rows);
    if let Some(sources) = &lists.sources {
        let mut rows = table(&["list", "file", "IPv4", "IPv6"]);
        for source in sources {
            let file = source.file.clone().unwrap_or_else(|| "(configuration)".to_owned());
            rows.add_row([source.list.clone(), file, source.ipv4.to_string(), source.ipv6.to_string()]);
        }
        print("Sources", &rows);
    }
    if let Some(loading) = &lists.loading {
        say!("{} new lists for {} s: {} prefixes so far", loading.stage, loading.seconds, loading.prefixes);
    }
    if let Some(refused) = &lists.refused {
        say!("{}\n{refused}", paint(Paint::Bad, "The files as they are now were refused; the lists above go on:"));
    }
}
