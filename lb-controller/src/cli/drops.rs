//! `lb-controller drops`: a sample of the packets that XDP drops, as they come.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::output::{Paint, paint, print_json};
use super::samples::{Tap, Wanted};
use crate::failure::Failure;
use crate::instance::Instance;
use crate::report::{PacketSample, SampleAccount, Samples};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Go on with what is sampled from now on, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Of what is remembered show so many, the latest.
    #[arg(long, default_value_t = 50, value_name = "N")]
    last: usize,
    /// Print JSON; with --follow, one object a line.
    #[arg(long)]
    json: bool,
}

const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let mut tap = Tap::open(instance)?;
    let mut seen = tap.read()?;
    seen.samples.retain(|sample| arguments.wanted.has(sample));
    seen.samples.drain(..seen.samples.len().saturating_sub(arguments.last));
    if arguments.json && !arguments.follow {
        print_json(&seen)?;
        return Ok(());
    }
    show(&seen, arguments.json)?;
    if !arguments.follow {
        say!("{}", account(&seen.account));
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK_EVERY);
        let mut new = tap.read()?;
        new.samples.retain(|sample| arguments.wanted.has(sample));
        show(&new, arguments.json)?;
    }
}

fn show(samples: &Samples, json: bool) -> anyhow::Result<()> {
    if samples.missed > 0 && !json {
        say!("({} samples were forgotten before they could be shown)", samples.missed);
    }
    for sample in &samples.samples {
        if json {
            say!("{}", serde_json::to_string(sample)?);
        } else {
            say!("{}", line(sample));
        }
    }
    Ok(())
}

/// `2026-01-02T03:04:05.6Z blocked  192.0.2.1:40000 > 198.51.100.10:443 tcp, 54 bytes on eth1 to shop`
fn line(sample: &PacketSample) -> String {
    let colour = if sample.verdict == "drop" { Paint::Bad } else { Paint::Good };
    let reason = paint(colour, &sample.reason);
    let ends = match (sample.source, sample.destination) {
        (Some(source), Some(destination)) => {
            format!("{} > {}", end(source, sample.source_port), end(destination, sample.destination_port))
        }
        _ => "not IP".to_owned(),
    };
    let protocol = sample.protocol.map(|number| format!(" {}", protocol(number))).unwrap_or_default();
    let service = sample.service.as_ref().map(|name| format!(" to {name}")).unwrap_or_default();
    format!("{} {reason}  {ends}{protocol}, {} bytes on {}{service}", sample.at, sample.frame_bytes, sample.interface)
}

fn end(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn account(account: &SampleAccount) -> String {
    let of = |what: &str, one: &crate::report::Sampled| {
        format!("{} {what}: {} sampled, {} lost, {} passed by", one.seen, one.written, one.lost, one.not_chosen)
    };
    let mut text = of("dropped", &account.dropped);
    if account.let_in.written > 0 {
        text = format!("{text}; {}", of("let in", &account.let_in));
    }
    text
}
