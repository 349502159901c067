//! `lb-controller status`: from the controller when one runs, and from the pinned maps when none does.

use super::output::{Paint, paint, print, print_json, table};
use crate::admin::client::{self, AskError};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{Controller, Datapath, Status, SynCookies};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let status = read(instance)?;
    if status.controller.is_none() && status.datapath.is_none() {
        let why = anyhow::anyhow!(
            "neither a controller nor an attached XDP program was found for instance {instance}; \
             start one with `lb-controller run --config FILE`"
        );
        return Err(Failure::new(ExitKind::NotRunning, why));
    }
    if arguments.json {
        print_json(&status)?;
        return Ok(());
    }
    print_controller(&status);
    if let Some(datapath) = &status.datapath {
        print_datapath(datapath);
    }
    Ok(())
}

fn read(instance: &Instance) -> Result<Status, Failure> {
    match client::get(instance, "/v1/status") {
        Ok(status) => Ok(status),
        Err(AskError::NotRunning { .. }) => {
            Ok(Status { controller: None, datapath: crate::datapath_report::of_pins(instance)? })
        }
        Err(error) => Err(Failure::new(ExitKind::Other, error)),
    }
}

fn print_controller(status: &Status) {
    let Some(controller) = &status.controller else {
        say!("controller  {}\n", paint(Paint::Bad, "not running; counters are read from the pinned maps"));
        return;
    };
    let listen = controller.listen.map_or(String::new(), |address| format!(", listening on {address} (no XDP)"));
    say!(
        "controller  {} version {}, pid {}, generation {}, up {} s, configuration {}{listen}",
        paint(Paint::Good, "running"),
        controller.version,
        controller.pid,
        controller.generation,
        controller.uptime_seconds,
        controller.config_version,
    );
    let accepted: Vec<String> = controller.accepted_by_worker.iter().map(u64::to_string).collect();
    say!("accepted    {} connections by worker\n", accepted.join(", "));
    let mut rows = table(&["pid", "generation", "connections", "seconds left"]);
    for process in &controller.draining {
        let numbers = [process.pid.into(), process.generation.into(), process.connections, process.seconds_left];
        rows.add_row(numbers.map(|number: u64| number.to_string()));
    }
    if !controller.draining.is_empty() {
        print("Draining since an upgrade", &rows);
    }
    print_discovered(controller);
}

/// Nothing while no pool's backends are found.
fn print_discovered(controller: &Controller) {
    let mut rows = table(&["pool", "from", "backends", "draining", "left out", "refused", "found", "error"]);
    for found in &controller.discovered {
        rows.add_row([
            found.pool.clone(),
            found.from.clone(),
            found.backends.to_string(),
            found.draining.to_string(),
            found.left_out.to_string(),
            found.refused.len().to_string(),
            found.found_seconds_ago.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago")),
            found
                .error
                .as_deref()
                .map_or_else(String::new, |error| paint(Paint::Bad, error.lines().next().unwrap_or(error))),
        ]);
    }
    if !controller.discovered.is_empty() {
        print("Found backends", &rows);
    }
}

