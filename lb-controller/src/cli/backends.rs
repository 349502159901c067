//! `lb-controller backends`: both views of each backend, side by side.

use super::output::{Paint, paint, print, print_json, table};
use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{Backend, BackendL4};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let backends: Vec<Backend> = match client::get(instance, "/v1/backends") {
        Ok(backends) => backends,
        Err(AskError::NotRunning { .. }) => crate::datapath_report::backends_of_pins(instance)?,
        Err(error) => return Err(Failure::new(ExitKind::Other, error)),
    };
    if arguments.json {
        print_json(&backends)?;
        return Ok(());
    }
    let mut rows = table(&[
        "pool",
        "backend",
        "L7",
        "for",
        "requests",
        "in flight",
        "eBPF map",
        "weight",
        "packets",
        "flows",
        "way",
        "server id",
        "from",
        "last error",
    ]);
    for backend in &backends {
        rows.add_row(row(backend));
    }
    print("Backends", &rows);
    Ok(())
}

fn row(backend: &Backend) -> Vec<String> {
    let absent = || "-".to_owned();
    let mut row = vec![backend.pool.clone(), backend.address.to_string()];
    match &backend.l7 {
        Some(l7) => row.extend([
            paint(if l7.healthy { Paint::Good } else { Paint::Bad }, &l7.state),
            format!("{} s", l7.for_seconds),
            l7.requests.to_string(),
            l7.in_flight.to_string(),
        ]),
        None => row.extend([absent(), absent(), absent(), absent()]),
    }
    row.push(backend.ebpf.clone().unwrap_or_else(absent));
    match &backend.l4 {
        Some(l4) => row.extend([
            l4.weight.to_string(),
            l4.packets.to_string(),
            l4.new_flows.to_string(),
            way(l4),
            if l4.server_ids.is_empty() { absent() } else { l4.server_ids.join(", ") },
        ]),
        None => row.extend([absent(), absent(), absent(), absent(), absent()]),
    }
    row.push(backend.from.clone().unwrap_or_else(absent));
    row.push(backend.l7.as_ref().and_then(|l7| l7.last_error.clone()).unwrap_or_default());
    row
}

fn way(l4: &BackendL4) -> String {
    match &l4.way {
        Some(way) => format!("{} via {}", way.interface, way.next_hop),
        None => "-".to_owned(),
    }
}
