//! Sampled packets in the words of the reports.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use lb_datapath::{Reader, Sample, SampleCounters, SampleReader, Verdict};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pinned;
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{PacketSample, SampleAccount, Sampled};

/// The ring of a data plane that goes on without its controller, and what else its maps tell.
pub fn of_pins(instance: &Instance) -> Result<(SampleReader, Reader), Failure> {
    let Some(reader) = pinned(instance)? else {
        let why = anyhow::anyhow!("no controller runs and nothing is attached for instance {instance}");
        return Err(Failure::new(ExitKind::NotRunning, why));
    };
    let samples = reader.open_samples().map_err(|error| Failure::new(ExitKind::Permission, error))?;
    Ok((samples, reader))
}

pub fn account(reader: &Reader) -> anyhow::Result<SampleAccount> {
    Ok(account_of(&reader.stats()?.samples))
}

pub(super) fn account_of(counters: &SampleCounters) -> SampleAccount {
    let sampled = |sampled: &lb_datapath::Sampled| Sampled {
        seen: sampled.seen,
        written: sampled.written,
        lost: sampled.lost,
        not_chosen: sampled.not_chosen(),
    };
    SampleAccount { dropped: sampled(&counters.drops), let_in: sampled(&counters.let_in) }
}

pub fn sample(number: u64, sample: &Sample) -> PacketSample {
    PacketSample {
        number,
        at: OffsetDateTime::from(sample.at).format(&Rfc3339).unwrap_or_default(),
        at_unix_ns: sample.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
        reason: sample.reason.metric_name().to_owned(),
        verdict: verdict_name(sample.verdict).to_owned(),
        service: sample.service.clone(),
        interface: sample.interface.clone(),
        queue: sample.queue,
        cpu: sample.cpu,
        source: sample.source,
        source_port: sample.ports.map(|(source, _)| source),
        destination: sample.destination,
        destination_port: sample.ports.map(|(_, destination)| destination),
        protocol: sample.protocol,
        frame_bytes: sample.frame_bytes,
        captured: hex(&sample.captured),
    }
}

pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Drop => "drop",
        Verdict::Pass => "pass",
        Verdict::Transmit => "transmit",
        Verdict::Redirect => "redirect",
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
