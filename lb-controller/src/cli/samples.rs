//! What `drops` and `capture` have in common: where samples come from, and which of them are wanted.

use std::net::IpAddr;

use ipnet::IpNet;
use lb_datapath::{Reader, Reason, SampleReader};

use crate::admin::client::{self, AskError};
use crate::datapath_report::samples;
use crate::failure::{ExitKind, Failure};
use crate::instance::Instance;
use crate::report::{PacketSample, Samples};

#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// Only packets that ended for this reason, as `status` names it: blocked, source_limit, …
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// Only packets from this address or network.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    source: Option<IpNet>,
    /// Only packets to this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Packets that were let in too, if the configuration has them sampled (`samples: {let_in_one_in: …}`).
    #[arg(long)]
    all: bool,
}

impl Wanted {
    pub(super) fn has(&self, sample: &PacketSample) -> bool {
        let is_of_reason = self.reason.is_none_or(|reason| sample.reason == reason.metric_name());
        let is_from = self.source.is_none_or(|network| sample.source.is_some_and(|source| network.contains(&source)));
        let is_to = self.service.is_none() || sample.service == self.service;
        // Whoever names a reason means its packets, dropped or not.
        let is_verdict = self.all || self.reason.is_some() || sample.verdict == "drop";
        is_of_reason && is_from && is_to && is_verdict
    }
}

fn reason(name: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.iter().map(|reason| reason.metric_name());
    let found = Reason::ALL.iter().copied().find(|reason| reason.metric_name() == name);
    found.ok_or_else(|| format!("there is no reason {name:?}; there are: {}", known().collect::<Vec<_>>().join(", ")))
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse().ok().or_else(address).ok_or_else(|| format!("{text:?} is neither an address nor a network"))
}

/// Samples as they come: from the controller, or from the ring itself while none runs.
pub(super) enum Tap {
    Controller { instance: Instance, next: u64 },
    Pins { ring: Box<SampleReader>, reader: Box<Reader>, next: u64 },
}

impl Tap {
    pub(super) fn open(instance: &Instance) -> Result<Tap, Failure> {
        match client::get::<Samples>(instance, &format!("/v1/samples?from={}", u64::MAX)) {
            Ok(_) => Ok(Tap::Controller { instance: instance.clone(), next: 0 }),
            Err(AskError::NotRunning { .. }) => {
                let (ring, reader) = samples::of_pins(instance)?;
                Ok(Tap::Pins { ring: Box::new(ring), reader: Box::new(reader), next: 0 })
            }
            Err(error) => Err(Failure::new(ExitKind::Other, error)),
        }
    }

    /// What came since the last call, or at the first one all that is remembered.
    pub(super) fn read(&mut self) -> Result<Samples, Failure> {
        match self {
            Tap::Controller { instance, next } => {
                let mut all = excerpt(instance, *next)?;
                let mut from = all.next;
                // An excerpt is bounded; go on until one brings nothing new.
                loop {
                    let more = excerpt(instance, from)?;
                    from = more.next;
                    let is_last = more.samples.is_empty();
                    all.samples.extend(more.samples);
                    all.missed += more.missed;
                    (all.next, all.account) = (more.next, more.account);
                    if is_last {
                        break;
                    }
                }
                *next = all.next;
                Ok(all)
            }
            Tap::Pins { ring, reader, next } => {
                let read = ring.read();
                let numbered = (*next..).zip(&read).map(|(number, sample)| samples::sample(number, sample)).collect();
                *next += read.len() as u64;
                Ok(Samples { samples: numbered, next: *next, missed: 0, account: samples::account(reader)? })
            }
        }
    }
}

fn excerpt(instance: &Instance, from: u64) -> Result<Samples, Failure> {
    client::get(instance, &format!("/v1/samples?from={from}")).map_err(|error| {
        let kind = if matches!(error, AskError::NotRunning { .. }) { ExitKind::NotRunning } else { ExitKind::Other };
        Failure::new(kind, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(reason: &str, verdict: &str, source: Option<&str>) -> PacketSample {
        PacketSample {
            number: 0,
            at: String::new(),
            at_unix_ns: 0,
            reason: reason.to_owned(),
            verdict: verdict.to_owned(),
            service: Some("shop".to_owned()),
            interface: "eth1".to_owned(),
            queue: 0,
            cpu: 0,
            source: source.map(|source| source.parse().expect("an address")),
            source_port: None,
            destination: None,
            destination_port: None,
            protocol: None,
            frame_bytes: 60,
            captured: String::new(),
        }
    }

    fn wanted(arguments: [Option<&str>; 3], all: bool) -> Wanted {
        let [of_reason, source, service] = arguments;
        Wanted {
            reason: of_reason.map(|name| reason(name).expect("known")),
            source: source.map(|text| network(text).expect("a network")),
            service: service.map(str::to_owned),
            all,
        }
    }

    #[test]
    fn what_is_asked_for_is_shown_and_nothing_else() {
        let blocked = sample("blocked", "drop", Some("192.0.2.7"));
        let admitted = sample("admitted", "pass", Some("2001:db8::1"));
        let no_ip = sample("blocked", "drop", None);
        for (arguments, all, shown) in [
            ([None, None, None], false, [true, false, true]),
            ([None, None, None], true, [true, true, true]),
            ([Some("admitted"), None, None], false, [false, true, false]),
            ([None, Some("192.0.2.0/24"), None], true, [true, false, false]),
            ([None, Some("2001:db8::1"), None], true, [false, true, false]),
            ([None, None, Some("dns")], true, [false, false, false]),
        ] {
            let wanted = wanted(arguments, all);
            assert_eq!([&blocked, &admitted, &no_ip].map(|sample| wanted.has(sample)), shown, "{arguments:?} {all}");
        }
    }

    #[test]
    fn a_reason_that_does_not_exist_is_refused_with_those_that_do() {
        let refusal = reason("bloked").expect_err("unknown");
        assert!(refusal.contains("bloked") && refusal.contains("blocked, "), "{refusal}");
        assert!(network("192.0.2.0/33").is_err());
    }
}
