//! The second half of steering. XDP cannot name a socket, so the worker is computed again where the kernel looks for
//! one: the same table, hash and key, from the same packet.

use aya_ebpf::programs::SkLookupContext;
use lb_common::Address;
use lb_common::hash::Connection;
use lb_common::maps::worker_socket_index;

use crate::maps::SocketSearch;
use crate::{count, maps, pick, service};

/// `None` if the connection is no service's, or its worker has no socket.
#[inline(always)]
pub(crate) fn steer(context: &SkLookupContext) -> Option<()> {
    let lookup = maps::lookup(context);
    let connection = Connection {
        source: address(lookup.is_ipv6, lookup.remote_words_be),
        destination: address(lookup.is_ipv6, lookup.local_words_be),
        source_port: u16::from_be(lookup.remote_port_be),
        destination_port: lookup.local_port,
        protocol: lookup.protocol,
    };
    let service = service::lookup(connection.destination, connection.destination_port, connection.protocol).ok()?;
    let worker = pick::worker_of(&service, &connection)?;
    let socket = worker_socket_index(service.number, lookup.is_ipv6, worker)?;
    let is_assigned = maps::assign_socket(context, socket);
    if is_assigned && maps::socket_search() == SocketSearch::Packet {
        count::steered(worker);
    }
    is_assigned.then_some(())
}

#[inline(always)]
fn address(is_ipv6: bool, words_be: [u32; 4]) -> Address {
    if is_ipv6 { Address { words_be } } else { Address::from_v4_word(words_be[3]) }
}
