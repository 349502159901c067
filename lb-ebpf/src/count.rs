//! Counters. Each CPU has its own; readers add them up.

use lb_common::Reason;
use lb_common::parse::{Headers, Transport};
use lb_common::service::Service;

use crate::flow::Picked;
use crate::maps;
use crate::syn_cookie::Proof;

/// Every packet, once. Returns how many this CPU has seen end this way.
#[inline(always)]
pub(crate) fn outcome(reason: Reason) -> u64 {
    maps::count_outcome(reason)
}

#[inline(always)]
pub(crate) fn service(service: &Service, headers: &Headers, transport: &Transport, admission: Result<Reason, Reason>) {
    if let Err(reason) = admission {
        maps::count_drop(service.number, reason);
    }
    maps::update_service(service.number, |counters| {
        if admission.is_err() {
            counters.dropped_packets += 1;
            return;
        }
        counters.admitted_packets += 1;
        counters.admitted_bytes += headers.length_bytes as u64;
        counters.admitted_syns += transport.opens_connection as u64;
    });
}

/// What came of a packet that had to show a connection or a cookie.
#[inline(always)]
pub(crate) fn cookie(service: &Service, proof: Proof, admission: Result<Reason, Reason>) {
    maps::update_cookies(service.number, |counters| {
        counters.valid_cookies += matches!(proof, Proof::Cookie(_)) as u64;
        counters.bad_cookies += (admission == Err(Reason::BadSynCookie)) as u64;
    });
}

/// What becomes of a packet that was admitted, if no backend gets it.
#[inline(always)]
pub(crate) fn undelivered(service: u16) -> impl Fn(&Reason) + Copy {
    move |reason| maps::count_drop(service, *reason)
}

#[inline(always)]
pub(crate) fn forwarded(picked: &Picked, headers: &Headers) {
    maps::update_backend(picked.number, |counters| {
        counters.packets += 1;
        counters.bytes += headers.length_bytes as u64;
        counters.new_flows += picked.is_new as u64;
    });
}

/// What a backend's packet adds for its service.
#[inline(always)]
pub(crate) fn nat_reply(service: u16, headers: &Headers) {
    maps::nat::update_counters(service, |counters| {
        counters.reply_packets += 1;
        counters.reply_bytes += headers.length_bytes as u64;
    });
}

/// A connection that NAT could not take.
#[inline(always)]
pub(crate) fn nat_refused(service: u16, reason: Reason) {
    maps::nat::update_counters(service, |counters| {
        counters.refused_full += (reason == Reason::NatFull) as u64;
        counters.refused_no_port += (reason == Reason::NatNoPort) as u64;
    });
}

#[inline(always)]
/// A SYN, to the worker that will get its connection.
pub(crate) fn picked(worker: Option<u16>) {
    if let Some(worker) = worker {
        maps::update_worker(worker, |counters| counters.picked_syns += 1);
    }
}

#[inline(always)]
pub(crate) fn steered(worker: u16) {
    maps::update_worker(worker, |counters| counters.steered_connections += 1);
}
