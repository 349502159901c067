//! Whose packet is it?

use lb_common::parse::{Headers, Transport};
use lb_common::service::{Service, ServiceKey, find as find_entry};
use lb_common::types::{Control, ServiceEntry};
use lb_common::vip::MAX_RANGES_PER_VIP;
use lb_common::{Address, Reason};

use crate::maps;

/// The service of the packet's VIP:port. A packet without readable ports keeps its own reason if its destination is a
/// VIP, and is nobody's otherwise: the host's other addresses are not ours to protect.
#[inline(always)]
pub(crate) fn find(headers: &Headers) -> Result<(Service, Transport), Reason> {
    match headers.transport {
        Ok(transport) => {
            let service = lookup(headers.destination, transport.destination_port, headers.protocol)?;
            Ok((service, transport))
        }
        Err(reason) => {
            Err(if has_protocol(headers.destination, headers.protocol)? { reason } else { Reason::NoService })
        }
    }
}

/// The service of a VIP:port that is configured as such; `Ok(None)` if the address is perhaps a VIP in another way.
#[inline(always)]
pub(crate) fn endpoint(
    control: &'static Control,
    headers: &Headers,
    transport: &Transport,
) -> Result<Option<&'static ServiceEntry>, Reason> {
    let table = Table::of(control);
    if !table.may_be_vip(&headers.destination) {
        return Err(Reason::NoService);
    }
    let key = ServiceKey::endpoint(headers.destination, transport.destination_port, headers.protocol);
    Ok(table.entry(&key))
}

/// Exact ports win over ranges, and an address that is a VIP by itself over a prefix around it.
///
/// A table being replaced under a packet is the other half of each map: what is read here stays as it was.
#[inline(always)]
pub(crate) fn lookup(vip: Address, port: u16, protocol: u8) -> Result<Service, Reason> {
    let table = Table::live()?;
    if !table.may_be_vip(&vip) {
        return Err(Reason::NoService);
    }
    if let Some(entry) = table.entry(&ServiceKey::endpoint(vip, port, protocol)) {
        return Ok(Service { number: entry.service, workers: entry.workers });
    }
    let whole = match table.entry(&ServiceKey::whole_address(vip)) {
        Some(whole) => whole,
        None => {
            let stand_in = table.prefix_around(&vip).ok_or(Reason::NoService)?;
            if let Some(entry) = table.entry(&ServiceKey::prefix_endpoint(stand_in, port, protocol)) {
                return Ok(Service { number: entry.service, workers: entry.workers });
            }
            table.entry(&ServiceKey::prefix_whole(stand_in)).ok_or(Reason::NoService)?
        }
    };
    table.range(whole, port, protocol).ok_or(Reason::NoService)
}

/// Does any service have the address?
#[inline(always)]
pub(crate) fn is_vip(address: Address) -> Result<bool, Reason> {
    Ok(Table::live()?.whole(&address).is_some_and(|whole| whole.is_vip()))
}

/// Is it an address of this host that backends answer to, and no VIP?
#[inline(always)]
pub(crate) fn is_nat_alone(address: Address) -> Result<bool, Reason> {
    Ok(Table::live()?.whole(&address).is_some_and(|whole| whole.is_nat() && !whole.is_vip()))
}

/// Does any service of that protocol?
#[inline(always)]
pub(crate) fn has_protocol(address: Address, protocol: u8) -> Result<bool, Reason> {
    Ok(Table::live()?.whole(&address).is_some_and(|whole| whole.has_protocol(protocol)))
}

/// The half of the maps that packets are judged by.
struct Table {
    number: u32,
    control: &'static Control,
}

impl Table {
    #[inline(always)]
    fn live() -> Result<Self, Reason> {
        Ok(Self::of(maps::control().ok_or(Reason::InternalError)?))
    }

    #[inline(always)]
    fn of(control: &'static Control) -> Self {
        Self { number: control.active_table & 1, control }
    }

    /// `false` for nearly every address that is no VIP, at the cost of one load.
    #[inline(always)]
    fn may_be_vip(&self, address: &Address) -> bool {
        maps::has_hint(&self.control.vip_hints[self.number as usize], address.hint())
    }

    #[inline(always)]
    fn entry(&self, key: &ServiceKey) -> Option<&'static ServiceEntry> {
        let seed = self.control.seeds[self.number as usize];
        find_entry(key, seed, |slot| maps::service_entry(self.number, slot))
    }

    /// The entry of the VIP as a whole that the address is, or is in.
    #[inline(always)]
    fn whole(&self, address: &Address) -> Option<&'static ServiceEntry> {
        if !self.may_be_vip(address) {
            return None;
        }
        match self.entry(&ServiceKey::whole_address(*address)) {
            Some(whole) => Some(whole),
            None => self.entry(&ServiceKey::prefix_whole(self.prefix_around(address)?)),
        }
    }

    #[inline(always)]
    fn prefix_around(&self, address: &Address) -> Option<Address> {
        if self.control.any_vip_prefixes[self.number as usize] == 0 {
            return None;
        }
        maps::vip_prefix(self.number, address)
    }

    #[inline(always)]
    fn range(&self, whole: &ServiceEntry, port: u16, protocol: u8) -> Option<Service> {
        for index in 0..MAX_RANGES_PER_VIP as u16 {
            if index >= whole.ranges_count {
                return None;
            }
            let range = maps::service_range(self.number, whole.ranges_start + index)?;
            if range.protocol == protocol && range.first_port <= port && port <= range.last_port {
                return Some(Service { number: range.service, workers: range.workers });
            }
        }
        None
    }
}
