//! How NAT translates: the addresses and ports that backends answer to, and how long connections are remembered.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use lb_common::nat::UNPROVEN_SECONDS;
use lb_datapath::{DesiredNat, Ports, VipPrefix};

use super::super::section::{Complaint, Section};
use super::super::{NatConfig, Service, values};

/// The shortest time that is no shorter than what an unproven connection gets, and the longest that the clock can tell.
const IDLE: RangeInclusive<Duration> =
    Duration::from_secs(UNPROVEN_SECONDS as u64)..=Duration::from_secs(30 * 24 * 3600);

pub(super) fn compile(config: &Section<'_>, services: &[Service]) -> NatConfig {
    let default = NatConfig::default();
    let section = config.get("nat").and_then(|node| Section::open("`nat`", node, config.problems));
    let Some(section) = section else { return default };
    let ports = section.value("ports", ports).unwrap_or(default.translation.ports);
    let mut addresses = Vec::new();
    for node in section.list("addresses") {
        let address = node.read(section.problems, |text| address(text, &addresses, ports, services));
        addresses.extend(address);
    }
    let idle = |name, default| section.value(name, values::duration(IDLE)).unwrap_or(default);
    let translation = DesiredNat {
        addresses,
        ports,
        tcp_idle: idle("tcp_idle", default.translation.tcp_idle),
        udp_idle: idle("udp_idle", default.translation.udp_idle),
    };
    let capacity = section.value("capacity", values::number(1..=DesiredNat::MAX_CAPACITY as u32));
    section.finish();
    NatConfig { translation, capacity: capacity.map_or(default.capacity, |capacity| capacity as usize) }
}

fn ports(text: &str) -> Result<(u16, u16), Complaint> {
    const LEAST: u16 = 1024;
    match values::ports(text)? {
        Ports::Range(first, last) if first >= LEAST => Ok((first, last)),
        _ => Err(Complaint::new(format!("`{text}` is no range of ports from {LEAST} on"), "write `10000-32767`")),
    }
}

fn address(
    text: &str,
    siblings: &[IpAddr],
    (first, last): (u16, u16),
    services: &[Service],
) -> Result<IpAddr, Complaint> {
    let address: IpAddr = text.parse().map_err(|_| format!("`{text}` is no IPv4 or IPv6 address"))?;
    if !VipPrefix::from(address).is_unicast() {
        return Err(format!("`{text}` can be no host's address").into());
    }
    if siblings.contains(&address) {
        return Err("this address is listed already".into());
    }
    let of_family = siblings.iter().filter(|other| other.is_ipv4() == address.is_ipv4()).count();
    if of_family >= DesiredNat::MAX_ADDRESSES {
        return Err(format!("at most {} addresses of each family", DesiredNat::MAX_ADDRESSES).into());
    }
    let meets = |service: &&Service| {
        let (service_first, service_last) = service.ports.bounds();
        let ports_meet = service_first <= last && first <= service_last;
        let holds = |vip: &VipPrefix| vip.contains(address) && (ports_meet || vip.address().is_none());
        service.vips.iter().any(holds)
    };
    match services.iter().find(meets) {
        Some(service) => {
            let help = "clients and backends must reach different addresses, or different ports of one";
            Err(Complaint::new(format!("service `{}` has a VIP and ports here", service.name), help))
        }
        None => Ok(address),
    }
}
