//! What may be sent: defaults for all services, what a service says itself, and the limit of new flows.

use lb_datapath::{Limits, Rate, Rates};

use super::super::section::{Complaint, Problems, Section};
use super::super::tree::Node;
use super::super::values;

/// Beyond this a packet would be admitted every few nanoseconds: no limit at all.
pub(super) const MOST_PACKETS_PER_SECOND: u32 = 100_000_000;
const MOST_BYTES_PER_SECOND: u64 = 100 << 30;
/// Below this the largest packet would be over the limit for more than a minute.
const FEWEST_BYTES_PER_SECOND: u64 = 1024;
const LONGEST_BURST: u32 = u32::MAX;

/// Packets per second of one verified source where no source has a limit: a busy browser's, many times over.
const VERIFIED_SOURCE_DEFAULT: u64 = 1000;

/// What a section says; what it leaves out others may say.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    source: GivenRates,
    network: GivenRates,
    service: GivenRates,
    verified: Option<Rate>,
}

#[derive(Clone, Copy, Default)]
struct GivenRates {
    packets: Option<Rate>,
    syns: Option<Rate>,
    bytes: Option<Rate>,
}

/// The top-level section: defaults for services, and new flows to all of them.
pub(super) fn defaults(config: &Section<'_>) -> (Given, Rate) {
    let Some(node) = config.get("limits") else { return Default::default() };
    let Some(section) = Section::open("`limits`", node, config.problems) else { return Default::default() };
    let given = given(&section);
    let new_flows = packets(&section, "new_flows_per_second", "burst_new_flows", tenth);
    section.finish();
    (given, new_flows.unwrap_or_default())
}

/// A service's own section, over the defaults.
pub(super) fn of_service(node: Option<&Node>, defaults: &Given, problems: &Problems) -> Option<Limits> {
    let own = match node {
        None => Given::default(),
        Some(node) => {
            let section = Section::open("`limits`", node, problems)?;
            let mut own = given(&section);
            own.source.packets = short(&section, "per_source", "source", own.source.packets, 0);
            own.service.packets = short(&section, "per_service", "service", own.service.packets, 0);
            own.verified = short(&section, "per_verified_source", "verified", own.verified, 1);
            section.finish();
            own
        }
    };
    let source = own.source.over(&defaults.source);
    let of_verified = match source.packets.per_second {
        0 => tenth(VERIFIED_SOURCE_DEFAULT),
        per_second => tenth(per_second),
    };
    Some(Limits {
        source,
        network: own.network.over(&defaults.network),
        service: own.service.over(&defaults.service),
        // Never unlimited: whoever forges a verified source's address must gain little.
        verified: own.verified.or(defaults.verified).unwrap_or(of_verified),
    })
}

fn given(section: &Section<'_>) -> Given {
    Given {
        source: rates(section, "source", "`source`"),
        network: rates(section, "network", "`network`"),
        service: rates(section, "service", "`service`"),
        verified: verified(section),
    }
}

fn rates(section: &Section<'_>, name: &'static str, what: &'static str) -> GivenRates {
    let Some(node) = section.get(name) else { return GivenRates::default() };
    let Some(section) = Section::open(what, node, section.problems) else { return GivenRates::default() };
    let given = GivenRates {
        packets: packets(&section, "packets_per_second", "burst_packets", tenth),
        // A second's worth: a page opens its connections at once and then none for long.
        syns: packets(&section, "syns_per_second", "burst_syns", |per_second| Rate { per_second, burst: per_second }),
        bytes: rate(&section, "bytes_per_second", "burst_bytes", bytes_per_second, values::size_bytes, tenth),
    };
    section.finish();
    given
}

fn verified(section: &Section<'_>) -> Option<Rate> {
    let section = Section::open("`verified`", section.get("verified")?, section.problems)?;
    let least_one = |text: &str| values::number(1..=MOST_PACKETS_PER_SECOND)(text).map(u64::from);
    let given = rate(&section, "packets_per_second", "burst_packets", least_one, burst, tenth);
    section.finish();
    given
}

/// The short form of a limit of packets, which must not be given in both forms.
fn short(
    section: &Section<'_>,
    name: &'static str,
    long: &'static str,
    given: Option<Rate>,
    least: u32,
) -> Option<Rate> {
    let per_second = section.value(name, |text| match given {
        None => values::number(least..=MOST_PACKETS_PER_SECOND)(text),
        Some(_) => Err(format!("`{long}` has `packets_per_second`, which is the same").into()),
    });
    per_second.map(|per_second| tenth(per_second.into())).or(given)
}

fn packets(
    section: &Section<'_>,
    name: &'static str,
    burst_name: &'static str,
    whole: impl FnOnce(u64) -> Rate,
) -> Option<Rate> {
    let per_second = |text: &str| values::number(0..=MOST_PACKETS_PER_SECOND)(text).map(u64::from);
    rate(section, name, burst_name, per_second, burst, whole)
}

/// A rate, and the burst beside it or else the one that `whole` gives it.
fn rate(
    section: &Section<'_>,
    name: &'static str,
    burst_name: &'static str,
    read: impl FnOnce(&str) -> Result<u64, Complaint>,
    read_burst: impl FnOnce(&str) -> Result<u64, Complaint>,
    whole: impl FnOnce(u64) -> Rate,
) -> Option<Rate> {
    let per_second = section.value(name, read);
    let burst = section.value(burst_name, |text| {
        if section.has(name) { read_burst(text) } else { Err(format!("a burst needs `{name}` beside it").into()) }
    });
    let rate = whole(per_second?);
    Some(Rate { burst: burst.unwrap_or(rate.burst), ..rate })
}

/// A tenth of a second's worth at once: a page's connections open together, a flood does not stop at that.
fn tenth(per_second: u64) -> Rate {
    Rate { per_second, burst: per_second / 10 }
}

fn burst(text: &str) -> Result<u64, Complaint> {
    values::number(1..=LONGEST_BURST)(text).map(u64::from)
}

fn bytes_per_second(text: &str) -> Result<u64, Complaint> {
    match values::size_bytes(text)? {
        bytes if bytes == 0 || (FEWEST_BYTES_PER_SECOND..=MOST_BYTES_PER_SECOND).contains(&bytes) => Ok(bytes),
        _ => Err("from 1KiB to 100GiB is allowed here, or 0 for no limit".into()),
    }
}

impl GivenRates {
    fn over(&self, defaults: &GivenRates) -> Rates {
        Rates {
            packets: self.packets.or(defaults.packets).unwrap_or_default(),
            syns: self.syns.or(defaults.syns).unwrap_or_default(),
            bytes: self.bytes.or(defaults.bytes).unwrap_or_default(),
        }
    }
}
