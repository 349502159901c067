//! How the access log is to be, in one word: a request takes all of it with one load, and keeps it to its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{AccessFormat, AccessLogConfig, AlwaysLogged, LogDestination};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Format {
    /// Not at all.
    Off,
    /// As log lines are, for people who watch.
    Text,
    Json,
    Common,
    Combined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) format: Format,
    /// Only where the log's level has them.
    pub(super) by_level: bool,
    pub(super) always: AlwaysLogged,
    pub(super) one_in: u32,
    pub(super) slow: Duration,
}

impl Terms {
    /// Without a section in the configuration: each request, among the log's own lines and in their `format`.
    pub(super) fn beside_log(format: Format) -> Terms {
        Terms { format, by_level: true, ..Terms::of(&AccessLogConfig::default(), format) }
    }

    /// `beside_log`: how log lines are written.
    pub(super) fn of(config: &AccessLogConfig, beside_log: Format) -> Terms {
        let format = match (&config.destination, config.format) {
            (LogDestination::Off, _) => Format::Off,
            (_, Some(AccessFormat::Json)) | (LogDestination::File(_), None) => Format::Json,
            (_, Some(AccessFormat::Common)) => Format::Common,
            (_, Some(AccessFormat::Combined)) => Format::Combined,
            (LogDestination::StandardError, None) => beside_log,
        };
        Terms { format, by_level: false, always: config.always, one_in: config.one_in, slow: config.slow }
    }
}

/// The terms in force.
#[derive(Debug)]
pub(super) struct InForce(AtomicU64);

impl InForce {
    pub(super) fn new(terms: Terms) -> InForce {
        InForce(AtomicU64::new(pack(terms)))
    }

    pub(super) fn get(&self) -> Terms {
        unpack(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, terms: Terms) {
        self.0.store(pack(terms), Ordering::Relaxed);
    }
}

// From below: 3 bits of format, 4 flags, 25 bits of `one_in`, 32 bits of milliseconds.
const FLAGS_AT: u32 = 3;
const ONE_IN_AT: u32 = 7;
const ONE_IN_BITS: u32 = 25;
const SLOW_AT: u32 = 32;

fn pack(terms: Terms) -> u64 {
    let Terms { format, by_level, always, one_in, slow } = terms;
    let flags = [by_level, always.errors, always.denials, always.slow];
    let flags = flags.iter().enumerate().fold(0, |bits, (at, flag)| bits | u64::from(*flag) << at);
    let one_in = u64::from(one_in).min((1 << ONE_IN_BITS) - 1);
    let slow_ms = u32::try_from(slow.as_millis()).unwrap_or(u32::MAX);
    format as u64 | flags << FLAGS_AT | one_in << ONE_IN_AT | u64::from(slow_ms) << SLOW_AT
}

fn unpack(bits: u64) -> Terms {
    let flag = |at: u32| bits >> (FLAGS_AT + at) & 1 == 1;
    Terms {
        format: match bits & 0b111 {
            1 => Format::Text,
            2 => Format::Json,
            3 => Format::Common,
            4 => Format::Combined,
            _ => Format::Off,
        },
        by_level: flag(0),
        always: AlwaysLogged { errors: flag(1), denials: flag(2), slow: flag(3) },
        one_in: (bits >> ONE_IN_AT) as u32 & ((1 << ONE_IN_BITS) - 1),
        slow: Duration::from_millis(bits >> SLOW_AT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_come_out_of_the_word_as_they_went_in() {
        for format in [Format::Off, Format::Text, Format::Json, Format::Common, Format::Combined] {
            for flags in 0..16_u8 {
                let flag = |at: u8| flags >> at & 1 == 1;
                for (one_in, slow_ms) in [(1, 1), (10, 1_000), (1_000_000, 86_400_000)] {
                    let always = AlwaysLogged { errors: flag(0), denials: flag(1), slow: flag(2) };
                    let slow = Duration::from_millis(slow_ms);
                    let terms = Terms { format, by_level: flag(3), always, one_in, slow };
                    assert_eq!(unpack(pack(terms)), terms);
                }
            }
        }
    }
}
