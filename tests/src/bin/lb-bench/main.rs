//! `lb-bench l4`: what the XDP program costs per packet, in the kernel's own runner (`BPF_PROG_TEST_RUN`); and
//! `lb-bench handshakes` and `lb-bench latencies`, loads that no program of Debian's makes.
//!
//! The runner's loop and the driver that writes each packet are part of all figures, of the program's and of the
//! floor's alike; nothing is subtracted. Machines differ, so the figures to compare are the ratios.

mod answer;
mod cases;
mod cookies;
mod driver;
mod end_to_end;
mod handshakes;
mod latencies;
mod lists;
mod measure;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lb_tests::netns::Namespace;
use lb_tests::program::with_bench_in;

/// Measures the data plane, and loads the proxy.
#[derive(Parser)]
enum Command {
    /// The XDP program and the floor on each kind of packet, each many times
    L4(L4),
    /// Requests that each begin with a full TLS handshake; prints how many
    Handshakes(handshakes::Options),
    /// Requests at a steady rate, at times that chance picks; prints how long each took
    Latencies(latencies::Options),
}

#[derive(clap::Args)]
struct L4 {
    /// The eBPF object with the driver and the floor, as `cargo xtask build` leaves it
    #[arg(long)]
    driver: PathBuf,
    /// Where to write the figures as JSON
    #[arg(long)]
    output: PathBuf,
    /// The median of this many rounds is told; all cases and programs take turns within a round, so that a slow moment
    /// of the machine hits all of them
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only the cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Packets of each case and program in a round
    #[arg(long, default_value_t = 500_000)]
    packets: u32,
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::L4(options) => l4(options),
        Command::Handshakes(options) => told(handshakes::run(options)),
        Command::Latencies(options) => told(latencies::run(options)),
    }
}

fn told(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn l4(options: L4) -> ExitCode {
    if !lb_tests::level::has_root("programs") {
        return ExitCode::FAILURE;
    }
    let backends = Namespace::new();
    with_bench_in(&cases::host(&backends), &[cases::INTERFACE], cases::desired(), move |bench| {
        let object = std::fs::read(&options.driver)
            .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask bench l4`", options.driver.display()));
        let _listener = cookies::listen(bench);
        let figures = measure::all(bench, &object, &options.only, options.rounds, options.packets);
        let rates = end_to_end::all(&object, &backends, &options.only, options.rounds, options.packets);
        report::print(&figures, &rates);
        report::write(&figures, &rates, &options.output);
    });
    ExitCode::SUCCESS
}
