//! Whose a destination is, found as the programs find it.

use std::net::IpAddr;

use crate::desired::{Endpoint, Ports};
use crate::reader::ServiceStatus;

/// The places of all services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Vec<(Endpoint, String)>);

impl Places {
    pub(crate) fn of(services: &[ServiceStatus]) -> Self {
        let of_service = |service: &ServiceStatus| {
            let name = service.name.clone();
            service.endpoints.clone().into_iter().map(move |endpoint| (endpoint, name.clone()))
        };
        Self(services.iter().flat_map(of_service).collect())
    }

    /// The longest VIP around an address decides alone; an exact port is found before a range.
    pub(crate) fn service(&self, address: IpAddr, port: u16, protocol: u8) -> Option<&str> {
        let around = || self.0.iter().filter(|(endpoint, _)| endpoint.vip.contains(address));
        let longest_bits = around().map(|(endpoint, _)| endpoint.vip.length_bits()).max()?;
        let fitting = around().filter(|(endpoint, _)| {
            endpoint.vip.length_bits() == longest_bits && endpoint.protocol == protocol && endpoint.ports.contains(port)
        });
        let found = fitting.min_by_key(|(endpoint, _)| !matches!(endpoint.ports, Ports::One(_)));
        found.map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use lb_common::parse::{TCP, UDP};

    use super::*;

    #[test]
    fn a_destination_belongs_to_the_service_that_the_programs_would_find() {
        let place = |vip: &str, ports, protocol, name: &str| {
            (Endpoint { vip: vip.parse().expect("a VIP"), ports, protocol }, name.to_owned())
        };
        let places = Places(vec![
            place("198.51.100.0/24", Ports::Any, TCP, "net"),
            place("198.51.100.10", Ports::One(443), TCP, "shop"),
            place("198.51.100.10", Ports::Range(400, 500), TCP, "range"),
            place("2001:db8::/32", Ports::One(53), UDP, "dns"),
        ]);
        for (address, port, protocol, expected) in [
            ("198.51.100.10", 443, TCP, Some("shop")),
            ("198.51.100.10", 444, TCP, Some("range")),
            // The VIP by itself hides the prefix around it.
            ("198.51.100.10", 80, TCP, None),
            ("198.51.100.11", 80, TCP, Some("net")),
            ("198.51.100.11", 80, UDP, None),
            ("2001:db8::1", 53, UDP, Some("dns")),
            ("192.0.2.1", 443, TCP, None),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(places.service(address, port, protocol), expected, "{address}:{port}");
        }
    }
}
