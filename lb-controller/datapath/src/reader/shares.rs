//! How a service's new flows are shared out, by the table that packets are looked up in.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::maps::MAX_TABLES;
use lb_common::types::Forward;

use super::Reader;
use crate::error::MapError;

impl Reader {
    /// Of each backend that gets new flows of the service the places in its Maglev table, which has
    /// [`MAGLEV_SIZE`](lb_common::maps::MAGLEV_SIZE) of them. Empty for a service that is not there, ends on this host,
    /// or has no backend.
    pub fn shares(&self, service: &str) -> Result<BTreeMap<SocketAddr, u32>, MapError> {
        let mut shares = BTreeMap::new();
        for place in self.places(service)? {
            *shares.entry(place).or_insert(0_u32) += 1;
        }
        let mut by_address = BTreeMap::new();
        for (backend, places) in shares {
            let entry = self.maps.backends.get(backend.into())?;
            by_address.insert(SocketAddr::new(entry.address.into(), entry.port), places);
        }
        Ok(by_address)
    }

    fn places(&self, service: &str) -> Result<Vec<u16>, MapError> {
        let names = self.maps.service_names.all()?;
        let Some(number) =
            (0_u32..).zip(&names).find_map(|(number, name)| (name.as_str()? == service).then_some(number))
        else {
            return Ok(Vec::new());
        };
        let forward = self.maps.forwards.get(number)?;
        if Forward::from_number(forward.forward) == Some(Forward::Local) || usize::from(forward.table) >= MAX_TABLES {
            return Ok(Vec::new());
        }
        let tables = self.maps.tables.read(&[forward.table])?;
        Ok(tables.into_iter().flat_map(|(_, places)| places).collect())
    }
}
