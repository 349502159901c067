//! Which worker gets the connection: the same lines for XDP and for sk_lookup.

use lb_common::hash::{Connection, connection_hash, pick_worker};
use lb_common::parse::{Headers, Transport};
use lb_common::service::Service;

use crate::flow::connection;
use crate::maps;

/// `None` until the service's workers listen.
#[inline(always)]
pub(crate) fn worker(service: &Service, headers: &Headers, transport: &Transport) -> Option<u16> {
    worker_of(service, &connection(headers, transport))
}

#[inline(always)]
pub(crate) fn worker_of(service: &Service, connection: &Connection) -> Option<u16> {
    if service.workers == 0 {
        return None;
    }
    Some(pick_worker(connection_hash(maps::connection_key(), connection), service.workers))
}
