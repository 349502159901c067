//! A datagram on its way to a backend, of a service that is routed by QUIC connection ids: a client that changes its
//! address, or whose NAT gives it another port, stays with the server that has its connection.

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::parse::{Headers, Transport};
use lb_common::quic::{ServerIdLengths, server};
use lb_common::types::ServiceForward;
use lb_common::{Reason, Stop};

use crate::end::end;
use crate::flow::Picked;
use crate::maps::{self, scratch};
use crate::packet::XdpPacket;
use crate::{count, flow, forward};

#[xdp(frags)]
pub(crate) fn lb_quic(context: XdpContext) -> u32 {
    end(&context, process(&context))
}

/// By its flow goes what names no server: the first packets of a connection, whose ids the client has chosen. So does what
/// names one that is not there.
#[inline(always)]
fn process(context: &XdpContext) -> Result<(Reason, u32), Stop> {
    let (headers, transport) = scratch::read().ok_or(Reason::InternalError)?;
    let (service, prioritised) = scratch::read_admission().ok_or(Reason::InternalError)?;
    let forward = maps::forward(service).ok_or(Reason::InternalError)?;
    let picked = match named(context, forward, &headers, &transport) {
        Some(picked) => picked,
        None => {
            let place = flow::place_of(forward, &headers, &transport).ok_or(Reason::InternalError)?;
            flow::backend(place, service, forward, &headers, &transport).inspect_err(count::undelivered(service))?
        }
    };
    let admitted = if prioritised || picked.is_prioritised { Reason::Prioritised } else { Reason::Admitted };
    Ok((admitted, forward::finish(context, service, forward, &headers, &transport, &picked)?))
}

#[inline(always)]
fn named(context: &XdpContext, forward: &ServiceForward, headers: &Headers, transport: &Transport) -> Option<Picked> {
    let lengths = ServerIdLengths(forward.quic_server_id_lengths);
    let key = server(&XdpPacket::new(context), transport.offset, lengths, forward.pool)?;
    flow::assigned(maps::quic_server(&key)?, forward.pool, headers, transport)
}
