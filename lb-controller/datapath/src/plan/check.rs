//! What of a wish can be in no map, whatever else is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::types::Forward;
use lb_common::vip::VipPrefix;

use super::PlanError;
use crate::desired::{Desired, DesiredNat, DesiredService, Endpoint, Ports};

pub(super) fn check(desired: &Desired, nat_addresses: &BTreeSet<IpAddr>) -> Result<(), PlanError> {
    let mut names = BTreeSet::new();
    let pools: BTreeSet<&str> = desired.backends.iter().map(|backend| backend.pool.as_str()).collect();
    let mut claims = Claims::default();
    for service in &desired.services {
        if !names.insert(&service.name) {
            return Err(PlanError::DuplicateService { name: service.name.clone() });
        }
        check_alone(service)?;
        if let Some(pool) = service.pool.as_ref().filter(|pool| !pools.contains(pool.as_str())) {
            return Err(PlanError::NoSuchPool { service: service.name.clone(), pool: pool.clone() });
        }
        claims.add(service)?;
        check_families(service, desired)?;
        check_replies(service, &desired.nat, nat_addresses)?;
    }
    check_nat(&desired.nat)
}

fn check_nat(nat: &DesiredNat) -> Result<(), PlanError> {
    let (first, last) = nat.ports;
    if first == 0 || first > last {
        return Err(PlanError::BadNatPorts { first, last });
    }
    let of_v6 = nat.addresses.iter().filter(|address| address.to_canonical().is_ipv6()).count();
    let (found, limit) = (of_v6.max(nat.addresses.len() - of_v6), DesiredNat::MAX_ADDRESSES);
    if found > limit { Err(PlanError::TooMany { what: "NAT addresses of one family", found, limit }) } else { Ok(()) }
}

/// NAT makes no IPv6 of IPv4.
fn check_families(service: &DesiredService, desired: &Desired) -> Result<(), PlanError> {
    let Some(pool) = service.pool.as_ref().filter(|_| service.forward == Forward::Nat) else { return Ok(()) };
    let backends = desired.backends.iter().filter(|backend| backend.pool == *pool);
    let of_backends = backends.map(|backend| backend.address.ip().to_canonical().is_ipv6());
    let families: BTreeSet<bool> = service.vips.iter().map(|vip| vip.network().is_ipv6()).chain(of_backends).collect();
    let mismatch = PlanError::NatFamilies { service: service.name.clone(), pool: pool.clone() };
    if families.len() > 1 { Err(mismatch) } else { Ok(()) }
}

/// Packets of clients and answers of backends must not be taken for one another.
fn check_replies(
    service: &DesiredService,
    nat: &DesiredNat,
    nat_addresses: &BTreeSet<IpAddr>,
) -> Result<(), PlanError> {
    let (first, last) = nat.ports;
    let (service_first, service_last) = service.ports.bounds();
    let meet = service_first <= last && first <= service_last;
    for (vip, address) in service.vips.iter().flat_map(|vip| nat_addresses.iter().map(move |one| (vip, one))) {
        // An address that is known by itself would no longer be looked for in the prefix.
        if vip.contains(*address) && (meet || vip.address().is_none()) {
            let (service, ports) = (service.name.clone(), service.ports);
            return Err(PlanError::NatConflict { service, vip: *vip, ports, address: *address, first, last });
        }
    }
    Ok(())
}

fn check_alone(service: &DesiredService) -> Result<(), PlanError> {
    let name = || service.name.clone();
    let (first, last) = service.ports.bounds();
    if first == 0 || first > last {
        return Err(PlanError::BadPorts { service: name(), ports: service.ports });
    }
    if service.protocols.numbers().next().is_none() {
        return Err(PlanError::NoProtocol { service: name() });
    }
    if (service.forward == Forward::Local) != service.pool.is_none() {
        return Err(PlanError::PoolMismatch { service: name() });
    }
    match service.vips.iter().find(|vip| !vip.is_unicast()) {
        Some(vip) => Err(PlanError::UnusableVip { service: name(), vip: *vip }),
        None => Ok(()),
    }
}

/// Who has which ports of which VIP.
#[derive(Default)]
struct Claims<'a>(BTreeMap<(VipPrefix, u8), Vec<(Ports, &'a str)>>);

impl<'a> Claims<'a> {
    fn add(&mut self, service: &'a DesiredService) -> Result<(), PlanError> {
        for (vip, protocol) in
            service.vips.iter().flat_map(|vip| service.protocols.numbers().map(move |one| (*vip, one)))
        {
            let claims = self.0.entry((vip, protocol)).or_default();
            if let Some((ports, first)) = claims.iter().find(|(ports, _)| ports.conflicts_with(service.ports)) {
                let (first, second) = ((*first).to_owned(), service.name.clone());
                return Err(PlanError::DuplicateEndpoint {
                    first,
                    second,
                    endpoint: Endpoint { vip, ports: *ports, protocol },
                });
            }
            claims.push((service.ports, &service.name));
        }
        Ok(())
    }
}
