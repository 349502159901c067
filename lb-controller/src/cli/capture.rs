//! `lb-controller capture`: sampled packets in a file for tcpdump and Wireshark.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::samples::{Tap, Wanted};
use crate::failure::Failure;
use crate::instance::Instance;
use crate::pcap::{CaptureWriter, Format, Packet};
use crate::report::PacketSample;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A name that ends in .pcap gets the old format, without interfaces and reasons; any other pcapng.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    /// End after so many seconds; default: when interrupted, or after --count.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// End after so many packets.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Begin with what is remembered.
    #[arg(long)]
    recent: bool,
}

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(instance: &Instance, arguments: Arguments) -> Result<(), Failure> {
    let mut tap = Tap::open(instance)?;
    let mut capture = Capture::create(&arguments)?;
    let deadline = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = tap.read()?;
    if arguments.recent {
        capture.take(&first.samples)?;
    }
    while !capture.is_full() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        std::thread::sleep(LOOK_EVERY);
        let new = tap.read()?;
        capture.missed += new.missed;
        capture.take(&new.samples)?;
    }
    let missed = if capture.missed > 0 { format!("; {} were missed", capture.missed) } else { String::new() };
    say!("{} packets written to {}{missed}", capture.written, arguments.output.display());
    Ok(())
}

struct Capture<'a> {
    arguments: &'a Arguments,
    writer: CaptureWriter<File>,
    written: u64,
    missed: u64,
}

impl<'a> Capture<'a> {
    fn create(arguments: &'a Arguments) -> anyhow::Result<Capture<'a>> {
        let path = &arguments.output;
        let failed = || format!("cannot write {}", path.display());
        // Other people's traffic: for the owner's eyes.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let writer = CaptureWriter::start(file.with_context(failed)?, format_of(path)).with_context(failed)?;
        Ok(Capture { arguments, writer, written: 0, missed: 0 })
    }

    fn is_full(&self) -> bool {
        self.arguments.count.is_some_and(|count| self.written >= count)
    }

    fn take(&mut self, samples: &[PacketSample]) -> anyhow::Result<()> {
        for sample in samples.iter().filter(|sample| self.arguments.wanted.has(sample)) {
            if self.is_full() {
                return Ok(());
            }
            let captured = bytes(&sample.captured).context("the controller's answer was not understood")?;
            let packet = Packet {
                at_unix_ns: sample.at_unix_ns,
                interface: &sample.interface,
                frame_bytes: sample.frame_bytes,
                captured: &captured,
                comment: &comment(sample),
            };
            let failed = || format!("cannot write {}", self.arguments.output.display());
            self.writer.write(&packet).with_context(failed)?;
            self.written += 1;
        }
        Ok(())
    }
}

fn format_of(path: &Path) -> Format {
    if path.extension().is_some_and(|ending| ending == "pcap") { Format::Pcap } else { Format::PcapNg }
}

/// `drop blocked, to shop, cpu 0`.
fn comment(sample: &PacketSample) -> String {
    let service = sample.service.as_ref().map(|name| format!(", to {name}")).unwrap_or_default();
    format!("{} {}{service}, cpu {}", sample.verdict, sample.reason, sample.cpu)
}

/// Of hexadecimal digits.
pub(super) fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        digits.bytes().map(|digit| char::from(digit).to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_they_are_written_and_nothing_else_is() {
        for (digits, expected) in [("", Some(vec![])), ("00fFa5", Some(vec![0, 255, 165])), ("0", None), ("0g", None)] {
            assert_eq!(bytes(digits), expected, "{digits:?}");
        }
    }

    #[test]
    fn the_name_of_the_file_says_its_format() {
        for (name, format) in [("a.pcap", Format::Pcap), ("a.pcapng", Format::PcapNg), ("pcap", Format::PcapNg)] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }
}
