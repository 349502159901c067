//! The table of VIPs and its port ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::parse::{TCP, UDP};
use lb_common::service::{ENDPOINT, MAX_ENTRIES, NAT_BIT, NAT_REPLIES, PREFIX_ENDPOINT, ServiceKey, protocol_bit};
use lb_common::types::{Forward, ServiceEntry, ServiceRange};
use lb_common::vip::{MAX_RANGES, MAX_RANGES_PER_VIP, MAX_VIP_PREFIXES, VipPrefix};

use super::{PlanError, Workers, order};
use crate::desired::{DesiredService, Ports};

/// Each VIP:port, each VIP as a whole, and the ranges that the latter lead to, in an order of their own.
pub(super) fn entries(
    services: &[DesiredService],
    indices: &BTreeMap<&str, u16>,
    workers: &Workers,
    replies: &Replies<'_>,
) -> Result<(Vec<ServiceEntry>, Vec<ServiceRange>), PlanError> {
    let mut by_vip: BTreeMap<VipPrefix, Ends> = BTreeMap::new();
    for service in services {
        let index = indices[service.name.as_str()];
        let is_local = service.forward == Forward::Local;
        let workers = if is_local { workers.get(&service.name).copied().unwrap_or(0) } else { 0 };
        for vip in &service.vips {
            by_vip.entry(*vip).or_default().add(service, index, workers);
        }
    }
    for address in replies.addresses {
        by_vip.entry(VipPrefix::from(*address)).or_default().add_replies(replies.ports);
    }
    let (mut entries, mut ranges) = (Vec::new(), Vec::new());
    for (vip, ends) in &by_vip {
        entries.extend(ends.entries(vip, ranges.len()));
        let (found, limit) = (ends.ranges.len(), MAX_RANGES_PER_VIP);
        if found > limit {
            return Err(PlanError::TooManyRanges { vip: *vip, found, limit });
        }
        ranges.extend(ends.ranges.values().copied());
    }
    entries.sort_by_key(order);
    let prefixes = by_vip.keys().filter(|vip| vip.address().is_none()).count();
    for (what, found, limit) in [
        ("VIP and port entries", entries.len(), MAX_ENTRIES),
        ("port ranges", ranges.len(), MAX_RANGES),
        ("VIPs that are prefixes", prefixes, MAX_VIP_PREFIXES),
    ] {
        if found > limit {
            return Err(PlanError::TooMany { what, found, limit });
        }
    }
    Ok((entries, ranges))
}

/// Where backends answer to NAT.
pub(super) struct Replies<'a> {
    pub(super) addresses: &'a BTreeSet<IpAddr>,
    /// First and last.
    pub(super) ports: (u16, u16),
}

/// What there is at one VIP.
#[derive(Default)]
struct Ends {
    /// By port and protocol, with service and workers.
    ports: BTreeMap<(u16, u8), (u16, u16)>,
    /// By protocol and first port.
    ranges: BTreeMap<(u8, u16), ServiceRange>,
    /// Backends answer here.
    is_nat: bool,
}

impl Ends {
    fn add(&mut self, service: &DesiredService, index: u16, workers: u16) {
        for protocol in service.protocols.numbers() {
            // sk_lookup knows no worker socket for anything but TCP.
            let workers = if protocol == TCP { workers } else { 0 };
            match service.ports {
                Ports::One(port) => {
                    self.ports.insert((port, protocol), (index, workers));
                }
                Ports::Range(..) | Ports::Any => {
                    let (first_port, last_port) = service.ports.bounds();
                    let range =
                        ServiceRange { first_port, last_port, protocol, service: index, workers, ..ServiceRange::FREE };
                    self.ranges.insert((protocol, first_port), range);
                }
            }
        }
    }

    fn add_replies(&mut self, (first_port, last_port): (u16, u16)) {
        self.is_nat = true;
        for protocol in [TCP, UDP] {
            let range = ServiceRange { first_port, last_port, protocol, service: NAT_REPLIES, ..ServiceRange::FREE };
            self.ranges.insert((protocol, first_port), range);
        }
    }

    fn protocols(&self) -> u8 {
        let exact = self.ports.keys().map(|(_, protocol)| *protocol);
        let of_services = self.ranges.iter().filter(|(_, range)| range.service != NAT_REPLIES);
        let all = exact.chain(of_services.map(|((protocol, _), _)| *protocol));
        all.fold(if self.is_nat { NAT_BIT } else { 0 }, |bits, protocol| bits | protocol_bit(protocol))
    }

    fn entries(&self, vip: &VipPrefix, ranges_start: usize) -> Vec<ServiceEntry> {
        let address = vip.stand_in();
        let is_single = vip.address().is_some();
        let whole = if is_single { ServiceKey::whole_address(address) } else { ServiceKey::prefix_whole(address) };
        let whole = ServiceEntry {
            ranges_start: if self.ranges.is_empty() { 0 } else { ranges_start as u16 },
            ranges_count: self.ranges.len() as u16,
            protocols: self.protocols(),
            ..ServiceEntry::of(whole)
        };
        let kind = if is_single { ENDPOINT } else { PREFIX_ENDPOINT };
        let exact = self.ports.iter().map(|((port, protocol), (service, workers))| {
            let key = ServiceKey { address, port: *port, protocol: *protocol, kind };
            ServiceEntry { service: *service, workers: *workers, ..ServiceEntry::of(key) }
        });
        [whole].into_iter().chain(exact).collect()
    }
}
