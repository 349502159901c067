//! The command line: one enum arm and one file a command.

#[macro_use]
mod output;

mod api_keys;
mod audit;
mod backends;
mod capture;
mod certificates;
mod check;
mod doctor;
mod drops;
mod enrol_token;
mod explain;
mod factors;
mod hash_password;
mod lists;
mod pages;
mod run;
mod samples;
mod sealing_keys;
mod status;
mod stop;
mod tail;
mod threat;
mod top;
mod trace;
mod unblock;
mod unload;
mod upgrade;

use clap::{Parser, Subcommand};

use crate::failure::{self, Failure};
use crate::instance::Instance;

/// Edge load balancer: XDP in the kernel, TLS and step-up authentication in front of your backends.
#[derive(Debug, Parser)]
#[command(name = "lb-controller", version, max_term_width = 110, after_help = failure::EXIT_CODES)]
pub struct Cli {
    /// Which edge on this host: names its pins (/sys/fs/bpf/NAME) and its runtime folder (/run/NAME).
    #[arg(long, global = true, default_value = "lb", env = "LB_INSTANCE", value_name = "NAME")]
    instance: Instance,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge in the foreground: attach XDP, serve, check health, follow the configuration file.
    Run(run::Arguments),
    /// Check a configuration file; print every error with its place.
    Check(check::Arguments),
    /// Say whether this kernel and these interfaces can run the data plane, what is lacking, and what mends it.
    Doctor(doctor::Arguments),
    /// Show services, limits, drops and workers; reads the pinned maps when the controller is down.
    Status(status::Arguments),
    /// Show what happens now, by the second: services, backends, drops by reason, CPUs.
    Top(top::Arguments),
    /// Show a sample of the packets that XDP drops, and follow it.
    Drops(drops::Arguments),
    /// Show requests as they end, filtered by route, status, decision, client …
    Tail(tail::Arguments),
    /// Say what would become of a packet, step by step, without a trace in counters and limits.
    Trace(trace::Arguments),
    /// Write sampled packets to a capture file for tcpdump and Wireshark.
    Capture(capture::Arguments),
    /// List backends: what L7 chooses from and what the eBPF maps hold.
    Backends(backends::Arguments),
    /// List the certificates that are served: names, issuer, kind of key, from when until when, and where they come from.
    Certificates(certificates::Arguments),
    /// Show the deny and allow lists, and which prefix of which file decides about an address.
    Lists(lists::Arguments),
    /// Say which rule a request meets, on which facts, what is required and what was had.
    Explain(explain::Arguments),
    /// Check that an audit trail is whole: nothing taken out, changed or put in.
    Audit(audit::Arguments),
    /// Make, list, rotate and revoke the API keys of programs.
    ApiKeys(api_keys::Arguments),
    /// List and replace the keys that cookies are sealed with, or end everything that one of them sealed.
    SealingKeys(sealing_keys::Arguments),
    /// List the factors that a user enrolled, or remove one.
    Factors(factors::Arguments),
    /// Give a user a token to add a first factor with: a password alone adds none.
    EnrolToken(enrol_token::Arguments),
    /// Put this program in the place of the running controller, with its arguments and without losing a connection.
    Upgrade(upgrade::Arguments),
    /// Stop a running controller gracefully; XDP stays attached.
    Stop(stop::Arguments),
    /// Show or set how threatened the service is, for rules that go by it.
    Threat(threat::Arguments),
    /// Lift the XDP block of a source before its time is over.
    Unblock(unblock::Arguments),
    /// Detach XDP and remove every pin and route of this instance.
    Unload(unload::Arguments),
    /// Write every page that people may see, in every language, to a folder to look at.
    Pages(pages::Arguments),
    /// Read a password and print its Argon2id hash for the `users` section.
    HashPassword(hash_password::Arguments),
}

impl Cli {
    /// Runs the command; a failure carries its exit code.
    pub fn run(self) -> Result<(), Failure> {
        let instance = &self.instance;
        match self.command {
            Command::Run(arguments) => run::run(instance, arguments),
            Command::Check(arguments) => check::run(arguments),
            Command::Doctor(arguments) => doctor::run(instance, arguments),
            Command::Status(arguments) => status::run(instance, arguments),
            Command::Top(arguments) => top::run(instance, arguments),
            Command::Drops(arguments) => drops::run(instance, arguments),
            Command::Tail(arguments) => tail::run(instance, arguments),
            Command::Trace(arguments) => trace::run(instance, arguments),
            Command::Capture(arguments) => capture::run(instance, arguments),
            Command::Backends(arguments) => backends::run(instance, arguments),
            Command::Certificates(arguments) => certificates::run(instance, arguments),
            Command::Lists(arguments) => lists::run(instance, arguments),
            Command::Explain(arguments) => explain::run(instance, arguments),
            Command::Audit(arguments) => audit::run(arguments),
            Command::ApiKeys(arguments) => api_keys::run(instance, arguments),
            Command::SealingKeys(arguments) => sealing_keys::run(instance, arguments),
            Command::Factors(arguments) => factors::run(instance, arguments),
            Command::EnrolToken(arguments) => enrol_token::run(instance, arguments),
            Command::Upgrade(arguments) => upgrade::run(instance, arguments),
            Command::Stop(arguments) => stop::run(instance, arguments),
            Command::Threat(arguments) => threat::run(instance, arguments),
            Command::Unblock(arguments) => unblock::run(instance, arguments),
            Command::Unload(arguments) => unload::run(instance, arguments),
            Command::Pages(arguments) => pages::run(arguments),
            Command::HashPassword(arguments) => hash_password::run(arguments),
        }
    }
}
