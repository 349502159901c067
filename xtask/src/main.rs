//! `cargo xtask`: everything a developer or an operator does with the source tree, one file a command.

mod bench;
mod build;
mod ci;
mod demo;
mod fuzz;
mod load;
mod paths;
mod run;
mod setup;
mod test;
mod tidy;
mod train;

use std::process::ExitCode;

use clap::Parser;

/// Set up, build, show, load, test and measure lb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Provide what building, the demo or the tests lack: toolchain parts, bpf-linker, Debian packages, bpffs
    Setup(setup::Args),
    /// Build the eBPF object and the controller
    Build(build::Args),
    /// Run a whole edge with clients and backends on this machine, in network namespaces; Ctrl-C removes it
    Demo(demo::Args),
    /// Build, and start an edge on real interfaces in the background
    Load(load::LoadArgs),
    /// Stop that edge and remove its programs and maps from the kernel
    Unload,
    /// Show what that edge counts
    Status(load::StatusArgs),
    /// Run every level of tests and print how many passed, failed and were skipped
    Test(test::Args),
    /// Formatting, lints, house rules, dependencies, and all tests
    Ci(ci::Args),
    /// Feed random bytes to every parser of outside bytes
    Fuzz(fuzz::Args),
    /// Measure, and print numbers to compare
    Bench(bench::Args),
    /// Learn where the controller spends its time, for the optimiser of release builds: writes lb-controller/trained.profdata
    Train,
    /// Check the house rules: sizes, permitted edges between modules, no loose ends
    Tidy,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Load(args) => load::load(&args),
        Command::Unload => load::unload(),
        Command::Status(args) => load::status(&args),
        Command::Test(args) => test::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Train => train::run(),
        Command::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
