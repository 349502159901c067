//! `lb-controller trace`: what would become of a packet, step by step.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use lb_datapath::{LoadErrorKind, OpenError, TraceError, Tracer};

use super::capture::bytes;
use super::output::{Paint, paint, print_json, table};
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::pcap::read_frames;
use crate::report::{Trace, TracedPacket};
use crate::trace::{Described, Flags, frame, tell};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("packet").required(true))]
pub(super) struct Arguments {
    /// Make up a packet from this client; needs --to.
    #[arg(long, group = "packet", requires = "to", value_name = "ADDRESS:PORT")]
    from: Option<SocketAddr>,
    /// An Ethernet frame in hexadecimal digits; spaces and colons do not count.
    #[arg(long, group = "packet", value_name = "DIGITS", value_parser = digits)]
    hex: Option<Frame>,
    /// The Ethernet frames of a pcap or pcapng file, at most 1000, one after the other.
    #[arg(long, group = "packet", value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Where the packet made up goes: a VIP, IPv6 as [2001:db8::1]:443.
    #[arg(long, requires = "from", value_name = "ADDRESS:PORT")]
    to: Option<SocketAddr>,
    /// UDP; without it and without TCP flags the packet is a TCP SYN.
    #[arg(long, requires = "from", conflicts_with_all = ["tcp_syn", "tcp_ack", "tcp_fin", "tcp_rst"])]
    udp: bool,
    #[arg(long, requires = "from")]
    tcp_syn: bool,
    #[arg(long, requires = "from")]
    tcp_ack: bool,
    #[arg(long, requires = "from")]
    tcp_fin: bool,
    #[arg(long, requires = "from")]
    tcp_rst: bool,
    /// Bytes of data, all zero.
    #[arg(long, requires = "from", default_value_t = 0, value_name = "BYTES")]
    payload: usize,
    /// How often the packet comes, one after the other.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Where it comes in; default: the first interface that XDP is attached to.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Whose flows to look at, each CPU having its own; default: the one that the command runs on.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const MOST_PACKETS: usize = 1000;
const LARGEST_CAPTURE_BYTES: u64 = 16 << 20;
/// What the kernel's runner takes: an Ethernet header at least, and what fits its buffers.
const FRAME_BYTES: std::ops::RangeInclusive<usize> = 14..=65_549;

#[derive(Clone, Debug)]
struct Frame(Vec<u8>);

fn digits(text: &str) -> Result<Frame, String> {
    let digits: String = text.chars().filter(|letter| !letter.is_whitespace() && *letter != ':').collect();
    bytes(&digits).map(Frame).ok_or_else(|| "this is not an even number of hexadecimal digits".to_owned())
}

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let frames = frames(&arguments)?;
    let mut tracer = Tracer::open(&instance.pin_root(), arguments.cpu).map_err(failed)?;
    let interface = arguments.interface.clone().or_else(|| tracer.interfaces().into_iter().next());
    let mut trace = Trace { interface, cpu: tracer.cpu(), packets: Vec::new() };
    for frame in frames.iter().flat_map(|frame| std::iter::repeat_n(frame, arguments.times as usize)) {
        let traced = tracer.trace(frame, trace.interface.as_deref()).map_err(failed)?;
        let told = tell(frame, &traced);
        if !arguments.json {
            show(trace.packets.len(), &told);
        }
        trace.packets.push(told);
    }
    if arguments.json {
        print_json(&trace)?;
    }
    Ok(())
}

fn frames(arguments: &Arguments) -> anyhow::Result<Vec<Vec<u8>>> {
    let frames = match (&arguments.from, &arguments.hex, &arguments.pcap) {
        (Some(from), ..) => vec![made_up(arguments, *from)?],
        (_, Some(Frame(frame)), _) => vec![frame.clone()],
        (_, _, Some(file)) => captured(file)?,
        _ => Vec::new(),
    };
    for (number, frame) in frames.iter().enumerate() {
        ensure!(
            FRAME_BYTES.contains(&frame.len()),
            "packet {} has {} bytes; the kernel runs packets of {} to {}",
            number + 1,
            frame.len(),
            FRAME_BYTES.start(),
            FRAME_BYTES.end()
        );
    }
    Ok(frames)
}

fn made_up(arguments: &Arguments, from: SocketAddr) -> anyhow::Result<Vec<u8>> {
    let to = arguments.to.context("--from needs --to")?;
    let Arguments { tcp_syn: syn, tcp_ack: ack, tcp_fin: fin, tcp_rst: rst, .. } = *arguments;
    let flags = Flags { syn, ack, fin, rst };
    let flags = if flags == Flags::default() { Flags { syn: true, ..flags } } else { flags };
    let described = Described { from, to, tcp: (!arguments.udp).then_some(flags), payload_bytes: arguments.payload };
    frame(&described).with_context(|| format!("{from} and {to} are of two families, or the payload is too long"))
}

fn captured(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let unreadable = || format!("cannot read {}", file.display());
    let bytes = std::fs::metadata(file).with_context(unreadable)?.len();
    ensure!(
        bytes <= LARGEST_CAPTURE_BYTES,
        "{} has {bytes} bytes; at most {LARGEST_CAPTURE_BYTES} are read: cut it with `tcpdump -r … -c … -w …`",
        file.display()
    );
    let capture = std::fs::read(file).with_context(unreadable)?;
    let frames = read_frames(&capture, MOST_PACKETS).with_context(unreadable)?;
    Ok(frames.into_iter().map(<[u8]>::to_vec).collect())
}

fn failed(error: TraceError) -> Failure {
    let kind = match &error {
        TraceError::Open(OpenError::NothingLoaded { .. }) => ExitKind::NotRunning,
        TraceError::Open(OpenError::Denied { .. }) => ExitKind::Permission,
        TraceError::Load(error) if error.kind() == LoadErrorKind::Capability => ExitKind::Permission,
        TraceError::Load(error) if error.kind() == LoadErrorKind::Interface => ExitKind::Interface,
        TraceError::Elsewhere { .. } => ExitKind::Interface,
        _ => ExitKind::Kernel,
    };
    Failure::new(kind, anyhow!(error))
}

fn show(number: usize, packet: &TracedPacket) {
    if number > 0 {
        say!("");
    }
    say!("{}", paint(Paint::Bold, &packet.summary));
    let mut rows = table(&["step", "outcome", ""]);
    for step in &packet.steps {
        let outcome = match step.outcome.as_str() {
            "stopped" => paint(Paint::Bad, &step.outcome),
            "passed" => paint(Paint::Good, &step.outcome),
            _ => step.outcome.clone(),
        };
        rows.add_row([step.step.clone(), outcome, step.detail.clone()]);
    }
    for line in rows.lines() {
        say!(" {}", line.trim_end());
    }
    say!("{}: {} ({})", paint(Paint::Bold, &packet.verdict), packet.reason, packet.reason_text);
    if packet.frame != packet.frame_out {
        say!("as sent: {}", packet.frame_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_as_tcpdump_and_wireshark_print_it() {
        for (text, expected) in [
            ("0800", Some(vec![8, 0])),
            ("08:00:45", Some(vec![8, 0, 0x45])),
            ("0800 4500\n0028", Some(vec![8, 0, 0x45, 0, 0, 0x28])),
            ("080", None),
            ("xx", None),
        ] {
            assert_eq!(digits(text).ok().map(|frame| frame.0), expected, "{text:?}");
        }
    }
}
