//! `lb-controller top`: what happens now, by the second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::output::{Paint, paint, print, print_json, table};
use crate::admin::client::{self, AskError};
use crate::datapath_report;
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::rates::{Rates, Reading, between};
use crate::report::{Backend, Datapath, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Seconds between two readings.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = interval)]
    interval: f64,
    /// Print one screen and end.
    #[arg(long)]
    once: bool,
    /// Print the rates of one interval as JSON and end.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| format!("{text:?} is no number of seconds from 0.1 to 3600"))
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let start = Instant::now();
    let mut before = read(instance, start)?;
    loop {
        std::thread::sleep(Duration::from_secs_f64(arguments.interval));
        let after = read(instance, start)?;
        let rates = between(&before, &after);
        if arguments.json {
            print_json(&rates)?;
            return Ok(());
        }
        if !arguments.once && std::io::stdout().is_terminal() {
            // To the first line, and clear what was there.
            say!("\x1b[H\x1b[2J\x1b[3J{}", heading(instance, &rates));
        } else {
            say!("{}", heading(instance, &rates));
        }
        show(&rates);
        if arguments.once {
            return Ok(());
        }
        before = after;
    }
}

/// From the controller, or from the maps while none runs.
fn read(instance: &Instance, start: Instant) -> Result<Reading, Failure> {
    let (datapath, backends) = match client::get::<Status>(instance, "/v1/status") {
        Ok(status) => (status.datapath, client::get::<Vec<Backend>>(instance, "/v1/backends").map_err(other)?),
        Err(AskError::NotRunning { .. }) => {
            let datapath = datapath_report::of_pins(instance)?;
            let backends = if datapath.is_some() { datapath_report::backends_of_pins(instance)? } else { Vec::new() };
            (datapath, backends)
        }
        Err(error) => return Err(other(error)),
    };
    let datapath: Datapath = datapath.ok_or_else(|| {
        let why = anyhow::anyhow!("nothing is attached for instance {instance}: there are no packets to count");
        Failure::new(ExitKind::NotRunning, why)
    })?;
    Ok(Reading { at: start.elapsed(), datapath, backends })
}

fn other(error: AskError) -> Failure {
    Failure::new(ExitKind::Other, error)
}

fn heading(instance: &Instance, rates: &Rates) -> String {
    let dropped = format!("{} dropped/s", count(rates.dropped_per_second));
    let dropped = if rates.dropped_per_second > 0.0 { paint(Paint::Bad, &dropped) } else { dropped };
    format!(
        "{}  {} packets/s, {} admitted/s, {dropped}; {} verified, {} blocked; busiest CPU {:.2} of the mean\n",
        paint(Paint::Bold, &instance.to_string()),
        count(rates.packets_per_second),
        count(rates.admitted_per_second),
        rates.verified_sources,
        rates.blocked_sources,
        rates.cpu_imbalance,
    )
}

fn show(rates: &Rates) {
    let mut rows = table(&["service", "packets/s", "bit/s", "SYNs/s", "cookies/s", "dropped/s", "of these"]);
    for service in &rates.services {
        let drops: Vec<String> =
            service.drops_per_second.iter().map(|(class, rate)| format!("{class} {}", count(*rate))).collect();
        rows.add_row([
            service.service.clone(),
            count(service.packets_per_second),
            count(service.bits_per_second),
            count(service.syns_per_second),
            count(service.syn_cookies_per_second),
            count(service.dropped_per_second),
            drops.join(", "),
        ]);
    }
    print("Services", &rows);

    let mut rows = table(&["pool", "backend", "packets/s", "bit/s", "new flows/s"]);
    for backend in &rates.backends {
        rows.add_row([
            backend.pool.clone(),
            backend.backend.clone(),
            count(backend.packets_per_second),
            count(backend.bits_per_second),
            count(backend.new_flows_per_second),
        ]);
    }
    print("Backends", &rows);

    let mut rows = table(&["reason", "verdict", "packets/s"]);
    for reason in &rates.reasons {
        rows.add_row([reason.reason.clone(), reason.verdict.clone(), count(reason.packets_per_second)]);
    }
    print("Reasons", &rows);

    let mut rows = table(&["cpu", "packets/s", "dropped/s"]);
    for cpu in &rates.cpus {
        rows.add_row([cpu.cpu.to_string(), count(cpu.packets_per_second), count(cpu.dropped_per_second)]);
    }
    print("CPUs", &rows);
}

/// `0`, `12.5`, `999`, `1.23 k`, `4.56 M`.
fn count(rate: f64) -> String {
    const STEPS: [(f64, &str); 3] = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    match STEPS.into_iter().find(|(step, _)| rate >= *step) {
        Some((step, unit)) => format!("{:.2}{unit}", rate / step),
        None if rate == rate.trunc() => format!("{rate:.0}"),
        None => format!("{rate:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_enough_to_compare_at_a_glance() {
        for (rate, text) in
            [(0.0, "0"), (12.5, "12.5"), (999.0, "999"), (1234.0, "1.23 k"), (4.56e6, "4.56 M"), (1e10, "10.00 G")]
        {
            assert_eq!(count(rate), text);
        }
    }

    #[test]
    fn an_interval_that_makes_no_sense_is_refused() {
        for (text, is_good) in [("1", true), ("0.5", true), ("0", false), ("NaN", false), ("1e9", false), ("x", false)]
        {
            assert_eq!(interval(text).is_ok(), is_good, "{text}");
        }
    }
}
