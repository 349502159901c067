//! Reading the ring of sampled packets, and finding out whose each packet was.

pub(crate) mod places;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use aya::maps::{MapData, RingBuf};
use lb_common::sample::{Captured, Ends, ends};
use lb_common::types::PacketSample;
use lb_common::{Reason, Verdict};
use nix::time::{ClockId, clock_gettime};
use zerocopy::FromBytes;

use crate::interface;
use crate::reader::Reader;
use places::Places;

/// Samples of one look at the ring, at most: the ring holds no more at once.
const MOST_AT_ONCE: usize = 8192;

/// Which places belong to which service is looked up again after this.
const PLACES_HOLD: Duration = Duration::from_secs(1);

/// One packet as it was when XDP was done with it: of a forwarded one the outer headers come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: SystemTime,
    pub reason: Reason,
    /// What was done with it.
    pub verdict: Verdict,
    /// Where it came in; `#7` of an interface that is gone.
    pub interface: String,
    pub queue: u32,
    pub cpu: u32,
    /// Of the whole frame.
    pub frame_bytes: u32,
    /// The frame's first bytes.
    pub captured: Vec<u8>,
    /// `None` of what is not IP.
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Of source and destination.
    pub ports: Option<(u16, u16)>,
    /// By destination, port and protocol, as the services are now.
    pub service: Option<String>,
}

/// The one reader of the ring.
pub struct SampleReader {
    ring: RingBuf<MapData>,
    reader: Reader,
    places: Places,
    places_read: Option<Instant>,
    interfaces: BTreeMap<u32, String>,
}

impl SampleReader {
    pub(crate) fn new(ring: RingBuf<MapData>, reader: Reader) -> Self {
        Self { ring, reader, places: Places::default(), places_read: None, interfaces: BTreeMap::new() }
    }

    /// What has been written since the last look.
    pub fn read(&mut self) -> Vec<Sample> {
        let mut records = Vec::new();
        while records.len() < MOST_AT_ONCE {
            let Some(item) = self.ring.next() else { break };
            // Of another length only if another version wrote it.
            records.extend(PacketSample::read_from_bytes(&item).ok());
        }
        if records.is_empty() {
            return Vec::new();
        }
        self.look_up_places();
        let boot = boot();
        records.iter().filter_map(|record| self.sample(record, boot)).collect()
    }

    fn look_up_places(&mut self) {
        if self.places_read.is_some_and(|read| read.elapsed() < PLACES_HOLD) {
            return;
        }
        // Samples without their service's name are better than none.
        if let Ok(services) = self.reader.services() {
            self.places = Places::of(&services);
        }
        self.places_read = Some(Instant::now());
        // A number may be another interface's by now.
        self.interfaces.clear();
    }

    fn sample(&mut self, record: &PacketSample, boot: SystemTime) -> Option<Sample> {
        let reason = Reason::of_number(record.reason.into())?;
        let captured = record.captured();
        let ends = ends(&Captured { bytes: captured, frame_bytes: record.frame_bytes as usize });
        let interface =
            self.interfaces.entry(record.interface).or_insert_with(|| interface::name_of(record.interface)).clone();
        Some(Sample {
            at: boot + Duration::from_nanos(record.monotonic_ns),
            reason,
            verdict: verdict(record.action)?,
            interface,
            queue: record.queue,
            cpu: record.cpu,
            frame_bytes: record.frame_bytes,
            captured: captured.to_vec(),
            source: ends.map(|ends| ends.source.into()),
            destination: ends.map(|ends| ends.destination.into()),
            protocol: ends.and_then(|ends| ends.protocol),
            ports: ends.and_then(|ends| ends.ports),
            service: ends.and_then(|ends| self.service(&ends)),
        })
    }

    fn service(&self, ends: &Ends) -> Option<String> {
        let (_, port) = ends.ports?;
        self.places.service(ends.destination.into(), port, ends.protocol?).map(str::to_owned)
    }
}

/// `None` of a number that no XDP program returns.
pub(crate) fn verdict(action: u32) -> Option<Verdict> {
    match action {
        1 => Some(Verdict::Drop),
        2 => Some(Verdict::Pass),
        3 => Some(Verdict::Transmit),
        4 => Some(Verdict::Redirect),
        _ => None,
    }
}

/// When `CLOCK_MONOTONIC` was 0, by the time of day as it is now.
fn boot() -> SystemTime {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    SystemTime::now().checked_sub(monotonic).unwrap_or(SystemTime::UNIX_EPOCH)
}
