//! Fragments of one datagram go one way: the later ones, which have no ports, by the ports of the first.

use lb_common::fragment::{Datagram, First, Place};
use lb_common::parse::{Headers, Transport};
use lb_common::{Reason, SlowPath, Stop};

use crate::maps::{self, fragments, scratch};
use crate::service;

/// Remembers a first fragment, and gives a later one the ports of its first. Dropped by name is one of whose first
/// nothing is known, one that overlaps it, and another first one that says something else. Each is then judged like a
/// packet of its own, so a first one that is dropped lets nobody past a limit.
///
/// Of datagrams to an address that backends answer to, those that are known to nobody are the host's.
///
/// Datagrams to addresses without a service of their protocol go untouched, and take no room in the memory.
#[inline(always)]
pub(crate) fn process() -> Result<(Reason, u32), Stop> {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let is_hosts_too = service::is_nat_alone(headers.destination)?;
    if !is_hosts_too && !service::has_protocol(headers.destination, headers.protocol)? {
        return Err(Stop::Reason(Reason::NoService));
    }
    let place = Place::of(maps::source_key(), &Datagram::of(&headers));
    let known = fragments::find(place);
    if headers.fragment.is_first() {
        let first = first(&headers, &transport);
        match known {
            Some(known) if known != first => return Err(Stop::Reason(Reason::FragmentOverlap)),
            Some(_) => {}
            None => fragments::remember(place, first),
        }
    } else {
        let known = known.ok_or(if is_hosts_too { Reason::NoService } else { Reason::FragmentUnknown })?;
        if headers.fragment.start_units < known.end_units {
            return Err(Stop::Reason(Reason::FragmentOverlap));
        }
        scratch::write_ports(known.protocol, known.source_port, known.destination_port).ok_or(Reason::InternalError)?;
    }
    Err(Stop::Slow(SlowPath::Judge))
}

#[inline(always)]
fn first(headers: &Headers, transport: &Transport) -> First {
    First {
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        protocol: headers.protocol,
        end_units: headers.fragment.end_units,
    }
}