fn print_datapath(datapath: &Datapath) {
    let mut rows = table(&["interface", "mode"]);
    for interface in &datapath.interfaces {
        rows.add_row([&interface.name, &interface.mode]);
    }
    print("Interfaces", &rows);

    let mut rows = table(&["service", "vip", "to", "packets", "bytes", "syns", "dropped", "syn cookies"]);
    for s in &datapath.services {
        rows.add_row([
            s.name.clone(),
            s.endpoints.join(" "),
            s.pool.as_ref().map_or_else(|| s.forward.clone(), |pool| format!("{pool} by {}", s.forward)),
            s.packets.to_string(),
            s.bytes.to_string(),
            s.syns.to_string(),
            s.dropped_packets.to_string(),
            cookies(&s.syn_cookies),
        ]);
    }
    print("Services", &rows);

    let mut rows = table(&["service", "limit", "per second", "at once"]);
    for (service, limit) in datapath.services.iter().flat_map(|s| s.limits.iter().map(move |limit| (s, limit))) {
        let what = format!("{} of {}", limit.of, limit.scope);
        rows.add_row([service.name.clone(), what, limit.per_second.to_string(), limit.burst.to_string()]);
    }
    if let Some(per_second) = datapath.new_flows_per_second {
        rows.add_row(["all".to_owned(), "new flows".to_owned(), per_second.to_string(), String::new()]);
    }
    print("Limits", &rows);

    if let Some(tunnels) = &datapath.decapsulation {
        let mut rows = table(&["from", "gue port", "ip in ip", "gue"]);
        let counts = [tunnels.gue_port.to_string(), tunnels.ip_packets.to_string(), tunnels.gue_packets.to_string()];
        rows.add_row([vec![tunnels.from.join(" ")], counts.to_vec()].concat());
        print("Unpacked", &rows);
    }

    let mut rows = table(&["reason", "source class", "packets"]);
    for admitted in &datapath.admitted {
        rows.add_row([admitted.reason.clone(), admitted.class.clone(), admitted.packets.to_string()]);
    }
    print("Admitted", &rows);

    let mut rows = table(&["reason", "source class", "packets"]);
    for dropped in &datapath.dropped {
        rows.add_row([dropped.reason.clone(), dropped.class.clone(), dropped.packets.to_string()]);
    }
    print("Dropped", &rows);

    print_nat(datapath);

    let mut rows = table(&["worker", "syns picked (xdp)", "connections steered (sk_lookup)"]);
    for worker in &datapath.workers {
        rows.add_row([worker.worker, worker.syns_picked, worker.connections_steered]);
    }
    print("Workers", &rows);

    for (title, marks) in [("Verified sources", &datapath.verified), ("Blocked sources", &datapath.blocked)] {
        let mut rows = table(&["source", "for another"]);
        for mark in marks {
            rows.add_row([mark.source.clone(), format!("{} s", mark.remaining_seconds)]);
        }
        print(title, &rows);
    }

    let bytes: u64 = datapath.maps.iter().map(|map| map.bytes).sum();
    say!(
        "memory      {:.1} MiB in {} maps, and lists beside them",
        bytes as f64 / f64::from(1 << 20),
        datapath.maps.len()
    );
}

/// Nothing while no service uses it.
fn print_nat(datapath: &Datapath) {
    let Some(nat) = &datapath.nat else { return };
    let mut rows = table(&["in use", "capacity", "tcp", "udp", "unproven", "addresses", "ports"]);
    rows.add_row([
        nat.in_use.to_string(),
        nat.capacity.to_string(),
        nat.tcp.to_string(),
        nat.udp.to_string(),
        nat.unproven.to_string(),
        nat.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        format!("{}-{}", nat.first_port, nat.last_port),
    ]);
    print("NAT", &rows);
    let mut rows = table(&["service", "reply packets", "reply bytes", "refused: full", "refused: no port"]);
    for (service, of) in datapath.services.iter().filter_map(|service| Some((service, service.nat.as_ref()?))) {
        let counts = [of.reply_packets, of.reply_bytes, of.refused_full, of.refused_no_port];
        rows.add_row([service.name.clone()].into_iter().chain(counts.map(|count| count.to_string())));
    }
    print("NAT by service", &rows);
}

/// `auto`, and what came of it if anything did: `auto, answering: 1200 sent, 80 valid, 3 bad`.
fn cookies(cookies: &SynCookies) -> String {
    let SynCookies { mode, answering, sent, valid, bad } = cookies;
    let now = if *answering { ", answering" } else { "" };
    if *sent == 0 { mode.clone() } else { format!("{mode}{now}: {sent} sent, {valid} valid, {bad} bad") }
}
