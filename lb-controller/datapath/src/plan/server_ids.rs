//! Which backend a QUIC server id leads to.

use std::collections::BTreeMap;

use lb_common::maps::MAX_QUIC_SERVERS;
use lb_common::types::QuicServerKey;

use super::{MapOp, MapState, PlanError, backends};
use crate::desired::{Desired, DesiredServerId};

/// What happens before backends change hands, and what after.
pub(super) struct Planned {
    pub(super) removed: Vec<MapOp>,
    pub(super) written: Vec<MapOp>,
}

pub(super) fn plan(
    current: &MapState,
    desired: &Desired,
    backends: &backends::Planned<'_>,
) -> Result<Planned, PlanError> {
    let wanted = wanted(desired, backends)?;
    let (found, limit) = (wanted.len(), MAX_QUIC_SERVERS);
    if found > limit {
        return Err(PlanError::TooMany { what: "server ids", found, limit });
    }
    let is_kept = |key: &QuicServerKey, backend: &u16| wanted.get(key) == Some(backend);
    let gone = current.server_ids.iter().filter(|(key, backend)| !is_kept(key, backend));
    let new = wanted.iter().filter(|(key, backend)| current.server_ids.get(key) != Some(backend));
    Ok(Planned {
        removed: gone.map(|(key, _)| MapOp::RemoveServerId { key: *key }).collect(),
        written: new.map(|(key, backend)| MapOp::SetServerId { key: *key, backend: *backend }).collect(),
    })
}

fn wanted(desired: &Desired, backends: &backends::Planned<'_>) -> Result<BTreeMap<QuicServerKey, u16>, PlanError> {
    let (mut wanted, mut owners) = (BTreeMap::new(), BTreeMap::<QuicServerKey, &DesiredServerId>::new());
    for server in &desired.server_ids {
        let address = backends::canonical(server.address);
        let Some(number) = backends.numbers.get(&(server.pool.as_str(), address)) else { continue };
        let key = server.id.key(backends.pools[server.pool.as_str()]);
        if let Some(first) = owners.insert(key, server).filter(|first| first.address != server.address) {
            return Err(PlanError::DuplicateServerId {
                pool: server.pool.clone(),
                id: server.id,
                first: first.address,
                second: server.address,
            });
        }
        wanted.insert(key, *number);
    }
    Ok(wanted)
}
